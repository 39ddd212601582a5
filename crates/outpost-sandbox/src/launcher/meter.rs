//! Watches how much disk the read-write binds of sandboxes take, in a process of its own: the launcher must not wait
//! for a disk.
//!
//! No ordinary user can have the kernel count a directory's bytes, and few file systems let root. So the meter, a fork
//! of the launcher made when it is first needed, walks the binds again and again and names those sandboxes that are
//! beyond their limit; the launcher ends them. It has the launcher's rights, so a payload cannot hide a directory from
//! it, and it follows no link. Also counted: files that were deleted while a process of the sandbox has them open.
//! A flood gets as far as it comes between two looks, [`PAUSE_MILLIS_MIN`] apart or more, and each file is bounded by
//! `RLIMIT_FSIZE`.
//!
//! Bounded: depth of a tree, entries between two looks at the socket, remembered links, processes looked at, share of
//! a processor. Deliberately absent: deleted files that are only mapped, or only in flight between sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, statfs};
use serde::{Deserialize, Serialize};

use crate::init::root::{OpenBind, Source};
use crate::spec::Limits;
use crate::sys;
use crate::wire::{self, FRAME_FDS_MAX, Peer};

/// Least time between two looks at one sandbox, milliseconds.
const PAUSE_MILLIS_MIN: u64 = 250;
/// Rest after a walk, as a multiple of the time it took: at most a quarter of a processor is used.
const REST_FACTOR: u32 = 3;
/// Entries between two looks at the socket.
const SLICE_ENTRIES: u32 = 256;
/// Deepest tree that is measured; a deeper one counts as beyond its limit. Paths end at 4,096 bytes.
const DEPTH_MAX: usize = 256;
/// Files with several names that are remembered, so that each counts once; more are counted once a name.
const LINKED_FILES_MAX: usize = 1 << 20;
/// Most processes of the host that are looked at in one walk.
const PROCESSES_MAX: usize = 100_000;
/// How long the launcher waits for room in the meter's queue, milliseconds.
const ROOM_MILLIS_MAX: u32 = 5_000;
/// Longest wait when there is nothing to do, milliseconds.
const WAIT_MILLIS_MAX: u32 = 60_000;
/// File system type of overlays (`OVERLAYFS_SUPER_MAGIC` of `linux/magic.h`).
const OVERLAY_MAGIC: u64 = 0x794c_7630;
/// What `st_blocks` counts in (`stat(2)`), bytes.
const BLOCK_BYTES: u64 = 512;

/// Launcher to meter.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// A sandbox with its init's process number; directories beside it.
    Watch { key: u64, pid: i32, bytes_max: Option<u64>, files_max: Option<u64>, overlay: bool },
    /// More directories of it.
    More { key: u64, overlay: bool },
    /// It ended.
    Forget { key: u64 },
}

/// Meter to launcher: this sandbox is beyond its limit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Over {
    pub(super) key: u64,
    /// Which limit, and how much there is.
    pub(super) what: String,
}

/// What is measured of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) dirs: Vec<OwnedFd>,
    /// Some of them are upper directories of overlays: what the payload opens is on a device of the overlay's own.
    pub(super) overlay: bool,
}

impl Disks {
    /// What may be written through `binds`.
    pub(super) fn of(binds: &[OpenBind]) -> io::Result<Self> {
        let written = || binds.iter().filter_map(|bind| Some((bind, bind.written()?)));
        let dirs = written().map(|(_, fd)| fd.try_clone_to_owned()).collect::<io::Result<_>>()?;
        let overlay = written().any(|(bind, _)| matches!(bind.source, Source::Overlay(_)));
        Ok(Self { dirs, overlay })
    }
}

/// The launcher's end.
#[derive(Debug)]
pub(super) struct Meter {
    socket: OwnedFd,
    pid: i32,
}

impl Meter {
    /// Forks the meter. The launcher has one thread.
    pub(super) fn start() -> io::Result<Self> {
        let (ours, theirs) = wire::pair()?;
        match sys::clone3(0, None)? {
            sys::Side::Child => {
                // It has the launcher's words; the name tells the two apart.
                sys::set_slice(sys::Slice::Usual);
                let _only_a_name = rustix::thread::set_name(c"outpost-meter");
                let closed = sys::close_all_but(&[theirs.as_raw_fd()]);
                let run = std::panic::AssertUnwindSafe(|| measure(theirs));
                let ended = closed.map(|()| std::panic::catch_unwind(run));
                sys::exit_now(i32::from(!matches!(ended, Ok(Ok(Ok(()))))))
            }
            sys::Side::Parent { pid, .. } => Ok(Self { socket: ours, pid }),
        }
    }

    /// Where its words arrive.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Watches a sandbox from now on.
    pub(super) fn watch(
        &self,
        key: u64,
        pid: i32,
        limits: &Limits,
        mut disks: Disks,
    ) -> io::Result<()> {
        let later = disks.dirs.split_off(disks.dirs.len().min(FRAME_FDS_MAX));
        let (bytes_max, files_max) = (limits.disk_bytes, limits.disk_files);
        let overlay = disks.overlay;
        self.send(&Order::Watch { key, pid, bytes_max, files_max, overlay }, disks.dirs)?;
        self.more(key, Disks { dirs: later, overlay })
    }

    /// Watches more of a sandbox.
    pub(super) fn more(&self, key: u64, disks: Disks) -> io::Result<()> {
        let mut dirs = disks.dirs.into_iter().peekable();
        while dirs.peek().is_some() {
            let some = dirs.by_ref().take(FRAME_FDS_MAX).collect();
            self.send(&Order::More { key, overlay: disks.overlay }, some)?;
        }
        Ok(())
    }

    /// Forgets a sandbox. If that cannot be said, its empty directories go on being looked at, and no harm is done.
    pub(super) fn forget(&self, key: u64) {
        let _harmless = self.send(&Order::Forget { key }, Vec::new());
    }

    fn send(&self, order: &Order, fds: Vec<OwnedFd>) -> io::Result<()> {
        let frame = wire::Frame::new(order, fds)?;
        match frame.send(self.socket()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sys::writable_within(self.socket(), ROOM_MILLIS_MAX)?;
                frame.send(self.socket())
            }
            other => other,
        }
    }

    /// The next sandbox that is beyond its limit; `None` if the meter is gone.
    pub(super) fn hear(&self) -> io::Result<Option<Over>> {
        Ok(wire::receive::<Over>(self.socket(), Peer::Trusted)?.map(|(over, _)| over))
    }

    /// Ends it.
    pub(super) fn stop(self) {
        drop(self.socket);
        let _ends_by_itself = sys::reap(self.pid);
    }
}

/// A sandbox under watch.
struct Watched {
    disks: Disks,
    pid: i32,
    bytes_max: u64,
    files_max: u64,
    due: Instant,
}

/// The life of a meter; it ends with the launcher.
fn measure(socket: OwnedFd) -> io::Result<()> {
    let mut watched: BTreeMap<u64, Watched> = BTreeMap::new();
    let mut rest_until = Instant::now();
    loop {
        let first = watched.iter().min_by_key(|(_, one)| one.due);
        let next = first.map(|(key, one)| (*key, one.due.max(rest_until)));
        let wait = next.map(|(_, due)| due.saturating_duration_since(Instant::now()));
        // Rounded up to a millisecond, so that it is due when the wait for it ends.
        let millis = wait.map_or(WAIT_MILLIS_MAX, |wait| match wait.as_millis() {
            0 if wait.is_zero() => 0,
            millis => u32::try_from(millis + 1).unwrap_or(WAIT_MILLIS_MAX),
        });
        sys::readable_within(socket.as_fd(), millis)?;
        if !listen(&socket, &mut watched)? {
            return Ok(());
        }
        let Some((key, _)) = next.filter(|(_, due)| *due <= Instant::now()) else { continue };
        let began = Instant::now();
        let found = match look(&socket, &mut watched, key)? {
            Look::LauncherGone => return Ok(()),
            Look::Within => None,
            Look::Beyond(what) => Some(what),
        };
        rest_until = Instant::now() + began.elapsed() * REST_FACTOR;
        if let Some(one) = watched.get_mut(&key) {
            one.due = Instant::now() + Duration::from_millis(PAUSE_MILLIS_MIN);
        }
        if let Some(what) = found {
            watched.remove(&key);
            wire::send(socket.as_fd(), &Over { key, what }, Vec::new())?;
        }
    }
}

/// Takes what the launcher said. False once it is gone.
fn listen(socket: &OwnedFd, watched: &mut BTreeMap<u64, Watched>) -> io::Result<bool> {
    loop {
        match wire::receive::<Order>(socket.as_fd(), Peer::Trusted) {
            Ok(Some((Order::Watch { key, pid, bytes_max, files_max, overlay }, dirs))) => {
                let (bytes_max, files_max) =
                    (bytes_max.unwrap_or(u64::MAX), files_max.unwrap_or(u64::MAX));
                let due = Instant::now();
                let disks = Disks { dirs, overlay };
                watched.insert(key, Watched { disks, pid, bytes_max, files_max, due });
            }
            Ok(Some((Order::More { key, overlay }, dirs))) => {
                if let Some(one) = watched.get_mut(&key) {
                    one.disks.dirs.extend(dirs);
                    one.disks.overlay |= overlay;
                }
            }
            Ok(Some((Order::Forget { key }, _))) => drop(watched.remove(&key)),
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// What one look at a sandbox came to.
enum Look {
    LauncherGone,
    Within,
    Beyond(String),
}

/// Measures one sandbox, hearing the launcher in between.
fn look(socket: &OwnedFd, watched: &mut BTreeMap<u64, Watched>, key: u64) -> io::Result<Look> {
    let mut sum = Sum::default();
    let mut index = 0;
    while let Some(dir) = watched.get(&key).and_then(|one| one.disks.dirs.get(index)) {
        index += 1;
        let Ok(mut walk) = Walk::start(dir.as_fd(), &mut sum) else { continue };
        while walk.slice(&mut sum) {
            if !listen(socket, watched)? {
                return Ok(Look::LauncherGone);
            }
            let Some(one) = watched.get(&key) else { return Ok(Look::Within) };
            if let Some(over) = sum.beyond(one) {
                return Ok(Look::Beyond(over));
            }
        }
    }
    let Some(one) = watched.get(&key) else { return Ok(Look::Within) };
    deleted(one, &mut sum);
    Ok(sum.beyond(one).map_or(Look::Within, Look::Beyond))
}

/// What was counted.
#[derive(Debug, Default)]
struct Sum {
    bytes: u64,
    files: u64,
    /// Files that have several names, by device and number.
    linked: HashSet<(u64, u64)>,
    /// Why the tree could not be measured, which no payload may bring about.
    beyond_measure: Option<String>,
}

impl Sum {
    fn add(&mut self, stat: &rustix::fs::Stat) {
        self.files += 1;
        let id = (stat.st_dev, stat.st_ino);
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        if !is_dir && stat.st_nlink != 1 {
            if self.linked.contains(&id) {
                return;
            }
            if self.linked.len() < LINKED_FILES_MAX {
                self.linked.insert(id);
            }
        }
        self.bytes = self.bytes.saturating_add((stat.st_blocks as u64).saturating_mul(BLOCK_BYTES));
    }

    fn beyond(&self, one: &Watched) -> Option<String> {
        if self.bytes > one.bytes_max {
            return Some(format!("{} of {} bytes on disk", self.bytes, one.bytes_max));
        }
        if self.files > one.files_max {
            return Some(format!("{} of {} files on disk", self.files, one.files_max));
        }
        self.beyond_measure.clone()
    }
}

/// A walk through one tree, as far as it has come.
struct Walk {
    levels: Vec<Dir>,
    device: u64,
}

impl Walk {
    fn start(dir: BorrowedFd<'_>, sum: &mut Sum) -> io::Result<Self> {
        let stat = fstat(dir)?;
        sum.add(&stat);
        let mut walk = Self { levels: Vec::new(), device: stat.st_dev };
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            walk.levels.extend(open_dir(dir, c".", sum));
        }
        Ok(walk)
    }

    /// Goes on for a while. False at the end.
    fn slice(&mut self, sum: &mut Sum) -> bool {
        for _ in 0..SLICE_ENTRIES {
            let depth = self.levels.len();
            let Some(level) = self.levels.last_mut() else { return false };
            let (Some(Ok(entry)), Ok(here)) = (level.read(), level.fd()) else {
                self.levels.pop();
                continue;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = statat(here, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            sum.add(&stat);
            if FileType::from_raw_mode(stat.st_mode).is_dir() && stat.st_dev == self.device {
                if depth >= DEPTH_MAX {
                    sum.beyond_measure = Some(format!("directories deeper than {DEPTH_MAX}"));
                    continue;
                }
                let inner = open_dir(here, name, sum);
                self.levels.extend(inner);
            }
        }
        !self.levels.is_empty()
    }
}

/// Opens a directory; `None` if it is gone or was replaced meanwhile: the next walk sees what is there then.
fn open_dir(parent: BorrowedFd<'_>, name: &CStr, sum: &mut Sum) -> Option<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()).and_then(Dir::new) {
        Ok(dir) => Some(dir),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => None,
        Err(error) => {
            sum.beyond_measure = Some(format!("a directory cannot be read: {error}"));
            None
        }
    }
}

/// Adds files without a name that processes of the sandbox have open.
fn deleted(one: &Watched, sum: &mut Sum) {
    let devices: HashSet<u64> =
        one.disks.dirs.iter().filter_map(|dir| fstat(dir).ok()).map(|stat| stat.st_dev).collect();
    for pid in descendants(one.pid, &parents()) {
        // Nothing to be read from one that just ended, nor from init itself, which has nothing open of the payload's.
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
        for open in open.into_iter().flatten().flatten() {
            let Ok(stat) = rustix::fs::stat(open.path()) else { continue };
            let file = FileType::from_raw_mode(stat.st_mode).is_file();
            let on_overlay = || {
                one.disks.overlay
                    && statfs(open.path()).is_ok_and(|fs| fs.f_type as u64 == OVERLAY_MAGIC)
            };
            if file && stat.st_nlink == 0 && (devices.contains(&stat.st_dev) || on_overlay()) {
                sum.add(&stat);
            }
        }
    }
}

/// Every process of the host with its parent.
fn parents() -> Vec<(i32, i32)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parent = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, parent_of(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?))
    };
    processes.take(PROCESSES_MAX).filter_map(parent).collect()
}

/// The parent in the text of `/proc/<pid>/stat`. The name before it, in brackets, may hold anything.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// All processes of the sandbox with this init: whose parent ends becomes init's child.
fn descendants(init: i32, parents: &[(i32, i32)]) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in parents {
        children.entry(*parent).or_default().push(*pid);
    }
    let mut all = vec![init];
    let mut done = 0;
    while let Some(pid) = all.get(done) {
        done += 1;
        // Taken out, so that a list that was not made in one moment leads in no circle.
        all.extend(children.remove(pid).unwrap_or_default());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_by_their_parents() {
        assert_eq!(parent_of("7 (a) b) 9) S 3 7 7 0 -1"), Some(3));
        assert_eq!(parent_of("7 (a"), None);
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 4)];
        assert_eq!(descendants(3, &parents), [3, 4, 6]);
        assert_eq!(descendants(9, &parents), [9]);
    }
}
