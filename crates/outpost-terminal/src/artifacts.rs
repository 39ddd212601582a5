//! Kept files: a table, and the beginning of each.

use outpost_types::{ArtifactPreview, ArtifactView};

use crate::format::bytes;
use crate::table::{Column, table};
use crate::{Surface, sanitize};

/// Most lines of a preview in a list.
const PREVIEW_LINES_MAX: usize = 12;

/// The table.
#[must_use]
pub fn artifacts(surface: Surface, views: &[ArtifactView]) -> String {
    const COLUMNS: [Column; 4] = [
        Column::new("NAME").flexible(),
        Column::new("SIZE").right(),
        Column::new("TYPE"),
        Column::new("PICTURE"),
    ];
    let row = |view: &ArtifactView| {
        let picture = match view.preview {
            Some(ArtifactPreview::Image { width, height }) => format!("{width} x {height}"),
            _ => String::new(),
        };
        let kind = view.content_type.split(';').next().unwrap_or_default();
        vec![sanitize::line(&view.name), bytes(view.size_bytes), sanitize::line(kind), picture]
    };
    table(surface, &COLUMNS, &views.iter().map(row).collect::<Vec<_>>())
}

/// The table, and below it the first lines of each text.
#[must_use]
pub fn artifact_previews(surface: Surface, views: &[ArtifactView]) -> String {
    let mut shown = artifacts(surface, views);
    for view in views {
        let Some(ArtifactPreview::Text { text, truncated, .. }) = &view.preview else { continue };
        let text = sanitize::text(text);
        let lines: Vec<&str> = text.lines().take(PREVIEW_LINES_MAX).collect();
        let more = *truncated || text.lines().count() > lines.len();
        shown.push_str(&format!("\n\n{}\n", sanitize::line(&view.name)));
        shown.extend(lines.iter().map(|line| format!("  {line}\n")));
        if more {
            shown.push_str("  …\n");
        }
        shown.truncate(shown.trim_end_matches('\n').len());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_of_agents_are_harmless() {
        let view = |name: &str, preview| ArtifactView {
            name: name.to_owned(),
            size_bytes: 2_048,
            content_type: "text/plain; charset=utf-8".to_owned(),
            url: String::new(),
            expires_at: outpost_types::Timestamp::default(),
            preview,
        };
        let text =
            |text: String, truncated| ArtifactPreview::Text { text, truncated, masked: false };
        let views = [
            view("a\x1b[2J.txt", Some(text("one\x1b]0;x\x07\ntwo\n".into(), false))),
            view("long.log", Some(text("line\n".repeat(40), false))),
            view("b.png", Some(ArtifactPreview::Image { width: 640, height: 480 })),
        ];
        let shown = artifact_previews(Surface::PLAIN, &views);
        assert!(!shown.contains('\x1b') && !shown.contains('\x07'), "{shown}");
        assert!(shown.contains("640 x 480") && shown.contains("2 KB"), "{shown}");
        assert!(shown.contains("  one\n  two\n\nlong.log\n  line\n"), "{shown}");
        assert_eq!(shown.matches("  line\n").count(), PREVIEW_LINES_MAX);
        assert!(shown.ends_with("…"), "{shown}");
        assert!(!artifacts(Surface::PLAIN, &views).contains("one"));
    }
}
