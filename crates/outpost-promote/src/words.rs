//! Words of strangers, made fit for messages and for the body of a pull request.

/// Longest words of a stranger in a message, characters.
const SAID_CHARS_MAX: usize = 300;

/// Whether a character acts on a terminal or on the order of what is read, or is not seen at all.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line without anything hidden, cut with a mark.
pub(crate) fn line(text: &str) -> String {
    cut(&text.split_whitespace().collect::<Vec<_>>().join(" "), SAID_CHARS_MAX)
}

/// At most `chars_max` characters of the visible ones, on one line.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    let shown = || text.chars().map(|c| if c == '\n' { ' ' } else { c }).filter(|c| !is_hidden(*c));
    let mut short: String = shown().take(chars_max).collect();
    if shown().nth(chars_max).is_some() {
        short.push('…');
    }
    short
}

/// Without the token, should somebody have repeated it, plain or as it is sent.
pub(crate) fn scrub(text: &str, token: Option<&str>) -> String {
    use base64::Engine as _;
    let Some(token) = token.filter(|token| !token.is_empty()) else { return text.to_owned() };
    let mut clean = text.replace(token, "[secret]");
    for user in crate::forge::USERS {
        let sent = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"));
        clean = clean.replace(&sent, "[secret]");
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hidden_and_no_token_is_left() {
        assert_eq!(line("a\u{1b}[31m\n\tb\u{202e} c"), "a[31m b c");
        assert_eq!(cut("éééé", 3), "ééé…");
        let sent = "basic eC1hY2Nlc3MtdG9rZW46Z2hwX3g= ghp_x";
        assert_eq!(scrub(sent, Some("ghp_x")), "basic [secret] [secret]");
    }
}
