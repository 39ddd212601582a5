//! The beginning of a kept file, fit to be shown: clean text, or the size of a picture.
//!
//! The bytes are an agent's. Text has no secret of a known shape, no control characters but line ends and tabs, and
//! nothing that reorders what is read; of a picture only the header is read, within the bytes at hand, and nothing is
//! decoded. Bounded: what is read of a file, the text of one preview, the segments of a picture. Absent: whatever is
//! neither text nor PNG, JPEG or GIF.

use outpost_types::ArtifactPreview;

use crate::scrub::Scrubber;

/// How much of a file is looked at, bytes: more than is shown, so that a secret at the end of what is shown is whole.
pub const PREVIEW_READ_BYTES_MAX: usize = 16 * 1024;
/// Longest text of a preview, bytes.
pub const PREVIEW_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Most segments of a JPEG that are passed over on the way to its size.
const JPEG_SEGMENTS_MAX: usize = 64;

/// What can be shown of a file whose first bytes these are; `whole` when it has no more. Nothing for what is neither
/// text nor a picture of a known kind.
#[must_use]
pub fn preview(bytes: &[u8], whole: bool, scrubber: &Scrubber) -> Option<ArtifactPreview> {
    let whole = whole && bytes.len() <= PREVIEW_READ_BYTES_MAX;
    let bytes = bytes.get(..PREVIEW_READ_BYTES_MAX).unwrap_or(bytes);
    if let Some((width, height)) = png(bytes).or_else(|| gif(bytes)).or_else(|| jpeg(bytes)) {
        return Some(ArtifactPreview::Image { width, height });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // A character that goes on behind what was read.
        Err(error) if error.error_len().is_none() && !whole => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    if text.contains('\0') {
        return None;
    }
    let scrubbed = scrubber.text(text);
    let masked = !scrubbed.redactions.is_empty();
    let mut shown = clean(&scrubbed.text);
    let truncated = !whole || shown.len() > PREVIEW_TEXT_BYTES_MAX;
    shown.truncate(shown.floor_char_boundary(PREVIEW_TEXT_BYTES_MAX));
    Some(ArtifactPreview::Text { text: shown, truncated, masked })
}

/// Without what could act on whoever shows it.
fn clean(text: &str) -> String {
    let harmless = |c: &char| match c {
        '\n' | '\t' => true,
        // Marks and overrides of direction, isolates, and what has no width.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => false,
        '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{feff}' => false,
        c => !c.is_control(),
    };
    text.chars().filter(harmless).collect()
}

/// PNG (ISO/IEC 15948): the signature, then the chunk IHDR with width and height.
fn png(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(..16)?;
    let sizes = header.strip_prefix(b"\0\0\0\x0dIHDR")?;
    let number = |at: usize| Some(u32::from_be_bytes(*sizes.get(at..)?.first_chunk()?));
    Some((number(0)?, number(4)?))
}

/// GIF 87a and 89a: the size of the screen stands behind the signature.
fn gif(bytes: &[u8]) -> Option<(u32, u32)> {
    let sizes = bytes.strip_prefix(b"GIF87a").or_else(|| bytes.strip_prefix(b"GIF89a"))?;
    let number = |at: usize| Some(u32::from(u16::from_le_bytes(*sizes.get(at..)?.first_chunk()?)));
    Some((number(0)?, number(2)?))
}

/// JPEG (ITU-T T.81): segments with their lengths, of which a frame header has the size.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut rest = bytes.strip_prefix(b"\xff\xd8")?;
    for _ in 0..JPEG_SEGMENTS_MAX {
        let (&[0xff, marker], after) = rest.split_first_chunk::<2>()? else { return None };
        let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
        // Frame headers, without the tables that stand among them.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let number =
                |at: usize| Some(u32::from(u16::from_be_bytes(*after.get(at..)?.first_chunk()?)));
            return Some((number(5)?, number(3)?));
        }
        rest = after.get(length.max(2)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8], whole: bool) -> Option<ArtifactPreview> {
        preview(bytes, whole, &Scrubber::default())
    }

    fn text(text: &str, truncated: bool, masked: bool) -> ArtifactPreview {
        ArtifactPreview::Text { text: text.to_owned(), truncated, masked }
    }

    #[test]
    fn text_is_clean_and_has_no_secret() {
        assert_eq!(shown("a\tü\n".as_bytes(), true), Some(text("a\tü\n", false, false)));
        let hostile = "<script>\u{1b}[2J\u{202e}x\u{feff}\r\n";
        assert_eq!(shown(hostile.as_bytes(), true), Some(text("<script>[2Jx\n", false, false)));
        let key = format!("key=sk-ant-api03-{}\n", "aB3dE5gH7j".repeat(9));
        let Some(ArtifactPreview::Text { text, masked, .. }) = shown(key.as_bytes(), true) else {
            panic!("no text");
        };
        assert!(masked && text.contains("[masked:") && !text.contains("aB3dE5gH7j"), "{text}");
        for binary in [&b"a\0b"[..], b"\xff\xfeab", b"ab\xc3"] {
            assert_eq!(shown(binary, true), None, "{binary:?}");
        }
        // The rest of the character may be in what was not read.
        assert_eq!(shown(b"ab\xc3", false), Some(self::text("ab", true, false)));
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let long = "ü".repeat(PREVIEW_TEXT_BYTES_MAX);
        let Some(ArtifactPreview::Text { text, truncated, .. }) = shown(long.as_bytes(), true)
        else {
            panic!("no text");
        };
        assert!(truncated && text.len() == PREVIEW_TEXT_BYTES_MAX, "{}", text.len());
    }

    #[test]
    fn pictures_tell_their_size() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x06\0\0\0";
        let gif = b"GIF89a\x80\x02\xe0\x01\0\0";
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc4\0\x03x\xff\xc2\0\x0b\x08\x01\xe0\x02\x80\x03";
        for picture in [&png[..], gif, jpeg] {
            let expected = ArtifactPreview::Image { width: 640, height: 480 };
            assert_eq!(shown(picture, true), Some(expected), "{picture:?}");
        }
        for cut in 0..jpeg.len() - 1 {
            let cut = &jpeg[..cut];
            assert!(!matches!(shown(cut, true), Some(ArtifactPreview::Image { .. })), "{cut:?}");
        }
        // A length that points at itself does not go on for ever.
        let endless = [&b"\xff\xd8"[..], &b"\xff\xe0\0\0".repeat(4_000)].concat();
        assert_eq!(shown(&endless, true), None);
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_stays_within_its_bounds(
            head in prop::sample::select(vec![&b""[..], b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"]),
            tail in prop::collection::vec(any::<u8>(), 0..200),
            whole: bool,
        ) {
            if let Some(ArtifactPreview::Text { text, .. }) = shown(&[head, &tail].concat(), whole) {
                prop_assert!(text.len() <= PREVIEW_TEXT_BYTES_MAX);
                prop_assert!(!text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
            }
        }
    }
}
