//! One dispatch as a card: state, result, checks, timings, cost, isolation.

use outpost_types::{CheckResult, DispatchStatus, DispatchView, Timestamp};

use crate::Surface;
use crate::format::{age, millis, pad, truncate, usage, wrap};
use crate::sanitize;
use crate::timeline::timeline;

/// Columns of the names before the values.
const NAME_COLUMNS: usize = 12;
/// Characters of a commit's name that are shown.
const COMMIT_CHARACTERS: usize = 12;
/// Lines of a failed check's output that are shown.
const CHECK_OUTPUT_LINES_MAX: usize = 12;
/// Lines of the agent's last words that are shown.
const SUMMARY_LINES_MAX: usize = 30;

/// The state in its colour.
fn status(surface: Surface, status: DispatchStatus) -> String {
    paint_status(surface, status.as_str())
}

/// Colour of a state by its name, for tables.
pub(crate) fn paint_status(surface: Surface, word: &str) -> String {
    match word {
        "COMPLETED" => surface.green(word),
        "FAILED" | "TIMEOUT" => surface.red(word),
        "CANCELLED" => surface.yellow(word),
        _ => surface.cyan(word),
    }
}

/// The whole card, ending with a line end.
#[must_use]
pub fn card(surface: Surface, view: &DispatchView, now: Timestamp) -> String {
    let mut card = Card { surface, text: String::new() };
    card.heading(view);
    card.facts(view, now);
    card.result(view);
    card.checks(&view.checks);
    let timings = timeline(surface, &view.timings);
    if !timings.is_empty() {
        card.text.push('\n');
        card.text.push_str(&timings);
    }
    card.isolation(view);
    card.text
}

struct Card {
    surface: Surface,
    text: String,
}

impl Card {
    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    fn field(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let label = self.surface.dim(&pad(name, NAME_COLUMNS));
        self.line(&format!("  {label}{value}"));
    }

    fn wrapped(&mut self, name: &str, value: &str, lines_max: usize) {
        let room = match self.surface.columns {
            Some(_) => self.surface.width().saturating_sub(NAME_COLUMNS + 2),
            None => usize::MAX,
        };
        let lines = wrap(value.trim(), room);
        for (index, line) in lines.iter().take(lines_max).enumerate() {
            if index == 0 {
                self.field(name, line);
            } else {
                let indent = " ".repeat(NAME_COLUMNS + 2);
                self.line(&format!("{indent}{line}"));
            }
        }
        if lines.len() > lines_max {
            let indent = " ".repeat(NAME_COLUMNS + 2);
            let more = format!("({} more lines in the log)", lines.len() - lines_max);
            self.line(&format!("{indent}{}", self.surface.dim(&more)));
        }
    }

    fn heading(&mut self, view: &DispatchView) {
        let surface = self.surface;
        let mark = match view.status {
            DispatchStatus::Completed => surface.green(surface.glyph("✓", "v")),
            status if status.is_terminal() => surface.red(surface.glyph("✗", "x")),
            _ => surface.cyan(surface.glyph("▸", ">")),
        };
        let id = surface.bold(&view.dispatch_id.to_string());
        let status = status(surface, view.status);
        let agent = sanitize::line(&view.agent);
        self.line(&format!("{mark} {id}  {status}  {agent}"));
    }

    fn facts(&mut self, view: &DispatchView, now: Timestamp) {
        let task = sanitize::line(&view.task);
        let task = truncate(&task, 200, self.surface.unicode);
        self.wrapped("task", &task, 4);
        let model = sanitize::line(&view.model_id);
        self.field("model", format!("{model}  {}", view.tier.as_str()).trim_start());
        if let Some(repo) = &view.repo {
            let mut text = sanitize::line(repo);
            if let Some(branch) = &view.branch {
                text.push_str(&format!(" ({})", sanitize::line(branch)));
            }
            if let Some(commit) = &view.base_commit {
                let commit = sanitize::line(commit);
                text.push_str(" at ");
                text.extend(commit.chars().take(COMMIT_CHARACTERS));
            }
            self.field("repository", &text);
        }
        let mut created = age(view.created_at, now);
        if view.attempt > 1 {
            created.push_str(&format!(", attempt {}", view.attempt));
        }
        self.field("created", &created);
        if let Some(user) = &view.user_id {
            self.field("user", &sanitize::line(user));
        }
        if !view.tags.is_empty() {
            self.field("tags", &sanitize::line(&view.tags.join(", ")));
        }
        if let Some(reason) = &view.queue_reason {
            let place = view
                .queue_position
                .map(|position| format!(" ({position} before it)"))
                .unwrap_or_default();
            self.wrapped("waits for", &(sanitize::line(reason) + &place), 4);
        }
    }

    fn result(&mut self, view: &DispatchView) {
        if let Some(failure) = &view.failure {
            let message = self.surface.red(&sanitize::line(&failure.message));
            let name = match view.status {
                DispatchStatus::Cancelled | DispatchStatus::Timeout => "ended",
                _ => "failed",
            };
            self.field(name, &message);
            if let Some(hint) = &failure.hint {
                self.wrapped("hint", &sanitize::line(hint), 6);
            }
        }
        if let Some(code) = view.exit_code.filter(|code| *code != 0) {
            self.field("exit code", &code.to_string());
        }
        if let Some(summary) = &view.summary {
            self.wrapped("agent says", &sanitize::text(summary), SUMMARY_LINES_MAX);
        }
        if let Some(files) = view.files_changed {
            let text = match files {
                0 => "nothing".to_owned(),
                1 => "1 file".to_owned(),
                files => format!("{files} files"),
            };
            self.field("changed", &text);
        }
        if let Some(used) = &view.usage {
            self.field("tokens", &usage(used));
        }
    }

    fn checks(&mut self, checks: &[CheckResult]) {
        for check in checks {
            let text = check_line(self.surface, check);
            self.field("check", &text);
            if check.passed {
                continue;
            }
            let output = sanitize::text(&check.output);
            let lines: Vec<&str> = output.lines().collect();
            let from = lines.len().saturating_sub(CHECK_OUTPUT_LINES_MAX);
            for line in lines.iter().skip(from) {
                let indent = " ".repeat(NAME_COLUMNS + 4);
                let line = self.surface.dim(line);
                self.line(&format!("{indent}{line}"));
            }
        }
    }

    fn isolation(&mut self, view: &DispatchView) {
        let Some(isolation) = &view.isolation else {
            return;
        };
        self.text.push('\n');
        let effective = sanitize::line(&isolation.effective.join(", "));
        self.wrapped("isolation", &effective, 8);
        for missing in &isolation.missing {
            let text = self.surface.yellow(&sanitize::line(missing));
            self.field("missing", &text);
        }
    }
}

/// One check on one line: passed or not, command, time.
fn check_line(surface: Surface, check: &CheckResult) -> String {
    let command = sanitize::line(&check.command);
    let took = surface.dim(&millis(check.millis));
    if check.passed {
        let mark = surface.green(surface.glyph("✓", "v"));
        return format!("{mark} {command}  {took}");
    }
    let mark = surface.red(surface.glyph("✗", "x"));
    let how =
        check.exit_code.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}"));
    format!("{mark} {command}  {how}  {took}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, assert_golden};

    #[test]
    fn a_completed_dispatch() {
        let now = samples::CREATED_AT.plus_millis(65_000);
        let text = card(Surface::PLAIN, &samples::completed(), now);
        assert!(!text.contains('\x1b'));
        assert_golden("card-completed.txt", &text);
    }

    #[test]
    fn a_failed_dispatch_on_a_narrow_terminal() {
        let narrow = Surface { columns: Some(60), tty: true, ..Surface::PLAIN };
        let now = samples::CREATED_AT.plus_millis(5_000);
        assert_golden("card-failed.txt", &card(narrow, &samples::failed(), now));
    }
}
