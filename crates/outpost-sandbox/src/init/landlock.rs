//! Landlock as a second layer behind the mount namespace: even if a mount were wrong, writing works only where the
//! sandbox means it to, and signals and abstract sockets stay inside.
//!
//! The rules are made when the sandbox is built and come into force at the start of the payload, since a claim adds to
//! them and rules in force can only be narrowed.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use crate::sys::landlock as sys;

// Access bits from `linux/landlock.h`.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Bits 0 to 12: all that ABI 1 knows.
const ABI_1_ALL: u64 = (1 << 13) - 1;
/// What may be granted on something that is not a directory.
const ON_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
const SCOPE_ALL: u64 = 0b11;

/// Rules that are not in force yet.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) ruleset: OwnedFd,
    pub(super) abi: u32,
}

/// What a kernel with this ABI can be asked to check.
fn handled(abi: u32) -> u64 {
    let newer = [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)];
    newer.iter().filter(|(since, _)| abi >= *since).fold(ABI_1_ALL, |all, (_, bit)| all | bit)
}

/// Reading and executing everywhere, changing only below `writable`. `None` if the kernel has no Landlock.
pub(super) fn rules(writable: &[&str]) -> io::Result<Option<Rules>> {
    let Some(abi) = sys::abi() else {
        return Ok(None);
    };
    let scoped = if abi >= 6 { SCOPE_ALL } else { 0 };
    let known = match abi {
        1..=3 => 8,
        4..=5 => 16,
        _ => 24,
    };
    let attr = sys::RulesetAttr { handled_access_fs: handled(abi), handled_access_net: 0, scoped };
    let ruleset = sys::create(&attr, known)?;
    let open = |path: &str| openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    for (path, access) in [
        ("/", EXECUTE | READ_FILE | READ_DIR),
        ("/proc", WRITE_FILE | TRUNCATE),
        ("/dev", WRITE_FILE | TRUNCATE | IOCTL_DEV),
    ] {
        sys::allow(ruleset.as_fd(), open(path)?.as_fd(), access & handled(abi))?;
    }
    for path in writable {
        allow(ruleset.as_fd(), &open(path)?)?;
    }
    Ok(Some(Rules { ruleset, abi }))
}

/// Allows everything on and below `at`.
pub(crate) fn allow(ruleset: BorrowedFd<'_>, at: &OwnedFd) -> io::Result<()> {
    let is_dir = FileType::from_raw_mode(fstat(at)?.st_mode).is_dir();
    let access = handled(sys::abi().unwrap_or(1)) & if is_dir { u64::MAX } else { ON_FILES };
    sys::allow(ruleset, at.as_fd(), access)
}

/// Restricts this process and all that it will start. It must have `no_new_privs`, or a capability.
pub(super) fn enforce(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    sys::restrict_self(ruleset)
}
