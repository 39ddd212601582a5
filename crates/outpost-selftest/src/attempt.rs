//! What an attack came to, and how several tries make one.

use std::fmt::Write as _;
use std::io;

use serde::{Deserialize, Serialize};

/// Longest detail that is kept of an attempt, bytes.
const DETAIL_BYTES_MAX: usize = 400;
/// Most tries that are told one by one.
const TOLD_TRIES_MAX: usize = 6;

/// One attack, as the probe saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The attack did what it must not be able to do.
    pub succeeded: bool,
    /// Error number that the kernel or the filter answered, if one try failed by one.
    pub errno: Option<i32>,
    /// What was found, in words.
    pub detail: String,
}

impl Attempt {
    /// An attack that failed, as it must.
    pub(crate) fn blocked(detail: impl Into<String>) -> Self {
        Self { succeeded: false, errno: None, detail: short(detail.into()) }
    }

    /// An attack that succeeded.
    pub(crate) fn succeeded(detail: impl Into<String>) -> Self {
        Self { succeeded: true, errno: None, detail: short(detail.into()) }
    }

    /// Succeeded if `found` says what was found.
    pub(crate) fn found(found: Option<String>, nothing: &str) -> Self {
        found.map_or_else(|| Self::blocked(nothing), Self::succeeded)
    }
}

/// Several tries of one attack: it succeeds if one does.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    count: usize,
    succeeded: Vec<String>,
    failed: Vec<(String, io::Error)>,
}

impl Tries {
    /// One try.
    pub(crate) fn one<T>(what: &str, result: io::Result<T>) -> Attempt {
        let mut tries = Self::default();
        tries.add(what, result);
        tries.end()
    }

    /// A system call that a filter must refuse: whatever else comes back, the kernel's own code was reached.
    pub(crate) fn filtered<T>(what: &str, result: io::Result<T>) -> Attempt {
        let mut tries = Self::default();
        tries.add_filtered(what, result);
        tries.end()
    }

    /// See [`Self::filtered`].
    pub(crate) fn add_filtered<T>(&mut self, what: &str, result: io::Result<T>) {
        match result {
            Err(error) if !is_refusal(&error) => {
                self.add(&format!("{what} ({})", name(&error)), Ok(()));
            }
            other => self.add(what, other),
        }
    }

    /// One more try; `Ok` is success of the attack.
    pub(crate) fn add<T>(&mut self, what: &str, result: io::Result<T>) {
        self.count += 1;
        match result {
            Ok(_) => self.succeeded.push(what.to_owned()),
            Err(error) => self.failed.push((what.to_owned(), error)),
        }
    }

    /// One more look at something that may be what must not be there.
    pub(crate) fn add_found(&mut self, what: &str, found: bool) {
        self.count += 1;
        if found {
            self.succeeded.push(what.to_owned());
        }
    }

    /// All in one.
    pub(crate) fn end(self) -> Attempt {
        let errno = self.failed.first().and_then(|(_, error)| error.raw_os_error());
        let mut detail = String::new();
        if self.succeeded.is_empty() {
            for (index, (what, error)) in self.failed.iter().take(TOLD_TRIES_MAX).enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _infallible = write!(detail, "{comma}{what}: {}", name(error));
            }
            if self.failed.is_empty() {
                let _infallible = write!(detail, "none among {}", self.count);
            } else if self.failed.len() > TOLD_TRIES_MAX {
                let more = self.failed.len() - TOLD_TRIES_MAX;
                let _infallible = write!(detail, " and {more} more");
            }
        } else {
            detail = self.succeeded.join(", ");
        }
        Attempt { succeeded: !self.succeeded.is_empty(), errno, detail: short(detail) }
    }
}

/// EPERM and ENOSYS are how the filter says no; a family or a call the kernel does not have is no way out either.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::ENOSYS | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
    )
}

fn short(mut text: String) -> String {
    if text.len() > DETAIL_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
        text.push_str(" ...");
    }
    text
}

/// The name that programmers know an error by.
fn name(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => "nothing there".to_owned(),
            kind => kind.to_string(),
        };
    };
    errno_name(number).map_or_else(|| format!("error {number}"), str::to_owned)
}

/// The name of an error number, for those that probes meet.
#[must_use]
pub fn errno_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EEXIST => "EEXIST",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ENFILE => "ENFILE",
        libc::ENOTTY => "ENOTTY",
        libc::EFBIG => "EFBIG",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::ELOOP => "ELOOP",
        libc::ENOSYS => "ENOSYS",
        libc::ENXIO => "ENXIO",
        libc::EIO => "EIO",
        libc::ENOKEY => "ENOKEY",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EDQUOT => "EDQUOT",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_is_a_success_and_a_refusal_is_none() {
        let os = io::Error::from_raw_os_error;
        let mut tries = Tries::default();
        tries.add::<()>("first", Err(os(libc::EACCES)));
        tries.add("second", Ok(()));
        let attempt = tries.end();
        assert!(attempt.succeeded && attempt.detail == "second");
        assert!(!Tries::filtered::<()>("call", Err(os(libc::EPERM))).succeeded);
        assert!(!Tries::filtered::<()>("call", Err(os(libc::ENOSYS))).succeeded);
        let reached = Tries::filtered::<()>("call", Err(os(libc::EFAULT)));
        assert!(reached.succeeded && reached.detail == "call (EFAULT)");
        let failed = Tries::one::<()>("call", Err(os(libc::EACCES)));
        assert_eq!((failed.errno, failed.detail.as_str()), (Some(13), "call: EACCES"));
    }
}
