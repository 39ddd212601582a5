//! What a dispatch goes on from: the files its parent left, and the session of its parent's agent.
//!
//! All of it is an agent's work. So it is put in place by a command in a sandbox, as the agent's user, before the new
//! agent starts; this host only hands over two files that it does not look into. Bounded: bytes of a session, time of
//! both commands. Absent: a session of another agent, of which the new one is told in words.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use outpost_core::Parent;
use outpost_sandbox::HOME_INSIDE;
use outpost_types::{DispatchId, Tier};
use outpost_workspace::{BUNDLE_NAME, Note, Prepared};
use rustix::fs::{Mode, OFlags, open};
use tracing::warn;

use crate::ahead::HOME;
use crate::handover::handover;
use crate::local::Parts;
use crate::provision::{ProvisionError, make_home};
use crate::runner::Assignment;
use crate::side::{SideRun, run_aside};

/// Name of the kept session; the dot keeps it out of the artifacts.
const SESSION_FILE: &str = ".session.tar";
/// Largest session that is kept, bytes.
const SESSION_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Longest time of putting everything in place, seconds; git writes all files that differ.
const RESTORE_SECONDS_MAX: u64 = 300;
/// Longest time of packing a session, seconds.
const PACK_SECONDS_MAX: u64 = 60;
/// Directory of the attempt that a session is packed into, and where a sandbox shows it.
const PACK_DIR: &str = "session";
const PACKED_INSIDE: &str = "/session";
/// Where a sandbox shows what is to be put in place.
const BUNDLE_INSIDE: &str = "/carried/changes.bundle";
const SESSION_INSIDE: &str = "/carried/session.tar";
/// How the script ends when the session, but not the files, cannot be put in place.
const EXIT_NO_SESSION: i32 = 20;

/// Arguments: the repository, the bundle or nothing, the session or nothing, HOME.
const RESTORE: &str = "set -u
if [ -n \"$2\" ]; then
    cd \"$1\" || exit 10
    git fetch -q --no-tags \"$2\" refs/heads/outpost || exit 11
    git reset -q --hard FETCH_HEAD || exit 12
fi
if [ -n \"$3\" ]; then
    tar -x --no-same-owner --skip-old-files -f \"$3\" -C \"$4\" || exit 20
fi";

/// Arguments: HOME, the limit in units of 512 bytes, and the paths.
const PACK: &str = "set -u
cd \"$1\" || exit 10
ulimit -f \"$2\"
shift 2
for path; do
    shift
    [ -e \"$path\" ] && [ ! -L \"$path\" ] && set -- \"$@\" \"$path\"
done
[ $# -gt 0 ] || exit 0
tar -c -f /session/session.tar -- \"$@\"";

/// What of an attempt comes from its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Its changes, if it made any.
    bundle: Option<PathBuf>,
    /// The session to go on with, and the file that holds it.
    session: Option<(String, PathBuf)>,
}

impl Carried {
    /// What there is of the parent of this assignment; `None` when it has none.
    pub(crate) fn of(assignment: &Assignment) -> Option<Self> {
        let parent = assignment.spec.parent.as_ref()?;
        let kept = parent_dir(assignment, parent);
        let file = |name: &str| Some(kept.join(name)).filter(|path| path.is_file());
        let session = parent.session_id.clone().zip(file(SESSION_FILE));
        Some(Self { bundle: file(BUNDLE_NAME), session })
    }

    /// The session the agent is to resume.
    pub(crate) fn session_id(&self) -> Option<String> {
        self.session.as_ref().map(|(id, _)| id.clone())
    }

    /// Puts the parent's files into the repository and its session into the home, before anything else has them
    /// mounted. Of what it cannot put in place the session may be missing: then it is forgotten here.
    pub(crate) async fn restore(
        &mut self,
        parts: &Parts,
        assignment: &Assignment,
        prepared: &mut Prepared,
    ) -> Result<(), ProvisionError> {
        if self.bundle.is_none() && self.session.is_none() {
            return Ok(());
        }
        let home = prepared.attempt_dir.join(HOME);
        let ran = run_aside(parts, self.command(assignment, prepared, home)).await?;
        if ran.exit.success() {
            return Ok(());
        }
        warn!(attempt = %assignment.attempt, output = ?ran.output, code = ?ran.exit.exit_code, "what a dispatch goes on from");
        if ran.exit.exit_code == Some(EXIT_NO_SESSION) {
            self.session = None;
            prepared.notes.push(Note {
                code: "session_not_resumed".into(),
                message: "The agent begins a session of its own: that of the dispatch it goes on from could not be put in place. The files are there.".to_owned(),
            });
            return Ok(());
        }
        Err(ProvisionError::Carry)
    }

    fn command(&self, assignment: &Assignment, prepared: &Prepared, home: PathBuf) -> SideRun {
        let inside = &prepared.inside;
        let (mut ro_binds, mut argv) = (prepared.ro_binds.clone(), shell(RESTORE));
        argv.push(format!("{}/repo", inside.display()));
        let session = self.session.as_ref().map(|(_, path)| path);
        for (path, shown) in [(self.bundle.as_ref(), BUNDLE_INSIDE), (session, SESSION_INSIDE)] {
            argv.push(path.map(|_| shown.to_owned()).unwrap_or_default());
            ro_binds.extend(path.map(|path| (path.clone(), PathBuf::from(shown))));
        }
        argv.push(HOME_INSIDE.to_owned());
        let rw_binds = vec![(prepared.dir.clone(), inside.clone()), (home, HOME_INSIDE.into())];
        let repository = prepared.overlay.clone().map(|overlay| (overlay, inside.clone()));
        SideRun {
            id: format!("{}-carry", assignment.attempt),
            argv,
            env: Vec::new(),
            cwd: "/".to_owned(),
            ro_binds,
            rw_binds,
            repository,
            network: None,
            tier: assignment.spec.tier,
            seconds_max: RESTORE_SECONDS_MAX,
        }
    }
}

/// What the agent is asked: the task, after what there is to know of the parent when its session does not tell.
pub(crate) fn task(assignment: &Assignment, carried: Option<&Carried>) -> String {
    let task = &assignment.spec.task;
    match (&assignment.spec.parent, carried.and_then(Carried::session_id)) {
        (Some(parent), None) => handover(&parent_dir(assignment, parent), task),
        _ => task.clone(),
    }
}

/// The directory inside of an attempt is named after the first dispatch of its line.
pub(crate) fn inside_of(assignment: &Assignment) -> PathBuf {
    let root = assignment.spec.parent.as_ref().and_then(|parent| parent.root);
    inside(root.unwrap_or(assignment.attempt.dispatch))
}

fn inside(dispatch: DispatchId) -> PathBuf {
    PathBuf::from(format!("/workspace/{dispatch}"))
}

/// Kept files of the parent: beside those of the dispatch itself.
pub(crate) fn parent_dir(assignment: &Assignment, parent: &Parent) -> PathBuf {
    assignment.kept_dir.with_file_name(parent.dispatch_id.to_string())
}

/// Keeps the session of an agent that has ended, for a dispatch that goes on from it. Without it that one is told in
/// words, so nothing of this is an error for the attempt.
pub(crate) async fn keep_session(
    parts: &Parts,
    assignment: &Assignment,
    prepared: &Prepared,
    paths: &[&str],
) {
    if paths.is_empty() {
        return;
    }
    let packed = pack(parts, assignment, prepared, paths).await;
    if let Err(error) = packed {
        warn!(%error, attempt = %assignment.attempt, "the session of an agent is not kept");
    }
}

async fn pack(
    parts: &Parts,
    assignment: &Assignment,
    prepared: &Prepared,
    paths: &[&str],
) -> io::Result<()> {
    let dir = prepared.attempt_dir.join(PACK_DIR);
    parts.workspaces.remove(&dir).await?;
    make_home(&dir, prepared.owner)?;
    let mut argv = shell(PACK);
    argv.extend([HOME_INSIDE.to_owned(), (SESSION_BYTES_MAX / 512).to_string()]);
    argv.extend(paths.iter().map(|path| (*path).to_owned()));
    let side = SideRun {
        id: format!("{}-session", assignment.attempt),
        argv,
        env: Vec::new(),
        cwd: "/".to_owned(),
        ro_binds: vec![(prepared.attempt_dir.join(HOME), HOME_INSIDE.into())],
        rw_binds: vec![(dir.clone(), PACKED_INSIDE.into())],
        repository: None,
        network: None,
        tier: Tier::Fast,
        seconds_max: PACK_SECONDS_MAX,
    };
    let ran = run_aside(parts, side).await.map_err(io::Error::other)?;
    if !ran.exit.success() {
        return Err(io::Error::other(format!("it cannot be packed: {}", ran.output.trim())));
    }
    let (from, kept) = (dir.join("session.tar"), assignment.kept_dir.clone());
    let keep = move || keep_file(&from, &kept);
    tokio::task::spawn_blocking(keep).await.map_err(io::Error::other)?
}

/// Copies what was packed, which is whatever somebody hostile left there, into the kept files, whole or not at all.
fn keep_file(from: &Path, kept: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(from, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // The agent left no session.
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > SESSION_BYTES_MAX {
        return Err(io::Error::other("it is too large, or no file"));
    }
    let half = kept.join(".session.part");
    let mut to = File::create(&half)?;
    io::copy(&mut file.take(SESSION_BYTES_MAX), &mut to)?;
    to.sync_data()?;
    std::fs::rename(half, kept.join(SESSION_FILE))
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script, "carry"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_bounded_size_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (from, kept) = (dir.path().join("session.tar"), dir.path().join("kept"));
        std::fs::create_dir(&kept).unwrap();
        keep_file(&from, &kept).unwrap();
        assert!(!kept.join(SESSION_FILE).exists());
        std::fs::write(&from, "tar").unwrap();
        keep_file(&from, &kept).unwrap();
        assert_eq!(std::fs::read(kept.join(SESSION_FILE)).unwrap(), b"tar");
        std::fs::remove_file(kept.join(SESSION_FILE)).unwrap();
        File::create(&from).unwrap().set_len(SESSION_BYTES_MAX + 1).unwrap();
        assert!(keep_file(&from, &kept).is_err());
        std::fs::remove_file(&from).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &from).unwrap();
        assert!(keep_file(&from, &kept).is_err());
        assert!(!kept.join(SESSION_FILE).exists());
    }
}
