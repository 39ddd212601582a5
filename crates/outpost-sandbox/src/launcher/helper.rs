//! A fork of the launcher that does one piece of work in other namespaces, which no process can leave again.
//!
//! The launcher waits for it, and does nothing else meanwhile: bounded by [`HELPER_MILLIS_MAX`], after which the fork is
//! killed. Its work is a few system calls; the bound is for a disk that does not answer.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use super::KILL_MILLIS_MAX;
use crate::sys;

/// How long a helper may take.
const HELPER_MILLIS_MAX: u32 = 2_000;
/// Longest reason of a failure, bytes.
const REASON_BYTES_MAX: usize = 1_024;

/// Runs `work` in a fork that has no descriptors but standard ones and `keep`. The caller has one thread, as for
/// [`sys::clone3`].
///
/// # Errors
/// What `work` said, or why it came to no end.
pub(super) fn run(keep: &[RawFd], work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let (reason, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| text(error.into()))?;
    match sys::clone3(0, None).map_err(text)? {
        sys::Side::Child => {
            let keep: Vec<RawFd> = keep.iter().copied().chain([tell.as_raw_fd()]).collect();
            let all = || sys::close_all_but(&keep).map_err(text).and_then(|()| work());
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(all));
            let failure = match ended {
                Ok(Ok(())) => sys::exit_now(0),
                Ok(Err(failure)) => failure,
                Err(_) => "the helper panicked".to_owned(),
            };
            let end = failure.floor_char_boundary(REASON_BYTES_MAX);
            let _launcher_gone = std::fs::File::from(tell).write_all(&failure.as_bytes()[..end]);
            sys::exit_now(1)
        }
        sys::Side::Parent { pid, pidfd } => {
            drop(tell);
            let in_time = sys::readable_within(pidfd.as_fd(), HELPER_MILLIS_MAX).unwrap_or(false);
            if !in_time {
                let _ended_just_now = pidfd_send_signal(&pidfd, Signal::KILL);
                let _stuck = sys::readable_within(pidfd.as_fd(), KILL_MILLIS_MAX);
            }
            match sys::reap(pid).map_err(text)? {
                Some(reaped) if in_time && reaped.status == 0 => Ok(()),
                _ if !in_time => Err(format!("it took more than {HELPER_MILLIS_MAX} ms")),
                _ => {
                    let mut failure = String::new();
                    let said = std::fs::File::from(reason).take(REASON_BYTES_MAX as u64);
                    let _said_nothing = { said }.read_to_string(&mut failure);
                    Err(if failure.is_empty() { "the helper died".to_owned() } else { failure })
                }
            }
        }
    }
}
