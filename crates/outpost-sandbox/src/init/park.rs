//! The parked init: waits for one Go, starts the payload, reaps orphans, passes signals on, reports, ends.
//!
//! An init serves one payload and is never used again. When it ends, the kernel ends every process of the sandbox.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};

use super::landlock;
use super::root::is_program;
use crate::sys;
use crate::wire::{self, FromInit, Go, GoAnswer, Peer, ToInit};

/// The ends an init holds.
pub(super) struct Ends {
    /// To the launcher.
    pub(super) control: OwnedFd,
    /// To whoever says Go.
    pub(super) go: OwnedFd,
    /// Write ends of the payload's output; closed here once it runs.
    pub(super) output: Option<(OwnedFd, OwnedFd)>,
    /// Tells of ended children.
    pub(super) children: OwnedFd,
    /// Landlock rules to be in force before the payload starts.
    pub(super) ruleset: Option<OwnedFd>,
}

/// Parks until the end of the sandbox.
pub(super) fn park(mut ends: Ends) -> io::Result<()> {
    let mut payload: Option<Pid> = None;
    loop {
        let ready = {
            let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut fds = vec![watch(ends.control.as_fd()), watch(ends.children.as_fd())];
            if payload.is_none() {
                fds.push(watch(ends.go.as_fd()));
            }
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            [is_ready(0), is_ready(1), is_ready(2)]
        };
        if ready[2] {
            match go(&mut ends)? {
                Some(pid) => payload = Some(pid),
                None => return Ok(()),
            }
        }
        if ready[1] && reap(&ends, payload)? {
            return Ok(());
        }
        if ready[0] && !control(&ends, payload)? {
            return Ok(());
        }
    }
}

/// Handles one message of the launcher. False once it is gone: a sandbox never outlives its launcher.
fn control(ends: &Ends, payload: Option<Pid>) -> io::Result<bool> {
    match wire::receive::<ToInit>(ends.control.as_fd(), Peer::Trusted) {
        Ok(Some((ToInit::Signal { signal }, _))) => {
            if let (Some(payload), Some(signal)) = (payload, Signal::from_named_raw(signal)) {
                // The group may be empty already while its orphans live on.
                let _gone = kill_process_group(payload, signal);
            }
            Ok(true)
        }
        Ok(Some((ToInit::Build | ToInit::Joined, _))) => Ok(true),
        Ok(None) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Reaps all that ended. True if the payload was among them, after reporting it.
fn reap(ends: &Ends, payload: Option<Pid>) -> io::Result<bool> {
    let mut drained = [0_u8; 128];
    let _may_be_empty = rustix::io::read(&ends.children, &mut drained);
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == payload => {
                let report = FromInit::Exited {
                    code: status.exit_status(),
                    signal: status.terminating_signal(),
                };
                wire::send(ends.control.as_fd(), &report, Vec::new())?;
                return Ok(true);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives Go and starts the payload. `None` ends the sandbox: the start failed, and an init has one try.
fn go(ends: &mut Ends) -> io::Result<Option<Pid>> {
    let (go, mut fds) = match wire::receive::<Go>(ends.go.as_fd(), Peer::Trusted) {
        Ok(Some(message)) => message,
        Ok(None) => return Ok(None),
        Err(error) => {
            return fail(ends, format!("the order to start could not be read: {error}"));
        }
    };
    let Some(stdin) = fds.pop() else {
        return fail(ends, "the order to start had no standard input".to_owned());
    };
    let Some((stdout, stderr)) = ends.output.take() else {
        return fail(ends, "this sandbox was used before".to_owned());
    };
    let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let enforced = ends.ruleset.take().map_or(Ok(()), |rules| landlock::enforce(rules.as_fd()));
    let enforced = enforced.map_err(|error| format!("apply Landlock: {error}"));
    match enforced.and_then(|()| start(&go, stdio)) {
        Ok(pid) => {
            wire::send(ends.control.as_fd(), &FromInit::Started, Vec::new())?;
            // The asker may be gone; the launcher knows, and that is what counts.
            let _asker_gone = wire::send(ends.go.as_fd(), &GoAnswer::Started, Vec::new());
            Ok(Some(pid))
        }
        Err(message) => fail(ends, message),
    }
}

fn fail(ends: &Ends, message: String) -> io::Result<Option<Pid>> {
    wire::send(
        ends.control.as_fd(),
        &FromInit::StartFailed { message: message.clone() },
        Vec::new(),
    )?;
    let _asker_gone = wire::send(ends.go.as_fd(), &GoAnswer::Failed { message }, Vec::new());
    Ok(None)
}

fn start(go: &Go, stdio: [BorrowedFd<'_>; 3]) -> Result<Pid, String> {
    let payload = &go.payload;
    let nul = |_| "an argument or variable contains NUL".to_owned();
    let texts = |texts: Vec<Vec<u8>>| {
        texts.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(nul)
    };
    let argv = texts(payload.argv.iter().map(|arg| arg.clone().into_bytes()).collect())?;
    let env = texts(
        payload.env.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect(),
    )?;
    if !std::fs::metadata(&payload.cwd).is_ok_and(|meta| meta.is_dir()) {
        return Err(format!("the working directory {} does not exist inside", payload.cwd));
    }
    let program = find_program(&payload.argv, &payload.env)?;
    let (program_c, cwd) = (
        CString::new(program.clone()).map_err(nul)?,
        CString::new(payload.cwd.clone()).map_err(nul)?,
    );
    let spawn = sys::Spawn { program: &program_c, argv: &argv, env: &env, cwd: &cwd, stdio };
    let pid = sys::spawn(&spawn).map_err(|error| format!("{program}: {error}"))?;
    Pid::from_raw(pid).ok_or_else(|| format!("{program}: no process id"))
}

/// The path of the program: as given, or the first executable of that name in PATH.
fn find_program(argv: &[String], env: &[(String, String)]) -> Result<String, String> {
    let name = argv.first().filter(|name| !name.is_empty()).ok_or("no program was given")?;
    if name.contains('/') {
        return Ok(name.clone());
    }
    let path =
        env.iter().find(|(key, _)| key == "PATH").map_or("/usr/bin:/bin", |(_, value)| value);
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| format!("{dir}/{name}"))
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| {
            format!("{name} was not found in PATH ({path}) inside the sandbox; bind its directory")
        })
}
