//! What must not be read by anybody later: secrets of a run are masked in all it tells and leaves.
//!
//! Bounded: by the bounds of what is masked; how much of the artifacts is looked at. Absent: a change of what is inside of
//! artifacts and of the bundle of commits, which are kept as the agent made them; a secret in them is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use outpost_context::{Finding, Scrubber};
use outpost_core::{AgentVerdict, ResultFacts};
use outpost_gateway::gateway::Handle;
use outpost_types::limits::OUTPUT_TAIL_BYTES_MAX;
use outpost_types::{Attention, EventData, Failure, GivenSecret, WantedSecret};
use outpost_workspace::{BUNDLE_NAME, Collected, Note};
use tracing::warn;

use crate::local::Parts;
use crate::resume::Saved;
use crate::runner::Assignment;

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Most of one artifact, and of all together, that is looked at, bytes.
const ARTIFACT_BYTES_MAX: u64 = 16 * 1024 * 1024;
const ARTIFACTS_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Beginning of a file that tells whether it is text, bytes.
const PROBE_BYTES: usize = 8 * 1024;
/// Most files that one message names.
const NAMED_COUNT_MAX: usize = 20;
/// Name by which the gateway's handle is masked.
const HANDLE_LABEL: &str = "gateway-handle";
/// Where results wait until their secrets are gone; the dot keeps it out of the artifacts.
const STAGE_DIR: &str = ".collected";
/// What is collected, but for the files of `artifacts`.
const PATCHES: [&str; 2] = ["diff.patch", "run.patch"];
const ARTIFACTS: &str = "artifacts";

/// What an attempt with this handle and these secrets must not show.
pub(crate) fn scrubber(handle: &Handle, exposed: &[GivenSecret]) -> Scrubber {
    let handle = std::iter::once((HANDLE_LABEL, handle.expose()));
    let exposed = exposed.iter().map(|given| (given.name.as_str(), given.value.expose()));
    // The secrets first: of two that are the same, the first gives the name.
    Scrubber::new(exposed.chain(handle))
}

/// The same for an attempt of an earlier server. Without its secrets everything is withheld.
pub(crate) async fn again(parts: &Parts, assignment: &Assignment, saved: &Saved) -> Scrubber {
    let wanted = saved.exposed.iter();
    let wanted =
        wanted.map(|(name, version)| WantedSecret { name: name.clone(), version: Some(*version) });
    let wanted: Vec<_> = wanted.collect();
    let exposed = if wanted.is_empty() {
        Vec::new()
    } else {
        let (tenant, dispatch) = (&assignment.tenant, assignment.attempt.dispatch);
        match parts.config.secrets.exposed(tenant, dispatch, &wanted).await {
            Ok(exposed) => exposed,
            Err(error) => {
                warn!(%error, attempt = %assignment.attempt, "secrets of a run are gone; what it says is withheld");
                return Scrubber::withholding();
            }
        }
    };
    match Handle::parse(&saved.handle) {
        Ok(handle) => scrubber(&handle, &exposed),
        Err(_) => Scrubber::withholding(),
    }
}

/// Masks what an event says.
pub(crate) fn event(scrubber: &Scrubber, mut data: EventData) -> EventData {
    let mask = |text: &mut String| {
        scrubber.mask(text);
    };
    match &mut data {
        // Its raw line was masked when it was read.
        EventData::Message { text, .. } | EventData::Thought { text, .. } => mask(text),
        EventData::Tool { name, summary, call_id, .. } => {
            mask(name);
            summary.iter_mut().chain(call_id).for_each(mask);
        }
        EventData::PolicyDenied { target, suggestion, .. } => {
            mask(target);
            suggestion.iter_mut().for_each(mask);
        }
        EventData::ArtifactCreated { name, .. } => mask(name),
        EventData::Attention(Attention { message, .. }) => mask(message),
        EventData::Phase { detail, .. } => detail.iter_mut().for_each(mask),
        EventData::Status { .. }
        | EventData::Network { .. }
        | EventData::Log { .. }
        | EventData::Usage { .. }
        | EventData::BudgetThreshold { .. } => {}
    }
    data
}

/// Masks what is kept on record of a run.
pub(crate) fn results(scrubber: &Scrubber, results: &mut ResultFacts) {
    if let Some(summary) = &mut results.summary {
        scrubber.mask(summary);
    }
    if let AgentVerdict::Failed(failure) = &mut results.verdict {
        self::failure(scrubber, failure);
    }
}

/// Masks the end of what a check printed. Its first line, which may begin within a secret, goes.
pub(crate) fn tail(scrubber: &Scrubber, output: &mut String) {
    if output.len() >= OUTPUT_TAIL_BYTES_MAX
        && let Some((_, rest)) = output.split_once('\n')
    {
        *output = rest.to_owned();
    }
    scrubber.mask(output);
    let surplus = output.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX);
    output.drain(..output.ceil_char_boundary(surplus));
}

fn failure(scrubber: &Scrubber, failure: &mut Failure) {
    scrubber.mask(&mut failure.message);
    if let Some(hint) = &mut failure.hint {
        scrubber.mask(hint);
    }
}

/// Where results of an attempt are to be collected before they are kept; empty.
pub(crate) async fn stage(parts: &Parts, kept: &Path) -> io::Result<PathBuf> {
    let stage = kept.join(STAGE_DIR);
    parts.workspaces.remove(&stage).await?;
    std::fs::create_dir(&stage)?;
    Ok(stage)
}

/// Masks what was collected, then puts it in its place, where an earlier collection may be. What was found is told.
pub(crate) async fn publish(
    parts: &Parts,
    kept: &Path,
    scrubber: &Scrubber,
    collected: Option<Collected>,
) -> io::Result<(Option<Collected>, Vec<Note>)> {
    let (stage, scrubber, staged) = (kept.join(STAGE_DIR), scrubber.clone(), kept.join(STAGE_DIR));
    let clean = move || clean(&stage, &scrubber, collected);
    let (collected, notes) =
        tokio::task::spawn_blocking(clean).await.map_err(io::Error::other)??;
    parts.workspaces.remove(&kept.join(ARTIFACTS)).await?;
    for name in [PATCHES[0], PATCHES[1], BUNDLE_NAME, ARTIFACTS] {
        match std::fs::rename(staged.join(name), kept.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                parts.workspaces.remove(&kept.join(name)).await?;
            }
            moved => moved?,
        }
    }
    parts.workspaces.remove(&staged).await?;
    Ok((collected, notes))
}

fn clean(
    stage: &Path,
    scrubber: &Scrubber,
    mut collected: Option<Collected>,
) -> io::Result<(Option<Collected>, Vec<Note>)> {
    let mut found = BTreeSet::new();
    for name in PATCHES {
        found.extend(patch(&stage.join(name), scrubber)?);
    }
    let (mut names, mut left) = (Vec::new(), ARTIFACTS_BYTES_MAX);
    walk(stage, ARTIFACTS, &mut names)?;
    let mut shown = BTreeMap::new();
    for name in names {
        let mut masked = name.clone();
        left = artifact(stage, scrubber, &mut masked, left, &mut found)?;
        shown.insert(name, masked);
    }
    for (name, bytes) in collected.iter_mut().flat_map(|collected| &mut collected.artifacts) {
        if let Some(masked) = shown.remove(name) {
            *name = masked;
        }
        if let Ok(meta) = std::fs::symlink_metadata(stage.join(&*name)) {
            *bytes = meta.len();
        }
    }
    Ok((collected, notes(&found)))
}

/// Masks a patch, if there is one.
fn patch(path: &Path, scrubber: &Scrubber) -> io::Result<Vec<Finding>> {
    let mut from = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let half = path.with_extension("part");
    let mut to = File::create(&half)?;
    let (mut patch, mut out, mut piece) = (scrubber.patch(), Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            break;
        }
        patch.push(&piece[..read], &mut out);
        to.write_all(&out)?;
        out.clear();
    }
    let found = patch.finish(&mut out);
    to.write_all(&out)?;
    if found.iter().any(|finding| finding.masked) {
        to.sync_data()?;
        std::fs::rename(half, path)?;
    } else {
        std::fs::remove_file(half)?;
    }
    Ok(found)
}

/// Names of all files below a directory, which are few and were copied there by this host.
fn walk(stage: &Path, dir: &str, names: &mut Vec<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(stage.join(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (name, kind) = (format!("{dir}/{name}"), entry.file_type()?);
        if kind.is_dir() {
            walk(stage, &name, names)?;
        } else if kind.is_file() {
            names.push(name);
        }
    }
    Ok(())
}

/// Looks for secrets in the name of an artifact, which then loses them, and in what is inside. Returns how much may
/// still be looked at.
fn artifact(
    stage: &Path,
    scrubber: &Scrubber,
    name: &mut String,
    left: u64,
    found: &mut BTreeSet<Finding>,
) -> io::Result<u64> {
    let masked = scrubber.text(name);
    let rules: Vec<String> = masked.redactions.into_keys().collect();
    let masked = masked.text.into_owned();
    if !rules.is_empty() {
        // Two that differ in the secret only: the first one stays.
        let target = stage.join(&masked);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::rename(stage.join(&*name), target)?;
        name.clone_from(&masked);
    }
    found.extend(rules.into_iter().map(|rule| Finding {
        file: masked.clone(),
        rule,
        masked: true,
    }));
    let mut file = File::open(stage.join(&masked))?;
    let mut text = vec![0; PROBE_BYTES];
    let read = file.read(&mut text)?;
    text.truncate(read);
    if text.contains(&0) {
        return Ok(left);
    }
    let (mut stream, mut out, mut looked) = (scrubber.stream(), Vec::new(), read as u64);
    stream.push(&text, &mut out);
    text.resize(PIECE_BYTES, 0);
    while looked < ARTIFACT_BYTES_MAX.min(left) {
        let read = file.read(&mut text)?;
        if read == 0 {
            break;
        }
        out.clear();
        stream.push(&text[..read], &mut out);
        looked += read as u64;
    }
    stream.finish(&mut out);
    let inside = stream.redactions().keys().cloned();
    found.extend(inside.map(|rule| Finding { file: masked.clone(), rule, masked: false }));
    Ok(left.saturating_sub(looked))
}

/// What is told of findings: rules and files, never a value.
fn notes(found: &BTreeSet<Finding>) -> Vec<Note> {
    let named = |masked: bool| {
        let found = found.iter().filter(|finding| finding.masked == masked);
        let named: Vec<_> =
            found.map(|finding| format!("{} in {}", finding.rule, finding.file)).collect();
        let more = named.len().saturating_sub(NAMED_COUNT_MAX);
        let mut text = named.into_iter().take(NAMED_COUNT_MAX).collect::<Vec<_>>().join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    };
    let mut notes = Vec::new();
    let masked = named(true);
    if !masked.is_empty() {
        notes.push(Note {
            code: "secret_masked".into(),
            message: format!(
                "What the agent left holds secrets, which are masked in diff and names: {masked}. changes.bundle has them still; make them void if they are real."
            ),
        });
    }
    let kept = named(false);
    if !kept.is_empty() {
        notes.push(Note {
            code: "secret_found".into(),
            message: format!(
                "What the agent left may hold secrets, which are kept as they are: {kept}. Look before you share it."
            ),
        });
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubber() -> Scrubber {
        Scrubber::new([("DB_PASSWORD", "hunter2!hunter2")])
    }

    #[test]
    fn what_an_event_says_is_masked_also_where_it_was_put_together() {
        let said = |text: &str| EventData::Message { text: text.into(), raw: None };
        assert_eq!(
            event(&scrubber(), said("It is hunter2!hunter2.")),
            said("It is [masked:DB_PASSWORD].")
        );
        let denied = EventData::PolicyDenied {
            target: "hunter2!hunter2.example.com:443".into(),
            reason: "host".into(),
            suggestion: Some("hunter2!hunter2.example.com".into()),
        };
        let denied = format!("{:?}", event(&scrubber(), denied));
        assert!(!denied.contains("hunter2"), "{denied}");
    }

    #[test]
    fn results_lose_their_secrets_and_what_was_found_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = dir.path().join("artifacts/hunter2!hunter2");
        std::fs::create_dir_all(&artifacts).unwrap();
        std::fs::write(artifacts.join("a.txt"), "so\nhunter2!hunter2\n").unwrap();
        std::fs::write(dir.path().join("artifacts/b.bin"), "\0hunter2!hunter2\n").unwrap();
        let patch = "diff --git a/x b/x\n+++ b/x\n@@ -0,0 +1 @@\n+hunter2!hunter2\n";
        std::fs::write(dir.path().join("diff.patch"), patch).unwrap();
        let artifact = |name: &str| (name.to_owned(), 1);
        let collected = Collected {
            changed: true,
            result_commit: None,
            commits: 1,
            files_changed: 1,
            insertions: 1,
            deletions: 0,
            own: None,
            notes: Vec::new(),
            artifacts: ["artifacts/b.bin", "artifacts/hunter2!hunter2/a.txt", "diff.patch"]
                .map(artifact)
                .to_vec(),
            millis: 0,
        };
        let (collected, notes) = clean(dir.path(), &scrubber(), Some(collected)).unwrap();
        let masked = patch.replace("hunter2!hunter2", "[masked:DB_PASSWORD]");
        assert_eq!(std::fs::read_to_string(dir.path().join("diff.patch")).unwrap(), masked);
        let listed = collected.unwrap().artifacts;
        let a = "artifacts/[masked:DB_PASSWORD]/a.txt".to_owned();
        assert_eq!(
            listed,
            [
                ("artifacts/b.bin".to_owned(), 17),
                (a.clone(), 19),
                ("diff.patch".to_owned(), masked.len() as u64)
            ]
        );
        assert!(dir.path().join(a).is_file());
        let told = format!("{notes:?}");
        assert!(!told.contains("hunter2") && told.contains("DB_PASSWORD in x"), "{told}");
        assert_eq!(notes.len(), 2, "{told}");
    }
}
