//! Landlock as a second layer behind the mount namespace: even if a mount were wrong, writing works only where the
//! sandbox means it to, and signals and abstract sockets stay inside.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

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

/// Restricts this process: reading and executing everywhere, changing only below `writable`.
///
/// Returns the ABI version used, or `None` if the kernel has no Landlock.
pub(super) fn restrict(writable: &[&str]) -> io::Result<Option<u32>> {
    let Some(abi) = sys::abi() else {
        return Ok(None);
    };
    let mut handled = ABI_1_ALL;
    for (since, bit) in [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)] {
        if abi >= since {
            handled |= bit;
        }
    }
    let scoped = if abi >= 6 { SCOPE_ALL } else { 0 };
    let known = match abi {
        1..=3 => 8,
        4..=5 => 16,
        _ => 24,
    };
    let attr = sys::RulesetAttr { handled_access_fs: handled, handled_access_net: 0, scoped };
    let ruleset = sys::create(&attr, known)?;
    let allow = |path: &str, access: u64| -> io::Result<()> {
        let at = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let is_dir = rustix::fs::FileType::from_raw_mode(fstat(&at)?.st_mode).is_dir();
        let access = access & handled & if is_dir { u64::MAX } else { ON_FILES };
        sys::allow(ruleset.as_fd(), at.as_fd(), access)
    };
    allow("/", EXECUTE | READ_FILE | READ_DIR)?;
    allow("/proc", WRITE_FILE | TRUNCATE)?;
    allow("/dev", WRITE_FILE | TRUNCATE | IOCTL_DEV)?;
    for path in writable {
        allow(path, u64::MAX)?;
    }
    sys::restrict_self(ruleset.as_fd())?;
    Ok(Some(abi))
}
