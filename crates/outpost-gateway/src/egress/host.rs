//! Reads the host of a request so that it can be understood in one way only.
//!
//! Everything that different readers read differently is refused: other ways to write addresses, user names,
//! percent signs, control characters, letters beyond ASCII. Bounded: names by DNS's own bounds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name, bytes, and longest part of one (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A host that a request names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// In lower case, without a dot at its end.
    Name(String),
    Address(IpAddr),
}

impl Host {
    /// `None` for anything that could be understood in two ways.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(inside) = text.strip_prefix('[') {
            let v6: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(v6.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let label = |label: &str| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > NAME_BYTES_MAX || !name.split('.').all(label) {
            return None;
        }
        let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        // What ends in a number is an address to some readers (1, 0x7f.1, 0177.0.0.1), so it must be a plain one.
        let number = last.bytes().all(|byte| byte.is_ascii_digit());
        let hex =
            last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if number || hex {
            let v4: Ipv4Addr = text.parse().ok()?;
            return Some(Self::Address(v4.into()));
        }
        Some(Self::Name(name.to_ascii_lowercase()))
    }

    /// Host and port of an authority without user information.
    pub(crate) fn with_port(text: &str, default: Option<u16>) -> Option<(Self, u16)> {
        let (host, port) = match text.rfind(':') {
            Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
            _ => (text, None),
        };
        let digits =
            |port: &&str| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
        let port = match port {
            Some(port) => Some(port).filter(digits)?.parse().ok().filter(|port| *port != 0)?,
            None => default?,
        };
        Some((Self::parse(host)?, port))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(v4)) => write!(f, "{v4}"),
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_reading_or_none() {
        let name = |text: &str| Host::parse(text).map(|host| host.to_string());
        assert_eq!(name("Example.COM.").as_deref(), Some("example.com"));
        assert_eq!(name("xn--bcher-kva.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(name("1.1.1.1").as_deref(), Some("1.1.1.1"));
        assert_eq!(name("[2606:4700::1]").as_deref(), Some("[2606:4700::1]"));
        let bad = [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "127.1",
            "127.0.1",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.1.",
            "1.1.1.256",
            "a.0x",
            "user@host",
            "a%2eb",
            "a b",
            "a\tb",
            "a\0b",
            "bücher.example",
            "a/b",
            "a\\b",
            "a:b",
            "::1",
            "[::1",
            "[::1%25lo]",
            "[1.1.1.1]",
            "-a.b",
            "a-.b",
            "a,b",
            "a#b",
            "\u{ff41}.com",
        ];
        for bad in bad {
            assert_eq!(name(bad), None, "{bad:?}");
        }
        assert_eq!(name(&"a".repeat(64)), None);
        assert_eq!(name(&"a.".repeat(140)), None);
    }

    #[test]
    fn ports_are_plain_numbers() {
        let port = |text: &str| Host::with_port(text, Some(80)).map(|(_, port)| port);
        assert_eq!(
            (port("a:443"), port("a"), port("[::1]:8"), port("[::1]")),
            (Some(443), Some(80), Some(8), Some(80))
        );
        for bad in ["a:", "a:0", "a:+1", "a:99999", "a:1:2", "a:000443", "u@a:1", "a: 1"] {
            assert_eq!(port(bad), None, "{bad}");
        }
        assert_eq!(Host::with_port("a", None), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_read_the_same_again(text in "\\PC{0,40}|[a-z0-9.:\\[\\]-]{0,30}") {
            if let Some((host, port)) = Host::with_port(&text, Some(1)) {
                prop_assert_eq!(Host::with_port(&format!("{host}:{port}"), None), Some((host, port)));
            }
        }
    }
}
