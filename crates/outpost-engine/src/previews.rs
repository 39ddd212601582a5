//! Previews of kept files, made when they are asked for.
//!
//! Bounded: files with a preview, what is read of each. A dispatch that was shown secrets has no previews of text: their
//! values are not to be had without a use on record, and what is inside of artifacts stays as the agent made it.

use std::io::Read as _;
use std::path::Path;

use outpost_context::preview::{PREVIEW_READ_BYTES_MAX, preview};
use outpost_context::scrub::Scrubber;
use outpost_types::{ArtifactPreview, ArtifactView};

use crate::artifacts::find;

/// Most files of a list that have a preview: the first ones.
const PREVIEWS_COUNT_MAX: usize = 100;

/// Gives the first files their previews. One that cannot be read has none.
pub(crate) fn add(kept_dir: &Path, views: &mut [ArtifactView], has_secrets: bool) {
    let scrubber = if has_secrets { Scrubber::withholding() } else { Scrubber::default() };
    for view in views.iter_mut().take(PREVIEWS_COUNT_MAX) {
        let shown = read(kept_dir, &view.name)
            .and_then(|(bytes, whole)| preview(&bytes, whole, &scrubber))
            .filter(|shown| !has_secrets || matches!(shown, ArtifactPreview::Image { .. }));
        view.preview = shown;
    }
}

/// The first bytes of a file, and whether they are all of it.
fn read(kept_dir: &Path, name: &str) -> Option<(Vec<u8>, bool)> {
    let file = std::fs::File::open(find(kept_dir, name).ok()?).ok()?;
    let mut bytes = Vec::new();
    file.take(PREVIEW_READ_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    let whole = bytes.len() <= PREVIEW_READ_BYTES_MAX;
    bytes.truncate(PREVIEW_READ_BYTES_MAX);
    Some((bytes, whole))
}

#[cfg(test)]
mod tests {
    use outpost_types::{DispatchId, Timestamp};

    use super::*;

    #[test]
    fn files_are_shown_unless_the_run_had_secrets() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "hello\n").unwrap();
        std::fs::write(dir.path().join("b.gif"), b"GIF87a\x02\0\x03\0").unwrap();
        std::fs::write(dir.path().join("c.bin"), b"\0\x01").unwrap();
        std::fs::write(dir.path().join("d.txt"), "x".repeat(PREVIEW_READ_BYTES_MAX + 1)).unwrap();
        let listed = |has_secrets| {
            let id = DispatchId::from_parts(1, 1);
            let mut views = crate::artifacts::list(dir.path(), id, Timestamp::default()).unwrap();
            add(dir.path(), &mut views, has_secrets);
            views.into_iter().map(|view| view.preview).collect::<Vec<_>>()
        };
        let text =
            ArtifactPreview::Text { text: "hello\n".into(), truncated: false, masked: false };
        let image = Some(ArtifactPreview::Image { width: 2, height: 3 });
        let open = listed(false);
        assert_eq!(open[..3], [Some(text), image.clone(), None]);
        assert!(matches!(open[3], Some(ArtifactPreview::Text { truncated: true, .. })));
        assert_eq!(listed(true), [None, image, None, None]);
    }
}
