//! Asking for one line at the terminal without showing it.
//!
//! The terminal hands over each byte as it is typed (no echo, no signals), so that Ctrl-C ends the
//! question with the terminal as it was before, and a line may be longer than the 4,096 bytes a
//! terminal keeps by itself. Bounded by the longest secret.

use std::io::{self, BufRead, Read as _, Stdin};
use std::os::fd::AsFd as _;

use outpost_types::limits::SECRET_BYTES_MAX;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::error::CliError;
use crate::ui::Ui;

/// What a typed byte leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// More may come.
    On,
    /// The line is whole.
    Done,
    /// The person does not want to.
    Cancelled,
    /// More than a secret may have.
    TooLong,
}

/// Gives the terminal back as it was.
struct Restore {
    stdin: Stdin,
    before: Termios,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // Without a terminal any more there is nothing to give back.
        let _ = tcsetattr(self.stdin.as_fd(), OptionalActions::Flush, &self.before);
    }
}

/// Asks. `None` when it was cancelled.
pub(super) fn ask(ui: &Ui, question: &str) -> Result<Option<String>, CliError> {
    let restore = quiet_terminal()?;
    ui.err_text(question);
    let outcome = line(&mut restore.stdin.lock());
    drop(restore);
    ui.err_text("\n");
    outcome
}

fn quiet_terminal() -> io::Result<Restore> {
    let stdin = io::stdin();
    let before = tcgetattr(stdin.as_fd())?;
    let mut quiet = before.clone();
    quiet.local_modes &= !(LocalModes::ECHO
        | LocalModes::ECHONL
        | LocalModes::ICANON
        | LocalModes::ISIG
        | LocalModes::IEXTEN);
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(stdin.as_fd(), OptionalActions::Flush, &quiet)?;
    Ok(Restore { stdin, before })
}

/// Reads bytes until the line is whole.
fn line(input: &mut impl BufRead) -> Result<Option<String>, CliError> {
    let mut typed = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX));
    for byte in input.bytes() {
        match step(&mut typed, byte?) {
            Step::On => {}
            Step::Done => break,
            Step::Cancelled => return Ok(None),
            Step::TooLong => {
                return Err(CliError::usage(format!(
                    "the value is longer than {SECRET_BYTES_MAX} bytes"
                )));
            }
        }
    }
    let text =
        std::str::from_utf8(&typed).map_err(|_| CliError::usage("the value is no UTF-8 text"))?;
    Ok(Some(text.to_owned()))
}

fn step(typed: &mut Vec<u8>, byte: u8) -> Step {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const BACKSPACE: u8 = 8;
    const CTRL_U: u8 = 21;
    const DELETE: u8 = 127;
    match byte {
        b'\n' | b'\r' => Step::Done,
        CTRL_D if typed.is_empty() => Step::Cancelled,
        CTRL_D => Step::Done,
        CTRL_C => Step::Cancelled,
        CTRL_U => {
            typed.clear();
            Step::On
        }
        BACKSPACE | DELETE => {
            // All bytes of the last character.
            while typed.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {}
            Step::On
        }
        _ if typed.len() == SECRET_BYTES_MAX => Step::TooLong,
        _ => {
            typed.push(byte);
            Step::On
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> Option<String> {
        line(&mut keys.as_bytes()).unwrap()
    }

    #[test]
    fn keys_edit_the_line() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(typed("canary-1\nrest"), some("canary-1"));
        assert_eq!(typed("canary-1\r"), some("canary-1"));
        assert_eq!(typed("a\u{7f}\u{7f}bé\u{8}c\n"), some("bc"));
        assert_eq!(typed("wrong\u{15}right\n"), some("right"));
        assert_eq!(typed("all\u{4}"), some("all"));
        assert_eq!(typed("\u{4}"), None);
        assert_eq!(typed("can\u{3}"), None);
        assert_eq!(typed(""), some(""));
    }

    #[test]
    fn a_line_has_a_bound_and_its_error_no_value() {
        assert_eq!(typed(&"x".repeat(SECRET_BYTES_MAX)).unwrap().len(), SECRET_BYTES_MAX);
        let long = "canary".repeat(SECRET_BYTES_MAX);
        let error = line(&mut long.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("canary"));
    }
}
