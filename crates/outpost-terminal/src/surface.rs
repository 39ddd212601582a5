//! What an output can show, and text in its colours.

/// Width assumed where a terminal does not tell its own, columns.
const WIDTH_COLUMNS_DEFAULT: usize = 80;
/// Narrowest width that layouts are made for, columns.
const WIDTH_COLUMNS_MIN: usize = 40;

/// What one output can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surface {
    /// It is a terminal, so agent-written bytes must be cleaned and lines may be redrawn.
    pub tty: bool,
    /// Colours may be used.
    pub color: bool,
    /// Characters beyond ASCII may be used for drawing.
    pub unicode: bool,
    /// Columns of the terminal; `None` where lines may have any length.
    pub columns: Option<usize>,
}

impl Surface {
    /// A file or pipe.
    pub const PLAIN: Self = Self { tty: false, color: false, unicode: true, columns: None };

    /// Columns to lay text out for.
    #[must_use]
    pub fn width(&self) -> usize {
        self.columns.unwrap_or(WIDTH_COLUMNS_DEFAULT).max(WIDTH_COLUMNS_MIN)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Bold text.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Text of less importance.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Failure.
    #[must_use]
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Success.
    #[must_use]
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Warning.
    #[must_use]
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Names and headings.
    #[must_use]
    pub fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// `rich` where it can be shown, else `plain`.
    #[must_use]
    pub const fn glyph(self, rich: &'static str, plain: &'static str) -> &'static str {
        if self.unicode { rich } else { plain }
    }
}
