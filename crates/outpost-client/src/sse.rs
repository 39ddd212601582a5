//! Parser of `text/event-stream` (the WHATWG HTML standard, section 9.2), one piece at a time.
//!
//! Bounded: a line and the data of an event are at most [`EVENT_BYTES_MAX`].

use bytes::BytesMut;

/// Longest event, bytes: a line of agent output of 256 KiB, twice, each byte escaped as six.
pub(crate) const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its name; empty when it has none.
    pub(crate) name: String,
    /// Its data.
    pub(crate) data: String,
}

/// An event is over [`EVENT_BYTES_MAX`], or is no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// What was received and not yet handed out.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: BytesMut,
    /// Bytes of the buffer in which no line ends.
    searched: usize,
    frame: Frame,
    has_data: bool,
    /// The last line ended with CR: an LF right after it belongs to it.
    after_cr: bool,
}

impl Parser {
    /// Adds a piece of the stream.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole event, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Unreadable> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                let frame = std::mem::take(&mut self.frame);
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(frame));
                }
                continue;
            }
            let text = std::str::from_utf8(&line).map_err(|_| Unreadable)?;
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut self.frame.name),
                "data" => {
                    if self.has_data {
                        self.frame.data.push('\n');
                    }
                    if self.frame.data.len() + value.len() > EVENT_BYTES_MAX {
                        return Err(Unreadable);
                    }
                    self.frame.data.push_str(value);
                    self.has_data = true;
                }
                // The position is in the data; comments and pauses need nothing done.
                _ => {}
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<BytesMut>, Unreadable> {
        if self.after_cr && !self.buffer.is_empty() {
            self.after_cr = false;
            if self.buffer[0] == b'\n' {
                let _ = self.buffer.split_to(1);
            }
        }
        let rest = &self.buffer[self.searched..];
        let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.searched = self.buffer.len();
            return if self.searched > EVENT_BYTES_MAX { Err(Unreadable) } else { Ok(None) };
        };
        let mut line = self.buffer.split_to(self.searched + at + 1);
        self.searched = 0;
        self.after_cr = line.last() == Some(&b'\r');
        line.truncate(line.len() - 1);
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(parser: &mut Parser) -> Vec<(String, String)> {
        let mut frames = Vec::new();
        while let Some(frame) = parser.next().unwrap() {
            frames.push((frame.name, frame.data));
        }
        frames
    }

    #[test]
    fn any_cut_gives_the_same_events() {
        let text = "retry: 5\n\n: beat\n\nid: 1\nevent: log\ndata: é{}\n\nid\ndata:a\r\ndata:  b\r\n\r\nevent: x\n\ndata: c\r\rdata: cut";
        let expected = [("log", "é{}"), ("", "a\n b"), ("", "c")]
            .map(|(name, data)| (name.to_owned(), data.to_owned()));
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.push(piece);
                seen.extend(frames(&mut parser));
            }
            assert_eq!(seen, expected, "pieces of {size}");
        }
    }

    #[test]
    fn endless_and_broken_lines_are_refused() {
        let mut parser = Parser::default();
        parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert_eq!(parser.next(), Err(Unreadable));
        let mut parser = Parser::default();
        let line = [b"data: ", &vec![b'x'; EVENT_BYTES_MAX / 2][..], b"\n"].concat();
        for _ in 0..3 {
            parser.push(&line);
        }
        assert_eq!(parser.next(), Err(Unreadable));
        let mut parser = Parser::default();
        parser.push(b"data: \xff\n\n");
        assert_eq!(parser.next(), Err(Unreadable));
    }
}
