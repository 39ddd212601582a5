//! The attacks, by what they are after. Each function runs inside the sandbox, once, in a process of its own.
//!
//! Bounded: every walk, loop and wait has a count. Deliberately absent: anything that would last on a host where it
//! succeeds, since each is also run where it must succeed.

mod calls;
mod devices;
mod files;
mod floods;
mod mounts;
mod network;
mod privileges;
mod proc;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::probe::Probe;

/// All probes by group, in the order they are shown.
pub(crate) const ALL: &[&[Probe]] = &[
    privileges::PROBES,
    calls::PROBES,
    devices::PROBES,
    proc::PROBES,
    mounts::PROBES,
    files::PROBES,
    network::PROBES,
    floods::PROBES,
];

/// The name by which a setuid copy of this program is asked who it runs as.
pub(crate) const WHO_AM_I: &str = "who-am-i";

/// Most times that two names are swapped: the host ends it long before.
const SWAPS_MAX: u64 = 1 << 32;

/// Does what an attack needs done besides, if that is what the arguments ask for.
pub(crate) fn help(arguments: &[OsString]) -> Option<Result<String, String>> {
    let word = |index: usize| arguments.get(index).and_then(|word| word.to_str());
    let text = |error: io::Error| error.to_string();
    match (word(0)?, word(1), word(2)) {
        (WHO_AM_I, ..) => Some(Ok(who_am_i())),
        ("connect", Some(port), _) => Some(
            std::net::TcpStream::connect(format!("127.0.0.1:{port}"))
                .map(|_| String::new())
                .map_err(text),
        ),
        ("swap", Some(one), Some(other)) => Some(swap(one, other).map_err(text)),
        _ => None,
    }
}

fn swap(one: &str, other: &str) -> io::Result<String> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    for _ in 0..SWAPS_MAX {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    }
    Ok(String::new())
}

fn who_am_i() -> String {
    rustix::process::geteuid().as_raw().to_string()
}

/// The value of a field of `/proc/self/status`.
fn status(field: &str) -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Opens for writing, neither making nor changing anything.
fn open_to_write(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).open(path)
}

/// The numbers among the names in /proc.
fn visible_processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// This process's number in the /proc it sees, which may be another pid namespace's.
fn me_in_proc() -> i32 {
    let link = std::fs::read_link("/proc/self").ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or(-1)
}
