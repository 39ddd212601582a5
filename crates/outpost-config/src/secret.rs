//! Keys in memory: they can be used, but not printed.

use std::fmt;

/// A text that `Debug` does not show and that has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn debug_does_not_show_it() {
        let secret = super::Secret::new("otp_0123".to_owned());
        assert!(!format!("{secret:?}").contains("0123"));
        assert_eq!(secret.expose(), "otp_0123");
    }
}
