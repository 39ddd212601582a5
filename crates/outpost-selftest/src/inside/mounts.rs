//! Mounts: changing them, and finding more of the host than was shown.

use std::ffi::CString;
use std::io;
use std::path::Path;

use outpost_sandbox::attack;
use outpost_sandbox::{HOST_ROOT_INSIDE, Weakness as W};

use crate::attempt::{Attempt, Tries};
use crate::probe::{Bait, Probe, Proof};
use crate::verdict::Group::Mounts;

/// All that keeps a process from mounting.
const ALL: Proof = Proof::Weakened(&[W::Filter, W::Capabilities, W::Landlock]);

pub(super) const PROBES: &[Probe] = &[
    Probe::new(Mounts, "mount.over", "mount a file system over the workspace", over, ALL),
    Probe::new(Mounts, "mount.bind", "bind /usr over the workspace", bind, ALL),
    Probe::new(Mounts, "mount.remount", "make /usr writable again", remount, ALL),
    Probe::new(Mounts, "mount.uncover", "take covers off /proc", uncover, ALL),
    Probe::new(
        Mounts,
        "mount.root",
        "write to /, /usr, /etc, /proc, /dev",
        write_root,
        Proof::Weakened(&[W::WritableRoot, W::Landlock]),
    ),
    Probe::new(
        Mounts,
        "mount.read-only",
        "write to what is bound read-only",
        write_bind,
        Proof::Weakened(&[W::WritableBinds, W::Landlock]),
    ),
    Probe::new(
        Mounts,
        "mount.leaked",
        "find a mount that was not asked for",
        leaked,
        Proof::Weakened(&[W::HostRoot]),
    ),
];

fn text(path: &str) -> io::Result<CString> {
    Ok(CString::new(path)?)
}

fn over(bait: &Bait) -> Attempt {
    Tries::one("mount", text(&bait.workspace).and_then(|path| attack::mount_over(&path)))
}

fn bind(bait: &Bait) -> Attempt {
    Tries::one("mount", text(&bait.workspace).and_then(|path| attack::bind_over(c"/usr", &path)))
}

fn remount(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    tries.add("mount", attack::remount_writable(c"/usr"));
    tries.add("mount_setattr", attack::clear_read_only(c"/usr"));
    tries.end()
}

fn uncover(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for path in [c"/proc/cmdline", c"/proc/timer_list", c"/proc/sys"] {
        tries.add(&path.to_string_lossy(), attack::unmount(path));
    }
    tries.end()
}

fn write_root(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for dir in [
        "/",
        "/usr",
        "/usr/bin",
        "/etc",
        "/proc",
        "/dev",
        "/home",
        "/run",
        "/var",
        "/mnt",
        "/workspace",
    ] {
        let path = Path::new(dir).join("outpost-written");
        tries.add(dir, std::fs::write(path, "x"));
    }
    tries.add("rename /etc", std::fs::rename("/etc", "/etc-outpost"));
    tries.add("/etc/passwd", super::open_to_write(Path::new("/etc/passwd")));
    tries.end()
}

fn write_bind(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let mirror = Path::new(&bait.mirror);
    tries.add("an open file", super::open_to_write(&mirror.join("open-to-all")));
    tries.add("a new file", std::fs::write(mirror.join("new"), "x"));
    tries.add("a rename", std::fs::rename(mirror.join("open-to-all"), mirror.join("renamed")));
    tries.end()
}

/// Where mounts may be: at these places or below those that end with a slash.
const PLACES: [&str; 19] = [
    "/",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/",
    "/proc",
    "/proc/",
    "/dev/",
    "/tmp",
    "/home/agent",
    "/workspace/",
    "/srv/mirror",
    "/opt/outpost-probe",
    "/opt/outpost-setuid",
    "/usr/",
];

fn leaked(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    tries.add_found("no list of mounts", mounts.is_empty());
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        let known = PLACES.iter().any(|known| {
            if known.len() > 1 && known.ends_with('/') {
                place.starts_with(known)
            } else {
                place == *known
            }
        });
        tries.add_found(place, !known);
    }
    tries.add(HOST_ROOT_INSIDE, std::fs::read_dir(HOST_ROOT_INSIDE));
    tries.end()
}
