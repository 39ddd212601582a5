//! What the gateway reads of providers' answers, which an agent's requests shape.

use outpost_gateway::gateway::{Framing, Taken, UsageDialect, UsageReader};

use crate::feed::{Feed, grown, pieces};
use crate::text::assert_line;

const DIALECTS: [UsageDialect; 4] =
    [UsageDialect::Messages, UsageDialect::Responses, UsageDialect::Chat, UsageDialect::Gemini];
/// Bytes of the request, for estimates.
const REQUEST_BYTES: u64 = 3_000;
/// Longest name of a model that is kept, bytes.
const MODEL_BYTES_MAX: usize = 128;

/// An answer: the first byte says in which dialect and framing, the second how it arrives and how much is held.
pub fn usage_reader(data: &[u8]) {
    let mut feed = Feed(data);
    let (shape, seed) = (feed.byte(), feed.byte());
    let dialect = DIALECTS[usize::from(shape) % DIALECTS.len()];
    let framing = if shape & 4 == 0 { Framing::Events } else { Framing::Json };
    let held_bytes_max = if seed & 1 == 0 { 64 * 1024 } else { 64 };
    let answer = grown(feed.0);
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>, whole: bool| -> Taken {
        let mut reader = UsageReader::new(dialect, framing, held_bytes_max);
        pieces.for_each(|piece| reader.push(piece));
        reader.finish(whole, REQUEST_BYTES)
    };
    let taken = read(&mut [answer.as_slice()].into_iter(), true);
    assert_eq!(read(&mut pieces(&answer, seed), true), taken, "tokens depend on how bytes arrive");
    assert_line(taken.model.as_deref().unwrap_or_default(), MODEL_BYTES_MAX);
    // An answer that broke off may have taken more than it told, never less.
    let broken = read(&mut [answer.as_slice()].into_iter(), false);
    assert!(broken.tokens.output >= taken.tokens.output, "{broken:?}, whole: {taken:?}");
    assert!(broken.estimated || broken.tokens == taken.tokens, "{broken:?}, whole: {taken:?}");
}
