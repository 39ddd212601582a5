//! Where text goes: data on standard output, everything else on standard error.
//!
//! A [`Surface`] says what one of the two can show (colour, width, redrawing); `outpost-terminal` makes the
//! text for it. Nothing here reads input.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outpost_args::ColorChoice;
use outpost_terminal::{Surface, sanitize};
use serde::Serialize;

use crate::error::CliError;

/// Width assumed where a terminal does not tell its own, columns.
const WIDTH_COLUMNS_DEFAULT: usize = 80;

/// Flags that decide what is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Verbosity {
    /// Data as JSON.
    pub(crate) json: bool,
    /// No notes and no progress.
    pub(crate) quiet: bool,
    /// More of our own doings.
    pub(crate) verbose: bool,
}

/// Both outputs.
pub(crate) struct Ui {
    /// What is shown at all.
    pub(crate) verbosity: Verbosity,
    /// Standard output.
    pub(crate) out: Surface,
    /// Standard error.
    pub(crate) err: Surface,
    out_sink: Mutex<Box<dyn Write + Send>>,
    err_sink: Mutex<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Ui {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ui").field("out", &self.out).field("err", &self.err).finish_non_exhaustive()
    }
}

impl Ui {
    /// The process's own outputs.
    pub(crate) fn from_process(color: ColorChoice, verbosity: Verbosity) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        Self {
            verbosity,
            out: surface(color, out.is_terminal(), terminal_size::terminal_size_of(&out)),
            err: surface(color, err.is_terminal(), terminal_size::terminal_size_of(&err)),
            out_sink: Mutex::new(Box::new(out)),
            err_sink: Mutex::new(Box::new(err)),
        }
    }

    /// Outputs into buffers, for tests.
    #[cfg(test)]
    pub(crate) fn captured(verbosity: Verbosity) -> (Self, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let ui = Self {
            verbosity,
            out: Surface::PLAIN,
            err: Surface::PLAIN,
            out_sink: Mutex::new(Box::new(out.clone())),
            err_sink: Mutex::new(Box::new(err.clone())),
        };
        (ui, out, err)
    }

    /// Data, as it is.
    pub(crate) fn data_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut sink = lock(&self.out_sink);
        sink.write_all(bytes)?;
        sink.flush()?;
        Ok(())
    }

    /// Data; a missing line end is added.
    pub(crate) fn data(&self, text: &str) -> Result<(), CliError> {
        self.data_bytes(text.as_bytes())?;
        if text.ends_with('\n') || text.is_empty() { Ok(()) } else { self.data_bytes(b"\n") }
    }

    /// Data as one JSON document.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        let text = if self.out.tty {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        let text = text.map_err(|error| CliError::chain("the answer is no JSON", &error))?;
        self.data(&sanitize::json(&text))
    }

    /// A line for the person, never data.
    pub(crate) fn note(&self, text: &str) {
        if !self.verbosity.quiet {
            self.err_line(text);
        }
    }

    /// A warning: shown even when quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.err_line(&format!("{} {text}", self.err.yellow("warning:")));
    }

    /// A line on standard error.
    pub(crate) fn err_line(&self, text: &str) {
        self.err_text(&format!("{text}\n"));
    }

    /// Text on standard error; nothing is to be done when even that is gone.
    pub(crate) fn err_text(&self, text: &str) {
        let mut sink = lock(&self.err_sink);
        let _ = sink.write_all(text.as_bytes()).and_then(|()| sink.flush());
    }

    /// The error and its hint: a JSON object with `--json`, two lines otherwise.
    pub(crate) fn error(&self, error: &CliError) {
        let message = sanitize::text(&error.message());
        let hint = error.hint().map(sanitize::text);
        if self.verbosity.json {
            let field = match error {
                CliError::Api(api) => api.field.as_deref(),
                _ => None,
            };
            let document = serde_json::json!({
                "error": { "code": error.code(), "message": message, "field": field, "hint": hint }
            });
            self.err_line(&sanitize::json(&document.to_string()));
            return;
        }
        self.err_line(&format!("{} {message}", self.err.red("error:")));
        if let Some(hint) = hint {
            self.err_line(&format!("{} {hint}", self.err.cyan("hint:")));
        }
    }
}

fn lock(sink: &Mutex<Box<dyn Write + Send>>) -> MutexGuard<'_, Box<dyn Write + Send>> {
    // A panic while writing leaves a sink that still takes bytes.
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

fn surface(
    choice: ColorChoice,
    tty: bool,
    size: Option<(terminal_size::Width, terminal_size::Height)>,
) -> Surface {
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let dumb = env("TERM") == "dumb";
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .map(env)
        .find(|value| !value.is_empty())
        .unwrap_or_default();
    let color = match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => tty && !dumb && env("NO_COLOR").is_empty(),
    };
    Surface {
        tty: tty && !dumb,
        color,
        // Unset locales are common in containers whose terminal shows UTF-8 well; only an explicit
        // "C" is taken at its word.
        unicode: !matches!(locale.as_str(), "C" | "POSIX"),
        columns: match size {
            Some((columns, _)) => Some(usize::from(columns.0)),
            None if tty => Some(env("COLUMNS").parse().unwrap_or(WIDTH_COLUMNS_DEFAULT)),
            None => None,
        },
    }
}

/// A buffer that a test reads back.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured(std::sync::Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Captured {
    /// What was written so far.
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_never_reach_standard_output_and_quiet_silences_them() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        ui.note("hello");
        ui.data("42").unwrap();
        assert_eq!((out.text(), err.text()), ("42\n".into(), "hello\n".into()));
        let (quiet, _, err) = Ui::captured(Verbosity { quiet: true, ..Verbosity::default() });
        quiet.note("hello");
        assert_eq!(err.text(), "");
    }

    #[test]
    fn an_error_of_a_hostile_server_cannot_move_the_cursor() {
        let (ui, _, err) = Ui::captured(Verbosity::default());
        ui.error(&CliError::failed("a\x1b[2Jb").with_hint("c\x07d"));
        assert_eq!(err.text(), "error: ab\nhint: cd\n");
    }

    #[test]
    fn errors_are_one_json_line_with_the_flag() {
        let (ui, _, err) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        ui.error(&CliError::usage("--timeout is too short"));
        let value: serde_json::Value = serde_json::from_str(&err.text()).unwrap();
        assert_eq!(value["error"]["code"], "usage");
    }
}
