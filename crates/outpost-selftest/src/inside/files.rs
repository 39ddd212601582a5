//! Other runs' files, leaked descriptors, and the environment.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use outpost_sandbox::{HOST_ROOT_INSIDE, Weakness as W};

use crate::attempt::{Attempt, Tries};
use crate::probe::{Bait, Probe, Proof};
use crate::verdict::Group::{Descriptors, Environment, Files};

/// Highest descriptor that is looked at.
const DESCRIPTORS_MAX: i32 = 1024;
/// How many steps up from the workspace are tried.
const STEPS_UP_MAX: usize = 24;

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        Files,
        "file.read",
        "read a file of another run",
        read,
        Proof::Weakened(&[W::HostRoot]),
    ),
    Probe::new(
        Files,
        "file.write",
        "write to a file of another run, which has the same owner",
        write,
        Proof::Weakened(&[W::HostRoot, W::Landlock]),
    ),
    Probe::new(
        Files,
        "file.link",
        "link another run's file, or a program, into the workspace",
        link,
        Proof::Weakened(&[W::HostRoot, W::Landlock]),
    ),
    Probe::new(
        Files,
        "file.homes",
        "see home directories, keys, logs, configuration of the host",
        homes,
        Proof::Outside,
    ),
    Probe::new(
        Descriptors,
        "descriptor.more",
        "find a descriptor beyond the three standard ones",
        descriptors,
        Proof::Weakened(&[W::Descriptors]),
    ),
    Probe::new(
        Descriptors,
        "descriptor.standard",
        "find a directory, a socket or a terminal among the three",
        standard,
        Proof::Not(
            "the three are made by the launcher itself, a pipe each; no weakness changes that",
        ),
    ),
    Probe::new(
        Environment,
        "environment.more",
        "find a variable that the run was not given",
        variables,
        Proof::Outside,
    ),
];

/// The ways to a host's path that an attack tries.
fn ways(path: &str) -> Vec<PathBuf> {
    let mut ways = vec![
        PathBuf::from(path),
        PathBuf::from(format!("/proc/1/root{path}")),
        PathBuf::from(format!("/proc/self/root{path}")),
        PathBuf::from(format!("{}{path}", HOST_ROOT_INSIDE)),
        PathBuf::from(format!("{}{}", "../".repeat(STEPS_UP_MAX), path.trim_start_matches('/'))),
    ];
    // The other run is beside this one on the host.
    let mut parts = path.rsplit('/').map(str::to_owned).collect::<Vec<_>>();
    parts.truncate(3);
    parts.reverse();
    ways.extend(
        (1..4).map(|steps| PathBuf::from(format!("{}{}", "../".repeat(steps), parts.join("/")))),
    );
    ways
}

fn read(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for way in ways(&bait.neighbour_file) {
        let found = std::fs::read_to_string(&way);
        let found = found.and_then(|text| {
            if text == bait.secret { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        });
        tries.add(&way.to_string_lossy(), found);
    }
    tries.end()
}

fn write(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for way in ways(&bait.neighbour_file) {
        tries.add(&way.to_string_lossy(), super::open_to_write(&way));
    }
    tries.end()
}

fn link(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let target = Path::new(&bait.workspace).join("linked");
    let host = format!("{HOST_ROOT_INSIDE}{}", bait.workspace_on_host);
    for way in ways(&bait.neighbour_file) {
        // A link never crosses mounts, so within a leaked one it goes to the workspace as that one has it.
        let here = if way.starts_with(HOST_ROOT_INSIDE) {
            Path::new(&host).join("linked")
        } else {
            target.clone()
        };
        tries.add(&way.to_string_lossy(), std::fs::hard_link(&way, &here));
        let _never_made = std::fs::remove_file(here);
    }
    for program in ["/usr/bin/su", "/usr/bin/env", "/proc/self/exe"] {
        tries.add(program, std::fs::hard_link(program, &target));
        let _never_made = std::fs::remove_file(&target);
    }
    tries.end()
}

fn homes(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for path in [
        "/root",
        "/etc/shadow",
        "/etc/ssh",
        "/etc/sudoers",
        "/var/log",
        "/var/lib",
        "/boot",
        "/srv/www",
        "/media",
        "/run/user",
        "/run/systemd",
        "/lost+found",
    ] {
        tries.add(path, std::fs::symlink_metadata(path));
    }
    for entry in std::fs::read_dir("/home").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        tries.add_found(&format!("/home/{name}"), name != "agent");
    }
    tries.end()
}

fn descriptors(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for number in 3..DESCRIPTORS_MAX {
        let path = format!("/proc/self/fd/{number}");
        // The one that lists /proc/self/fd would be its own find, so each is asked by name.
        if let Ok(target) = std::fs::read_link(&path) {
            tries.add(&format!("{number} -> {}", target.display()), Ok(()));
        }
    }
    tries.end()
}

fn standard(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for number in 0..3 {
        let meta = std::fs::metadata(format!("/proc/self/fd/{number}"));
        let odd = meta.map_or(true, |meta| {
            let kind = meta.file_type();
            let terminal = kind.is_char_device() && meta.rdev() != libc::makedev(1, 3);
            kind.is_dir() || kind.is_socket() || kind.is_block_device() || terminal
        });
        tries.add_found(&number.to_string(), odd);
    }
    tries.end()
}

fn variables(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        tries.add_found(&name, !bait.variables.contains(&name));
    }
    tries.end()
}
