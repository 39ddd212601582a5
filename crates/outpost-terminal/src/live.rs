//! A dispatch while it runs: its events as lines and, on a terminal, one line below them that says
//! where it stands. The line is redrawn in place; elsewhere there are only plain lines.

use outpost_types::{DispatchStatus, DispatchView, EventData, EventEnvelope, Timestamp, ToolPhase};

use crate::event::{EventPrinter, tool_name};
use crate::format::{millis, truncate, usage};
use crate::{Surface, sanitize};

/// Time between two frames of the spinner, milliseconds.
pub const FRAME_MILLIS: u64 = 100;
const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAMES_ASCII: [&str; 4] = ["|", "/", "-", "\\"];
/// Back to the first column and clear the line.
const CLEAR_LINE: &str = "\r\x1b[2K";

/// Draws one dispatch: each method gives what is to be written next, empty for nothing.
#[derive(Debug)]
pub struct Live {
    surface: Surface,
    printer: EventPrinter,
    started: Timestamp,
    stand: Stand,
    frame: usize,
    drawn: bool,
}

/// What the line below says.
#[derive(Debug, Clone, Default)]
struct Stand {
    /// State of the dispatch.
    status: Option<DispatchStatus>,
    /// Agent and model.
    who: String,
    /// What the agent does now.
    doing: Option<String>,
    /// Tokens and money so far.
    used: Option<String>,
}

impl Stand {
    /// Takes in an event.
    fn see(&mut self, event: &EventEnvelope) {
        match &event.data {
            EventData::Status { status, .. } => {
                self.status = Some(*status);
                self.doing = None;
            }
            EventData::Tool { name, phase: ToolPhase::Start, .. } => {
                self.doing = Some(tool_name(name))
            }
            EventData::Tool { .. } | EventData::Message { .. } => self.doing = None,
            EventData::Thought { .. } => self.doing = Some("thinking".to_owned()),
            EventData::Usage { usage: used, .. } => self.used = Some(usage(used)),
            _ => {}
        }
    }

    /// The line, without spinner.
    fn line(&self, elapsed_millis: u64) -> String {
        let status = self.status.unwrap_or(DispatchStatus::Pending);
        let mut parts =
            vec![status.as_str().to_ascii_lowercase(), stopwatch(elapsed_millis), self.who.clone()];
        parts.extend(self.doing.clone());
        parts.extend(self.used.clone());
        parts.join(" · ")
    }
}

/// Tenths of a second are enough for something that is redrawn ten times a second.
fn stopwatch(elapsed_millis: u64) -> String {
    if elapsed_millis < 60_000 {
        format!("{}.{} s", elapsed_millis / 1_000, elapsed_millis % 1_000 / 100)
    } else {
        millis(elapsed_millis)
    }
}

impl Live {
    /// Starts drawing `view`.
    #[must_use]
    pub fn new(surface: Surface, view: &DispatchView) -> Self {
        let who = format!("{} {}", view.agent, view.model_id);
        Self {
            surface,
            printer: EventPrinter::new(surface, view.created_at),
            started: view.created_at,
            stand: Stand {
                status: Some(view.status),
                who: sanitize::line(&who),
                ..Stand::default()
            },
            frame: 0,
            drawn: false,
        }
    }

    /// Prints an event.
    #[must_use]
    pub fn event(&mut self, event: &EventEnvelope, now: Timestamp) -> String {
        self.stand.see(event);
        let lines = self.printer.lines(event);
        if lines.is_empty() {
            return String::new();
        }
        let clear = self.finish();
        format!("{clear}{}\n{}", lines.join("\n"), self.draw(now))
    }

    /// Draws the next frame; due every [`FRAME_MILLIS`].
    #[must_use]
    pub fn tick(&mut self, now: Timestamp) -> String {
        self.frame = self.frame.wrapping_add(1);
        self.draw(now)
    }

    /// Takes the line away, so that other text can follow.
    #[must_use]
    pub fn finish(&mut self) -> String {
        if std::mem::take(&mut self.drawn) { CLEAR_LINE.to_owned() } else { String::new() }
    }

    fn draw(&mut self, now: Timestamp) -> String {
        let surface = self.surface;
        if !surface.tty || self.stand.status.is_some_and(DispatchStatus::is_terminal) {
            return String::new();
        }
        let frame = if surface.unicode {
            FRAMES[self.frame % FRAMES.len()]
        } else {
            FRAMES_ASCII[self.frame % FRAMES_ASCII.len()]
        };
        let line = self.stand.line(now.millis_since(self.started));
        let line = truncate(&line, surface.width().saturating_sub(3), surface.unicode);
        self.drawn = true;
        format!("{CLEAR_LINE}{} {}", surface.cyan(frame), surface.dim(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_line_follows_the_events() {
        let mut stand = Stand { who: "claude opus".to_owned(), ..Stand::default() };
        let mut lines = Vec::new();
        for event in samples::events() {
            stand.see(&event);
            lines.push(stand.line(1_234));
        }
        assert!(lines.contains(&"running · 1.2 s · claude opus · Bash".to_owned()));
        let last = lines.last().unwrap();
        assert!(last.starts_with("completed") && last.ends_with("$0.0213"), "{last}");
    }

    #[test]
    fn nothing_moves_in_a_pipe() {
        let text = draw_all(Surface::PLAIN);
        assert!(!text.contains('\x1b') && !text.contains('\r'));
        assert!(text.contains("python3 -m unittest"));
    }

    #[test]
    fn on_a_terminal_the_line_is_cleared_before_other_text_and_at_the_end() {
        let text = draw_all(Surface { tty: true, ..Surface::PLAIN });
        let mut drawn = false;
        for line in text.split_inclusive('\n') {
            assert!(!drawn || line.starts_with(CLEAR_LINE), "{line:?}");
            drawn = false;
            if let Some((_, last)) = line.rsplit_once(CLEAR_LINE) {
                drawn = !last.is_empty() && !last.ends_with('\n');
            }
        }
        assert!(!drawn && text.contains(FRAMES[1]), "{text:?}");
    }

    fn draw_all(surface: Surface) -> String {
        let now = samples::CREATED_AT.plus_millis(1_234);
        let mut live = Live::new(surface, &samples::completed());
        let mut text = String::new();
        for event in samples::events() {
            text.push_str(&live.event(&event, now));
            text.push_str(&live.tick(now));
        }
        text.push_str(&live.finish());
        text
    }
}
