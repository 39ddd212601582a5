//! Cuts a stream of bytes into lines. A line over the bound comes in pieces, so that an agent that
//! never ends its line cannot fill our memory.

use outpost_types::limits::LINE_BYTES_MAX;

/// What is left of a line that has not ended yet.
#[derive(Debug, Default)]
pub struct LineCutter {
    rest: Vec<u8>,
}

impl LineCutter {
    /// Takes the next bytes and returns the lines that ended, without their ends, as text (bytes
    /// that are no UTF-8 are replaced), each with the number of `bytes` up to its end.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<(String, usize)> {
        let mut lines = Vec::new();
        let mut passed = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.append(text, passed, &mut lines);
            passed += piece.len();
            if ended {
                lines.push((self.take(), passed));
            }
        }
        lines
    }

    /// The last line, if it did not end.
    pub fn finish(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| self.take())
    }

    fn append(&mut self, mut text: &[u8], mut passed: usize, lines: &mut Vec<(String, usize)>) {
        while self.rest.len() + text.len() > LINE_BYTES_MAX {
            let (head, tail) = text.split_at(LINE_BYTES_MAX - self.rest.len());
            self.rest.extend_from_slice(head);
            passed += head.len();
            lines.push((self.take(), passed));
            text = tail;
        }
        self.rest.extend_from_slice(text);
    }

    fn take(&mut self) -> String {
        let mut line = std::mem::take(&mut self.rest);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        match String::from_utf8(line) {
            Ok(line) => line,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_come_in_any_pieces() {
        let text = "one\r\ntwü\n\nthree";
        for size in 1..text.len() {
            let mut cutter = LineCutter::default();
            let (mut lines, mut ends) = (Vec::new(), Vec::new());
            for (piece, start) in text.as_bytes().chunks(size).zip((0..).step_by(size)) {
                for (line, end) in cutter.push(piece) {
                    lines.push(line);
                    ends.push(start + end);
                }
            }
            lines.extend(cutter.finish());
            assert_eq!(lines, ["one", "twü", "", "three"], "pieces of {size}");
            assert_eq!(ends, [5, 10, 11], "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut cutter = LineCutter::default();
        let lines = cutter.push(&vec![b'x'; LINE_BYTES_MAX * 2 + 5]);
        let lengths: Vec<_> = lines.iter().map(|(line, end)| (line.len(), *end)).collect();
        assert_eq!(
            lengths,
            [(LINE_BYTES_MAX, LINE_BYTES_MAX), (LINE_BYTES_MAX, 2 * LINE_BYTES_MAX)]
        );
        assert_eq!(cutter.finish().map(|line| line.len()), Some(5));
    }
}
