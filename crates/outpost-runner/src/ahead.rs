//! Directories of attempts to come, made before anybody asks; and the moment in which nobody does other work
//! because an attempt is starting.
//!
//! Making the dozen directories and files of a workspace costs more than all else a warm start does on a disk: on a
//! busy one a millisecond each. A directory that is there already only gets the attempt's name. Bounded by
//! [`AHEAD_COUNT`]. They know nothing of any attempt; those of an earlier server are removed, not used.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outpost_workspace::Workspaces;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::local::Parts;
use crate::provision::{make_home, owner};

/// How many directories wait for an attempt.
const AHEAD_COUNT: usize = 16;
/// Pause after one could not be made, seconds.
const FAILED_PAUSE_SECONDS: u64 = 10;
/// Longest time that work for later waits for attempts that are starting, milliseconds: with a queue there is
/// always one that is.
const HOLD_MILLIS_MAX: u64 = 200;
/// Name of an agent's home in the directory of its attempt.
pub(crate) const HOME: &str = "home";

/// Who owns the files of agents, see [`owner`].
type FileOwner = Option<(u32, u32)>;

/// The directories that wait.
#[derive(Debug)]
pub(crate) struct Ahead {
    dir: PathBuf,
    ready: Mutex<Vec<(PathBuf, FileOwner)>>,
    taken: Notify,
}

impl Ahead {
    /// None yet; they will be in `dir`, on the disk of the attempts.
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir, ready: Mutex::new(Vec::new()), taken: Notify::const_new() }
    }

    /// Gives one that waits the name `target`. `false` when there is none, or none for that owner: then nothing is
    /// at `target` that was not there before.
    pub(crate) fn take(&self, target: &Path, owner: FileOwner) -> bool {
        let Some((dir, made_for)) = self.lock().pop() else { return false };
        self.taken.notify_one();
        made_for == owner && std::fs::rename(dir, target).is_ok()
    }

    fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, FileOwner)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, dir: PathBuf, owner: FileOwner) {
        self.lock().push((dir, owner));
    }
}

impl Parts {
    /// Makes directories as they are taken, for as long as it is polled. What an earlier server made goes first.
    pub(crate) async fn keep_ahead(&self) {
        let dir = &self.ahead.dir;
        self.remove_dir(dir).await;
        let mut made = 0_u64;
        loop {
            self.starting.quiet().await;
            if self.ahead.count() >= AHEAD_COUNT {
                self.ahead.taken.notified().await;
                continue;
            }
            if let Err(error) = self.make_ahead(dir.join(made.to_string())).await {
                warn!(%error, "no directory could be made for attempts to come");
                tokio::time::sleep(Duration::from_secs(FAILED_PAUSE_SECONDS)).await;
            }
            made += 1;
        }
    }

    async fn make_ahead(&self, dir: PathBuf) -> io::Result<()> {
        let host = self.sandbox.host().await.map_err(io::Error::other)?;
        let owner = owner(host.payload_owner);
        let path = dir.clone();
        let make = move || {
            let parent = path.parent().unwrap_or(&path);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            Workspaces::lay_out(&path, owner)?;
            make_home(&path.join(HOME), owner)
        };
        tokio::task::spawn_blocking(make).await.map_err(io::Error::other)??;
        self.ahead.put(dir, owner);
        Ok(())
    }
}

/// How many attempts are on their way to their agent's start.
#[derive(Debug)]
pub(crate) struct Starting(watch::Sender<usize>);

impl Default for Starting {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Starting {
    /// One more, until what is returned is dropped.
    pub(crate) fn begin(&self) -> Start<'_> {
        self.0.send_modify(|count| *count += 1);
        Start(self)
    }

    /// Waits until none is, and not for ever.
    pub(crate) async fn quiet(&self) {
        let mut count = self.0.subscribe();
        let none = count.wait_for(|count| *count == 0);
        let _ = tokio::time::timeout(Duration::from_millis(HOLD_MILLIS_MAX), none).await;
    }
}

/// An attempt on its way.
pub(crate) struct Start<'a>(&'a Starting);

impl Drop for Start<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_given_once_and_only_to_whom_it_was_made_for() {
        let place = tempfile::tempdir().unwrap();
        let ahead = Ahead::new(place.path().join("ahead"));
        for (name, owner) in [("1", Some((1, 1))), ("2", None)] {
            let dir = place.path().join("ahead").join(name);
            std::fs::create_dir_all(&dir).unwrap();
            ahead.put(dir, owner);
        }
        let target = place.path().join("attempt");
        assert!(ahead.take(&target, None) && target.is_dir());
        assert!(!ahead.take(&place.path().join("other"), None));
        assert!(!ahead.take(&place.path().join("third"), None));
    }

    #[test]
    fn one_is_never_put_over_what_an_attempt_left() {
        let place = tempfile::tempdir().unwrap();
        let (dir, target) = (place.path().join("1"), place.path().join("attempt"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir_all(target.join("workspace")).unwrap();
        let ahead = Ahead::new(place.path().to_owned());
        ahead.put(dir, None);
        assert!(!ahead.take(&target, None) && target.join("workspace").is_dir());
    }

    #[tokio::test]
    async fn work_for_later_waits_for_those_that_start() {
        let starting = Starting::default();
        starting.quiet().await;
        let (one, two) = (starting.begin(), starting.begin());
        drop(one);
        let mut quiet = std::pin::pin!(starting.quiet());
        assert!(futures_util::poll!(&mut quiet).is_pending());
        drop(two);
        quiet.await;
        assert_eq!(*starting.0.borrow(), 0);
    }
}
