//! What the agent is told of the project before its task: read, built, written down.
//!
//! Done before any sandbox sees the workspace, so nobody can change a file while it is read or written. Bounded: files and
//! bytes of each; the rest by `outpost-context`. Absent: context for an agent whose session goes on, which has it already.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use outpost_context::{
    CONTEXT_FILE_BYTES_MAX, Day, Profiles, Read, Scrubber, Wanted, build, wanted,
};
use outpost_types::{ContextLevel, ContextSkipReason, ContextView, GivenSecret};
use outpost_workspace::Prepared;

use crate::runner::Assignment;

/// Name of the document in the workspace and among the kept files.
const CONTEXT_FILE: &str = "context.json";
/// Name of the task in the workspace.
const TASK_FILE: &str = "task.md";

/// Puts the context before the task; writes both into the workspace, and the context to the kept files. Returns what the
/// agent is asked. With `resumes` there is nothing to tell.
pub(crate) async fn tell(
    assignment: &Assignment,
    profiles: &Profiles,
    prepared: &mut Prepared,
    exposed: &[GivenSecret],
    resumes: bool,
    task: String,
) -> io::Result<String> {
    let (level, kept) = (assignment.spec.context_level, assignment.kept_dir.clone());
    let exposed = exposed.iter().map(|given| (given.name.as_str(), given.value.expose()));
    let scrubber = Scrubber::new(exposed);
    // The list may be long: it is lent, not copied.
    let files = std::mem::take(&mut prepared.tracked_files);
    let lent = prepared.clone();
    let profile = profiles.of(Some(&assignment.tenant));
    let tell = move || {
        let view = if resumes {
            build(level, today(), &[], &[], &scrubber)
        } else {
            of(level, profile, &lent, &files, &scrubber)
        };
        let asked = format!("{}{task}", view.text);
        let mut document = serde_json::to_vec_pretty(&view)?;
        document.push(b'\n');
        std::fs::write(lent.dir.join(TASK_FILE), &asked)?;
        std::fs::write(lent.dir.join(CONTEXT_FILE), &document)?;
        keep(&kept, &document)?;
        Ok::<_, io::Error>((asked, files))
    };
    let (asked, files) = tokio::task::spawn_blocking(tell).await.map_err(io::Error::other)??;
    prepared.tracked_files = files;
    Ok(asked)
}

/// Written whole or not at all: a reader may be there already.
fn keep(kept: &Path, document: &[u8]) -> io::Result<()> {
    let half = kept.join(".context.part");
    std::fs::write(&half, document)?;
    std::fs::rename(half, kept.join(CONTEXT_FILE))
}

fn of(
    level: ContextLevel,
    profile: Option<Read>,
    prepared: &Prepared,
    files: &[String],
    scrubber: &Scrubber,
) -> ContextView {
    let read = wanted(level, files).into_iter().map(|wanted| read(prepared, wanted));
    let read: Vec<_> = profile.into_iter().chain(read).collect();
    build(level, today(), &read, files, scrubber)
}

fn today() -> Day {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Day::of_unix_seconds(now.as_secs())
}

fn read(prepared: &Prepared, wanted: Wanted) -> Read {
    match prepared.beginning_of(&wanted.path, CONTEXT_FILE_BYTES_MAX) {
        Ok(beginning) => Read { wanted, bytes: beginning.size_bytes, content: Ok(beginning.bytes) },
        Err(error) => {
            let reason = match error.kind() {
                io::ErrorKind::InvalidInput => ContextSkipReason::Irregular,
                _ => ContextSkipReason::Unreadable,
            };
            Read { wanted, bytes: 0, content: Err(reason) }
        }
    }
}
