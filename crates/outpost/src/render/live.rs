//! A dispatch while it runs: its events as lines and, on a terminal, one line below them that says
//! where it stands. The line is redrawn in place; elsewhere there are only plain lines.

use outpost_types::{DispatchStatus, DispatchView, EventData, EventEnvelope, Timestamp, ToolPhase};

use super::event::{EventPrinter, tool_name};
use super::format::{millis, now, truncate, usage};
use super::sanitize;
use crate::ui::Ui;

/// Time between two frames of the spinner, milliseconds.
pub(crate) const FRAME_MILLIS: u64 = 100;
const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAMES_ASCII: [&str; 4] = ["|", "/", "-", "\\"];
/// Back to the first column and clear the line.
const CLEAR_LINE: &str = "\r\x1b[2K";

/// Draws one dispatch on standard error.
pub(crate) struct Live<'a> {
    ui: &'a Ui,
    printer: EventPrinter,
    started: Timestamp,
    stand: Stand,
    frame: usize,
    drawn: bool,
}

/// What the line below says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stand {
    /// State of the dispatch.
    pub(crate) status: Option<DispatchStatus>,
    /// Agent and model.
    pub(crate) who: String,
    /// What the agent does now.
    pub(crate) doing: Option<String>,
    /// Tokens and money so far.
    pub(crate) used: Option<String>,
}

impl Stand {
    /// Takes in an event.
    pub(crate) fn see(&mut self, event: &EventEnvelope) {
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
    pub(crate) fn line(&self, elapsed_millis: u64) -> String {
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

impl<'a> Live<'a> {
    /// Starts drawing `view`.
    pub(crate) fn new(ui: &'a Ui, view: &DispatchView) -> Self {
        let who = format!("{} {}", view.agent, view.model_id);
        Self {
            ui,
            printer: EventPrinter::new(ui.err, view.created_at),
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

    /// Whether [`Live::tick`] has anything to do.
    pub(crate) const fn is_animated(&self) -> bool {
        self.ui.err.tty && !self.ui.verbosity.quiet
    }

    /// Prints an event.
    pub(crate) fn event(&mut self, event: &EventEnvelope) {
        self.stand.see(event);
        let lines = self.printer.lines(event);
        if self.ui.verbosity.quiet || lines.is_empty() {
            return;
        }
        let clear = if self.drawn { CLEAR_LINE } else { "" };
        self.drawn = false;
        self.ui.err_text(&format!("{clear}{}\n", lines.join("\n")));
        self.draw();
    }

    /// Draws the next frame.
    pub(crate) fn tick(&mut self) {
        self.frame = self.frame.wrapping_add(1);
        self.draw();
    }

    /// Takes the line away, so that other text can follow.
    pub(crate) fn finish(&mut self) {
        if self.drawn {
            self.ui.err_text(CLEAR_LINE);
            self.drawn = false;
        }
    }

    fn draw(&mut self) {
        if !self.is_animated() || self.stand.status.is_some_and(DispatchStatus::is_terminal) {
            return;
        }
        let surface = self.ui.err;
        let frame = if surface.unicode {
            FRAMES[self.frame % FRAMES.len()]
        } else {
            FRAMES_ASCII[self.frame % FRAMES_ASCII.len()]
        };
        let line = self.stand.line(now().millis_since(self.started));
        let line = truncate(&line, surface.width().saturating_sub(3), surface.unicode);
        let text = format!("{CLEAR_LINE}{} {}", surface.cyan(frame), surface.dim(&line));
        self.ui.err_text(&text);
        self.drawn = true;
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::ui::Verbosity;

    #[test]
    fn the_line_follows_the_events() {
        let mut stand = Stand { who: "claude opus".to_owned(), ..Stand::default() };
        let mut lines = Vec::new();
        for event in fake::events() {
            stand.see(&event);
            lines.push(stand.line(1_234));
        }
        assert!(lines.contains(&"running · 1.2 s · claude opus · Bash".to_owned()));
        let last = lines.last().unwrap();
        assert!(last.starts_with("completed") && last.ends_with("$0.0213"), "{last}");
    }

    #[test]
    fn nothing_moves_in_a_pipe() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let mut live = Live::new(&ui, &fake::completed());
        for event in fake::events() {
            live.event(&event);
            live.tick();
        }
        live.finish();
        assert!(!err.text().contains('\x1b') && !err.text().contains('\r'));
        assert!(err.text().contains("python3 -m unittest"));
        assert_eq!(out.text(), "");
    }
}
