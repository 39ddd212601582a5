//! /proc and /sys: the host's facts, its switches, its processes.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use outpost_sandbox::Weakness as W;

use super::{me_in_proc, open_to_write, visible_processes};
use crate::attempt::{Attempt, Tries};
use crate::probe::{Bait, Probe, Proof};
use crate::verdict::Group::Proc;

/// Most files below /proc/sys that are tried.
const SWITCHES_MAX: usize = 5_000;
/// Most processes that are looked at.
const PROCESSES_MAX: usize = 2_000;

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        Proc,
        "proc.facts",
        "read kcore, kallsyms, keys, command line, configuration, timers, interrupts",
        facts,
        Proof::Weakened(&[W::ProcCovers]),
    ),
    Probe::new(Proc, "proc.sysrq", "open sysrq-trigger to write", sysrq, Proof::Outside),
    Probe::new(
        Proc,
        "proc.switches",
        "open a file below /proc/sys to write",
        switches,
        Proof::Outside,
    ),
    Probe::new(
        Proc,
        "proc.processes",
        "see a process that is not one's own",
        processes,
        Proof::Weakened(&[W::Processes]),
    ),
    Probe::new(
        Proc,
        "proc.environ",
        "read environment, memory or descriptors of another process",
        environ,
        Proof::Outside,
    ),
    Probe::new(Proc, "proc.root", "reach a root directory through /proc", root, Proof::Outside),
    Probe::new(Proc, "proc.sys", "find /sys, debugfs or a cgroup to write to", sys, Proof::Outside),
];

fn facts(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for name in [
        "kcore",
        "kallsyms",
        "keys",
        "key-users",
        "cmdline",
        "config.gz",
        "interrupts",
        "timer_list",
        "sched_debug",
        "latency_stats",
        "kmsg",
        "acpi",
        "scsi",
        "asound",
    ] {
        let path = Path::new("/proc").join(name);
        let mut byte = [0; 1];
        let read = match std::fs::read_dir(&path) {
            Ok(mut entries) => {
                entries.next().ok_or_else(|| io::ErrorKind::NotFound.into()).map(drop)
            }
            Err(_) => std::fs::File::open(&path).and_then(|mut file| file.read_exact(&mut byte)),
        };
        tries.add(name, read);
    }
    tries.end()
}

fn sysrq(_: &Bait) -> Attempt {
    let path = Path::new("/proc/sysrq-trigger");
    // Where it is covered, what opens is the null device.
    let opened = open_to_write(path).and_then(|file| {
        let covered = file.metadata()?.rdev() == libc::makedev(1, 3);
        if covered { Err(io::Error::from(io::ErrorKind::NotFound)) } else { Ok(()) }
    });
    Tries::one("sysrq-trigger", opened)
}

fn switches(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let mut dirs = vec![PathBuf::from("/proc/sys")];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            seen += 1;
            if seen > SWITCHES_MAX {
                return tries.end();
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path);
            } else {
                tries.add(&path.to_string_lossy(), open_to_write(&path));
            }
        }
    }
    tries.add("/proc/sys itself", std::fs::File::create_new("/proc/sys/kernel/outpost"));
    tries.end()
}

fn processes(_: &Bait) -> Attempt {
    let me = me_in_proc();
    let others: Vec<i32> = visible_processes().into_iter().filter(|pid| *pid != me).collect();
    let found =
        (!others.is_empty()).then(|| format!("{} others, first {}", others.len(), others[0]));
    Attempt::found(found, "only this one")
}

fn environ(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let me = me_in_proc();
    let mut pids = visible_processes();
    pids.extend(1..=4);
    for pid in pids.into_iter().filter(|pid| *pid != me).take(PROCESSES_MAX) {
        let dir = Path::new("/proc").join(pid.to_string());
        let mut byte = [0; 1];
        for name in ["environ", "maps", "mem"] {
            let read = std::fs::File::open(dir.join(name)).and_then(|mut file| match name {
                // Opening it is what is guarded.
                "mem" => Ok(()),
                _ => file.read_exact(&mut byte),
            });
            tries.add(&format!("{name} of {pid}"), read);
        }
        tries.add(&format!("descriptors of {pid}"), std::fs::read_dir(dir.join("fd")));
    }
    tries.end()
}

fn root(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for pid in [1, bait.host_pid] {
        for link in ["root", "cwd"] {
            let path = format!("/proc/{pid}/{link}");
            tries.add(&path, std::fs::read_dir(&path));
        }
    }
    tries.end()
}

fn sys(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for path in [
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/power/state",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/unified/cgroup.procs",
        "/sys/fs/cgroup/memory/cgroup.procs",
        "/sys/fs/cgroup/memory/release_agent",
        "/sys/kernel/debug/sched/debug",
        "/sys/kernel/uevent_helper",
    ] {
        tries.add(path, open_to_write(Path::new(path)));
    }
    tries.end()
}
