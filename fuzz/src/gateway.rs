//! What the gateway reads: providers' answers, which an agent's requests shape, the first bytes of a tunnel,
//! and rules for hosts.

use outpost_gateway::egress::{Cidr, EgressRule, server_name};
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

/// The first bytes of a tunnel. The first byte says whether the rest is what arrived, or a handshake message
/// that is put into records.
pub fn tls_hello(data: &[u8]) {
    let mut feed = Feed(data);
    let seed = feed.byte();
    let (undecided, not_tls) = (server_name(b""), server_name(b"\0"));
    if seed & 1 == 0 {
        let bytes = feed.0;
        let told = server_name(bytes);
        let mut decided = false;
        for end in 0..=bytes.len() {
            let so_far = server_name(&bytes[..end]);
            decided |= so_far != undecided;
            assert!(!decided || so_far == told, "{so_far:?} became {told:?} with more bytes");
        }
        assert_plain(&format!("{told:?}"));
        return;
    }
    let whole = server_name(&records(feed.0, feed.0.len()));
    // Some more records than one, but not too many.
    let cut = server_name(&records(feed.0, feed.0.len() / 20 + usize::from(seed) % 64 + 1));
    assert!(whole == cut, "in one record {whole:?}, in several {cut:?}");
    let followed = server_name(&[records(feed.0, feed.0.len()), vec![0xff; 9]].concat());
    assert!(whole == followed || whole == undecided || followed == not_tls);
}

/// A handshake message in records of so many bytes.
fn records(message: &[u8], length: usize) -> Vec<u8> {
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).expect("inputs are short");
        [&[22, 3, 1], &length.to_be_bytes()[..], piece].concat()
    };
    message.chunks(length.max(1)).flat_map(record).collect()
}

/// A name that a proxy may compare: nothing but what names and addresses are made of.
fn assert_plain(told: &str) {
    if let Some(name) = told.strip_prefix("Name(Some(\"").and_then(|it| it.strip_suffix("\"))")) {
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_[]:".contains(&byte)
        };
        assert!(!name.is_empty() && name.len() <= 253 && name.bytes().all(plain), "{name:?}");
    }
}

/// Rules for hosts, which a client sends, and ranges of addresses: what is printed reads the same.
pub fn host_rule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<EgressRule>() {
        Ok(rule) => {
            let printed = rule.to_string();
            assert_line(&printed, 512);
            assert!(printed.bytes().all(|byte| byte.is_ascii_graphic()), "{printed}");
            assert_eq!(printed.parse().as_ref(), Ok(&rule), "{text:?} is printed as {printed}");
        }
        // Each byte may be shown as an escape.
        Err(error) => assert_line(&error.to_string(), 512 * 10 + 400),
    }
    if let Ok(range) = text.parse::<Cidr>() {
        assert_eq!(range.to_string().parse().as_ref(), Ok(&range));
    }
}
