//! Secrets among the changes: found by their shapes in what is to be pushed, and by the marks of the run's own values
//! in its kept diff.
//!
//! The commit cannot be masked without becoming another one, so it is not pushed unless somebody says so. What is told
//! names rule and file, never the value. Bounded: the patch, what is read of the kept diff, what is named.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use outpost_context::Scrubber;
use outpost_types::ErrorCode;

use crate::PromoteError;
use crate::stage::{Clone, listed};
use crate::words::{cut, line};

/// Longest patch that is looked through, bytes.
const PATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most of the kept diff that is read, bytes.
const KEPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest line of the kept diff that is looked at in one, bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// The kept diff, beside the bundle.
const DIFF_FILE: &str = "diff.patch";
/// What the mask of a value begins with, and the characters of the name in it.
const MARK: &str = "[masked:";
/// Longest name of a rule or a file that is told, characters.
const NAME_CHARS_MAX: usize = 200;
/// Most findings of one kept diff.
const FINDINGS_COUNT_MAX: usize = 100;

impl Clone<'_> {
    /// Refuses changes that add a secret, unless they were let through.
    pub(crate) async fn secrets(&self, base: &str, commit: &str) -> Result<(), PromoteError> {
        if self.work.plan.allow_secrets && self.work.since.is_none() {
            return Ok(());
        }
        let call = self.diff(&["--unified=0", "--no-color"]).args([base, commit]);
        let patch = call.output_bytes_max(PATCH_BYTES_MAX).output().await;
        let patch = patch.map_err(|error| self.explain(&error, "looking for secrets"))?;
        let kept = self.work.bundle.with_file_name(DIFF_FILE);
        let found = tokio::task::spawn_blocking(move || {
            let mut found = in_patch(&patch);
            found.extend(in_kept(&kept));
            found
        });
        let found = found.await.map_err(|error| PromoteError::internal("secrets", error))?;
        if found.is_empty() {
            return Ok(());
        }
        let found: Vec<String> = found.into_iter().collect();
        Err(PromoteError::refused(
            ErrorCode::SecretsFound,
            format!("The changes add what looks like a secret: {}.", listed(&found)),
            "Make it void if it is real. If it is none: `allowSecrets: true` (--allow-secrets).",
        ))
    }
}

fn told(rule: &str, file: &str) -> String {
    format!("{} in {}", cut(&line(rule), NAME_CHARS_MAX), cut(&line(file), NAME_CHARS_MAX))
}

/// What has the shape of a secret among the lines that a patch adds.
fn in_patch(patch: &[u8]) -> BTreeSet<String> {
    let mut scrubber = Scrubber::default().patch();
    let mut out = Vec::new();
    for piece in patch.chunks(64 * 1024) {
        out.clear();
        scrubber.push(piece, &mut out);
    }
    let found = scrubber.finish(&mut out);
    // What only its name makes secret may as well be code.
    let masked = found.into_iter().filter(|finding| finding.masked);
    masked.map(|finding| told(&finding.rule, &finding.file)).collect()
}

/// What was masked in the diff when it was kept: values that only the run knew.
fn in_kept(path: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Ok(file) = std::fs::File::open(path) else { return found };
    let mut reader = BufReader::new(file.take(KEPT_BYTES_MAX));
    let (mut bytes, mut name, mut in_head) = (Vec::new(), String::new(), true);
    while found.len() < FINDINGS_COUNT_MAX {
        bytes.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(count) if count > 0 => {}
            _ => break,
        }
        let text = String::from_utf8_lossy(&bytes);
        if text.starts_with("diff --git ") {
            in_head = true;
        } else if text.starts_with("@@ ") {
            in_head = false;
        } else if let (true, Some(file)) = (in_head, text.strip_prefix("+++ b/")) {
            file.trim_end().clone_into(&mut name);
        } else if let (false, Some(added)) = (in_head, text.strip_prefix('+')) {
            found.extend(marks(added).map(|rule| told(rule, &name)));
        }
    }
    found
}

/// The names in the masks of a line.
fn marks(text: &str) -> impl Iterator<Item = &str> {
    text.split(MARK).skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once(']')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_added_lines_count_and_no_value_is_told() {
        let value = concat!("ghp_", "0123456789abcdefghij0123456789ABCDEF");
        let patch = |sign: char| {
            format!("diff --git a/k b/k\n--- a/k\n+++ b/k\n@@ -1 +1 @@\n{sign}key = {value}\n")
        };
        let found = in_patch(patch('+').as_bytes());
        assert_eq!(found.len(), 1, "{found:?}");
        let told = found.first().unwrap();
        assert!(told.ends_with(" in k") && !told.contains(value), "{told}");
        assert!(in_patch(patch('-').as_bytes()).is_empty());
        assert!(in_patch(b"diff --git a/k b/k\n@@ -1 +1 @@\n+password = \"test\"\n").is_empty());
    }

    #[test]
    fn marks_of_the_kept_diff_count_where_they_were_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DIFF_FILE);
        assert!(in_kept(&path).is_empty(), "there is none");
        let text = "diff --git a/c b/c\n--- a/c\n+++ b/c\n@@ -1 +1,2 @@\n-[masked:OLD]\n\
            +p = [masked:DB_PASSWORD] [masked:]\n [masked:SAME]\n";
        std::fs::write(&path, text).unwrap();
        let found: Vec<_> = in_kept(&path).into_iter().collect();
        assert_eq!(found, ["DB_PASSWORD in c"]);
    }
}
