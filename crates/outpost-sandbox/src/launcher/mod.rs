//! The launcher: a small single-threaded process that makes all sandboxes, is the parent that reaps them, and
//! outlives the server. It keeps every pidfd, output pipe and gateway listener, and hands them to the next server.
//!
//! Bounds: [`SANDBOXES_MAX`] sandboxes, one client, [`OUTBOX_FRAMES_MAX`] unsent messages, and the times below.
//! Deliberately absent: threads, an async runtime, configuration, any decision about what to run.

mod birth;
pub(crate) mod cgroup;
mod claim;
mod helper;
mod host;
mod keep;
mod meter;
mod serve;

pub use host::cgroup_name;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::sys;

/// First argument that tells a program to become the launcher instead.
pub const LAUNCHER_ARGUMENT: &str = "__launcher";
/// Exit code of the starting process if another launcher already serves the socket.
pub(crate) const EXIT_ALREADY_RUNNING: i32 = 3;
/// Most sandboxes, finished ones that nobody released included.
pub const SANDBOXES_MAX: usize = 2048;
/// Most messages waiting for a client that does not read; a client beyond it is disconnected and may come back.
pub(super) const OUTBOX_FRAMES_MAX: usize = 4 * SANDBOXES_MAX;
/// How long building one sandbox may take.
pub(super) const BUILD_SECONDS_MAX: u64 = 20;
/// How long parked sandboxes wait for the next server after the last one left.
pub(super) const ORPHAN_PARKED_SECONDS: u64 = 60;
/// How long results nobody fetched are kept after the last server left.
pub(super) const ORPHAN_FINISHED_SECONDS: u64 = 24 * 3600;
/// How often a removal that the kernel refused is tried again.
pub(super) const SWEEP_MILLIS: u64 = 10;
/// How long the end of a killed init is waited for on the failure path.
pub(super) const KILL_MILLIS_MAX: u32 = 2000;
/// Connections waiting to be answered.
const LISTEN_BACKLOG: i32 = 16;
/// The log starts anew when it has grown beyond this.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// Longest socket path the kernel accepts (`sun_path` without its NUL).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What the launcher is told on its command line.
#[derive(Debug, Clone)]
struct Options {
    socket: PathBuf,
    idle: Duration,
}

/// Becomes the launcher. Call this from `main`, before any thread or runtime exists, when the first argument is
/// [`LAUNCHER_ARGUMENT`]; `arguments` are those after it: `SOCKET IDLE_SECONDS`.
///
/// Every inherited descriptor but the standard ones is closed, so the caller may own none.
///
/// The calling process ends with code 0 once the launcher, its child in a session of its own, answers at the socket;
/// with [`EXIT_ALREADY_RUNNING`] (3) if another one already does; with 1 and a message on standard error otherwise.
pub fn launcher_main(arguments: impl IntoIterator<Item = OsString>) -> ! {
    become_launcher(arguments, false)
}

/// The same for a program that proves the self-test's probes: this launcher also makes sandboxes that are weakened on
/// purpose. No program of the product calls it.
#[doc(hidden)]
pub fn launcher_main_for_proofs(arguments: impl IntoIterator<Item = OsString>) -> ! {
    become_launcher(arguments, true)
}

fn become_launcher(arguments: impl IntoIterator<Item = OsString>, for_proofs: bool) -> ! {
    // The forked launcher must not unwind into the caller's main.
    let run = std::panic::AssertUnwindSafe(|| start(arguments, for_proofs));
    let code = match std::panic::catch_unwind(run) {
        Ok(Ok(code)) => code,
        Ok(Err(message)) => {
            complain(&message);
            1
        }
        Err(_) => 70,
    };
    sys::exit_now(code)
}

/// Writes one line to standard error, which is the starter's pipe first and the log file later.
fn complain(message: &str) {
    use std::io::Write as _;
    let _nowhere_else_to_say_it = writeln!(io::stderr(), "{message}");
}

fn start(arguments: impl IntoIterator<Item = OsString>, for_proofs: bool) -> Result<i32, String> {
    // A launcher lives long: it must not hold open what somebody up the line of starters forgot to close.
    sys::close_all_but(&[]).map_err(|error| format!("inherited descriptors: {error}"))?;
    let options = parse(arguments)?;
    check_directory(&options.socket)?;
    let Some(lock) = take_lock(&options.socket).map_err(|error| format!("lock file: {error}"))?
    else {
        return Ok(EXIT_ALREADY_RUNNING);
    };
    let (ready, tell_ready) = wire_pair()?;
    if !sys::fork().map_err(|error| format!("fork: {error}"))? {
        drop((tell_ready, lock));
        return Ok(await_child(ready));
    }
    drop(ready);
    serve_detached(&options, for_proofs, lock, tell_ready)
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, String> {
    let usage =
        || format!("usage: {LAUNCHER_ARGUMENT} SOCKET IDLE_SECONDS (started by outpost itself)");
    let mut arguments = arguments.into_iter();
    let socket = PathBuf::from(arguments.next().ok_or_else(usage)?);
    let idle = arguments.next().and_then(|text| text.to_str()?.parse().ok()).ok_or_else(usage)?;
    if arguments.next().is_some() || !socket.is_absolute() {
        return Err(usage());
    }
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "the socket path is longer than {SOCKET_PATH_BYTES_MAX} bytes; use a shorter directory"
        ));
    }
    Ok(Options { socket, idle: Duration::from_secs(idle) })
}

/// The socket's directory must be ours alone: whoever can write there could pose as the launcher.
fn check_directory(socket: &Path) -> Result<(), String> {
    let dir = socket.parent().unwrap_or_else(|| Path::new("/"));
    let meta = fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me || meta.mode() & 0o077 != 0 {
        return Err(format!(
            "{} must belong to you with mode 0700; run chmod 700 on it",
            dir.display()
        ));
    }
    Ok(())
}

fn beside(socket: &Path, ending: &str) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

/// One launcher per socket: held for life, released by the kernel however the launcher ends.
fn take_lock(socket: &Path) -> io::Result<Option<OwnedFd>> {
    let path = beside(socket, ".lock");
    let lock =
        fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock.into())),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn wire_pair() -> Result<(OwnedFd, OwnedFd), String> {
    crate::wire::pair().map_err(|error| format!("socket pair: {error}"))
}

/// Waits in the starting process until the launcher says it is ready (0) or ends without a word (1: it has written
/// the reason to the standard error both share).
fn await_child(ready: OwnedFd) -> i32 {
    let said =
        sys::readable_within(ready.as_fd(), BUILD_SECONDS_MAX as u32 * 1000).unwrap_or(false);
    let mut byte = [0_u8; 1];
    match (said, rustix::io::read(&ready, &mut byte)) {
        (true, Ok(1)) => 0,
        _ => 1,
    }
}

fn serve_detached(
    options: &Options,
    for_proofs: bool,
    lock: OwnedFd,
    tell_ready: OwnedFd,
) -> Result<i32, String> {
    let text = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    rustix::process::setsid().map_err(|error| text("session")(error.into()))?;
    rustix::process::chdir("/").map_err(|error| text("working directory")(error.into()))?;
    let host = host::Host::prepare(&options.socket, for_proofs)?;
    let listener = listen(&options.socket).map_err(text("socket"))?;
    let log = open_log(&options.socket).map_err(text("log file"))?;
    let mut service =
        serve::Service::new(host, listener, options.idle).map_err(text("event queue"))?;
    let _starter_gave_up = rustix::io::write(&tell_ready, b"1");
    drop(tell_ready);
    detach_stdio(log).map_err(text("standard streams"))?;
    let result = service.run();
    service.finish();
    // The socket goes before the lock, so a new launcher never loses its own.
    let _never_made = fs::remove_file(&options.socket);
    drop(lock);
    result.map(|()| 0).map_err(text("event loop"))
}

/// Listens at the path; a stale file is removed first, which the lock makes safe.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let old_mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(old_mask);
    bound?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}

fn open_log(socket: &Path) -> io::Result<fs::File> {
    let path = beside(socket, ".log");
    let too_long = fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX);
    if too_long {
        fs::remove_file(&path)?;
    }
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn detach_stdio(log: fs::File) -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    sys::replace_standard_stream(0, null.as_fd())?;
    sys::replace_standard_stream(1, null.as_fd())?;
    sys::replace_standard_stream(2, log.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn arguments_are_checked() {
        let options = parse(args(&["/run/x/s", "5"])).unwrap();
        assert_eq!(options.idle, Duration::from_secs(5));
        for bad in [vec![], vec!["/x"], vec!["x", "5"], vec!["/x", "-1"], vec!["/x", "5", "y"]] {
            assert!(parse(args(&bad)).is_err(), "{bad:?}");
        }
        assert!(parse(args(&[&format!("/{}", "x".repeat(108)), "5"])).is_err());
    }

    #[test]
    fn the_directory_must_be_private_and_the_lock_is_exclusive() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(check_directory(&socket).is_err());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(check_directory(&socket).is_ok());
        let held = take_lock(&socket).unwrap();
        assert!(held.is_some());
        assert!(take_lock(&socket).unwrap().is_none());
        drop(held);
        assert!(take_lock(&socket).unwrap().is_some());
    }
}
