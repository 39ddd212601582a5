//! Reads from a provider's own answer how many tokens it took.
//!
//! The reader looks at bytes that pass and holds none of them back. Only whole lines of a stream and whole JSON
//! bodies are parsed, by types that skip everything but counts and the model's name, so text that a model
//! wrote cannot pass for a count. Where an answer tells nothing, or does not arrive whole, tokens are
//! estimated, on the high side, and the call says so.
//!
//! Rule of the estimate: a token is at least [`ESTIMATE_BYTES_PER_TOKEN`] bytes of text. Read is what the
//! answer told, else the bytes of the request; written is what the answer told, or the text that
//! arrived, whichever is more. A line or body that was too long or broken counts with all its bytes.
//!
//! Bounded: bytes held (the caller says how many). Absent: what is charged apart from tokens and searches.

mod shapes;

use outpost_core::Tokens;
use serde::Deserialize;

use super::prices::{Measured, Service};
use shapes::{ChatAnswer, GeminiAnswer, MessagesAnswer, ResponsesAnswer};

/// Bytes of text to a token, for estimates: ordinary text and code have 3 to 5.
pub const ESTIMATE_BYTES_PER_TOKEN: u64 = 3;
/// As above while an answer still streams, where a guess on the low side is wanted.
const PROVISIONAL_BYTES_PER_TOKEN: u64 = 4;
/// Bytes of a JSON body to a token while it arrives: it is text in a frame.
const PROVISIONAL_JSON_BYTES_PER_TOKEN: u64 = 16;
/// Most objects of a JSON list that are read; a stream of Gemini as one list has one for each piece.
const LIST_ITEMS_MAX: usize = 1_000_000;

/// The API a call speaks, as far as it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageDialect {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions, also as DeepSeek and xAI speak it.
    Chat,
    /// Gemini `generateContent`.
    Gemini,
}

/// How the answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Events,
    /// One JSON value.
    Json,
}

/// What an answer told so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) model: Option<String>,
    pub(crate) measured: Measured,
    /// Whether it told anything about tokens that were read.
    pub(crate) read_known: bool,
    /// Whether what it told is its last word.
    pub(crate) last_word: bool,
    /// It told counts that grow with each piece; the last piece has the last word.
    pub(crate) running: bool,
    /// Bytes of text that arrived.
    pub(crate) text_bytes: u64,
    /// It failed before anything was charged.
    pub(crate) failed: bool,
}

/// What a call took in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Model by the answer's account.
    pub model: Option<String>,
    /// Tokens.
    pub tokens: Tokens,
    /// Whether they are an estimate.
    pub estimated: bool,
    pub(crate) measured: Measured,
}

/// Looks at an answer as it passes.
#[derive(Debug)]
#[doc(hidden)]
pub struct UsageReader {
    dialect: UsageDialect,
    framing: Framing,
    held: Vec<u8>,
    held_bytes_max: usize,
    /// What is held is too long, and is only counted.
    overflow: bool,
    unread_bytes: u64,
    bytes: u64,
    told: Told,
}

impl UsageReader {
    /// A reader that holds at most `held_bytes_max` bytes.
    #[must_use]
    pub fn new(dialect: UsageDialect, framing: Framing, held_bytes_max: usize) -> Self {
        Self {
            dialect,
            framing,
            held: Vec::new(),
            held_bytes_max,
            overflow: false,
            unread_bytes: 0,
            bytes: 0,
            told: Told::default(),
        }
    }

    /// Looks at the next bytes of the answer.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        match self.framing {
            Framing::Json => self.hold(piece),
            Framing::Events => {
                let mut rest = piece;
                while let Some(end) = memchr::memchr(b'\n', rest) {
                    self.line_end(&rest[..end]);
                    rest = &rest[end + 1..];
                }
                self.hold(rest);
            }
        }
    }

    /// Model by the answer's account.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.told.model.as_deref()
    }

    /// What it took so far, on the low side.
    pub(crate) fn so_far(&self) -> Measured {
        let guess = match self.framing {
            Framing::Events => self.told.text_bytes / PROVISIONAL_BYTES_PER_TOKEN,
            Framing::Json => self.bytes / PROVISIONAL_JSON_BYTES_PER_TOKEN,
        };
        let mut measured = self.told.measured;
        measured.tokens.output = measured.tokens.output.max(guess);
        measured
    }

    /// What it took in all. `whole` says whether the answer arrived to its end.
    #[must_use]
    pub fn finish(mut self, whole: bool, request_bytes: u64) -> Taken {
        let held = std::mem::take(&mut self.held);
        match self.framing {
            Framing::Events => self.whole_line(&held),
            Framing::Json if !self.overflow && !held.is_empty() => self.body(&held),
            Framing::Json => {}
        }
        let told = self.told;
        let exact = told.last_word && (whole || !told.running);
        let mut measured = told.measured;
        let unwritten = told.failed && told.text_bytes == 0;
        let estimated = !exact && !unwritten;
        if estimated {
            let text = match self.framing {
                Framing::Events => told.text_bytes.saturating_add(self.unread_bytes),
                Framing::Json => self.bytes,
            };
            let written = text.div_ceil(ESTIMATE_BYTES_PER_TOKEN);
            measured.tokens.output = measured.tokens.output.max(written);
            if !told.read_known {
                measured.tokens.input = request_bytes.div_ceil(ESTIMATE_BYTES_PER_TOKEN);
            }
        }
        Taken { model: told.model, tokens: measured.tokens, estimated, measured }
    }

    fn hold(&mut self, piece: &[u8]) {
        if self.overflow {
            self.unread_bytes = self.unread_bytes.saturating_add(piece.len() as u64);
        } else if self.held.len() + piece.len() > self.held_bytes_max {
            self.overflow = true;
            let bytes = (self.held.len() + piece.len()) as u64;
            self.unread_bytes = self.unread_bytes.saturating_add(bytes);
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(piece);
        }
    }

    /// The rest of a line has arrived.
    fn line_end(&mut self, rest: &[u8]) {
        if self.held.is_empty() && !self.overflow && rest.len() <= self.held_bytes_max {
            return self.whole_line(rest);
        }
        self.hold(rest);
        if std::mem::take(&mut self.overflow) {
            return;
        }
        let mut line = std::mem::take(&mut self.held);
        self.whole_line(&line);
        // The space is used again for the next line.
        line.clear();
        self.held = line;
    }

    fn whole_line(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        let Some(data) = line.strip_prefix(b"data:") else { return };
        let data = data.trim_ascii_start();
        if data == b"[DONE]" {
            self.told.running = false;
            return;
        }
        let read = match self.dialect {
            UsageDialect::Messages => {
                read::<MessagesAnswer>(data).map(|it| it.event(&mut self.told))
            }
            UsageDialect::Responses => {
                read::<ResponsesAnswer>(data).map(|it| it.event(&mut self.told))
            }
            UsageDialect::Chat => read::<ChatAnswer>(data).map(|it| it.tell(&mut self.told)),
            UsageDialect::Gemini => read::<GeminiAnswer>(data).map(|it| it.tell(&mut self.told)),
        };
        if read.is_none() {
            self.broken(data.len());
        }
    }

    fn body(&mut self, body: &[u8]) {
        let told = &mut self.told;
        let read = match self.dialect {
            UsageDialect::Messages => read::<MessagesAnswer>(body).map(|it| it.whole(told)),
            UsageDialect::Responses => read::<ResponsesAnswer>(body).map(|it| it.whole(told)),
            UsageDialect::Chat => read::<ChatAnswer>(body).map(|it| it.tell(told)),
            UsageDialect::Gemini if body.trim_ascii_start().starts_with(b"[") => {
                read::<Vec<GeminiAnswer>>(body).map(|list| {
                    list.into_iter().take(LIST_ITEMS_MAX).for_each(|it| it.tell(told));
                })
            }
            UsageDialect::Gemini => read::<GeminiAnswer>(body).map(|it| it.tell(told)),
        };
        match read {
            // Parsed to its end, so nothing follows that could tell more.
            Some(()) => self.told.running = false,
            None => self.broken(body.len()),
        }
    }

    /// Something could not be read, so a count may have been missed.
    fn broken(&mut self, bytes: usize) {
        self.unread_bytes = self.unread_bytes.saturating_add(bytes as u64);
    }
}

impl Told {
    fn name(&mut self, model: &str) {
        if !model.is_empty() && self.model.as_deref() != Some(model) {
            self.model = Some(model.to_owned());
        }
    }

    /// All counts of the call so far, again and again: the newest hold, unless they went back.
    fn recount(&mut self, tokens: Tokens) {
        let sum =
            |it: &Tokens| u128::from(it.input) + u128::from(it.cached) + u128::from(it.output);
        if sum(&tokens) >= sum(&self.measured.tokens) {
            self.measured.tokens = tokens;
            self.read_known |= tokens.input > 0 || tokens.cached > 0;
        }
    }

    /// Some counts of the call so far; those that are not told are zero.
    fn count(&mut self, tokens: Tokens) {
        let so_far = &mut self.measured.tokens;
        so_far.input = so_far.input.max(tokens.input);
        so_far.cached = so_far.cached.max(tokens.cached);
        so_far.cache_write = so_far.cache_write.max(tokens.cache_write);
        so_far.output = so_far.output.max(tokens.output);
        so_far.thinking = so_far.thinking.max(tokens.thinking);
        self.read_known |= tokens.input > 0 || tokens.cached > 0 || tokens.cache_write > 0;
    }

    /// All searches of the call so far.
    fn searched(&mut self, searches: u64) {
        self.measured.searches = self.measured.searches.max(searches);
    }

    /// Once a call was said to be served in a dearer way, it was.
    fn serve(&mut self, service: Service) {
        if service != Service::Standard {
            self.measured.service = service;
        }
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests;
