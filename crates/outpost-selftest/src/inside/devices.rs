//! Device nodes: making them, finding them, opening them.

use std::path::Path;

use outpost_sandbox::Weakness as W;
use outpost_sandbox::attack;

use super::open_to_write;
use crate::attempt::{Attempt, Tries};
use crate::probe::{Bait, Probe, Proof};
use crate::verdict::Group::Devices;

pub(super) const PROBES: &[Probe] = &[
    Probe::new(Devices, "device.make", "make nodes of memory and of a disk", make, Proof::Outside),
    Probe::new(
        Devices,
        "device.list",
        "find anything in /dev but the eight that programs expect",
        list,
        Proof::Weakened(&[W::Devices]),
    ),
    Probe::new(
        Devices,
        "device.open",
        "open kvm, fuse, mem, kmsg, tun, loop, vsock, disks",
        open,
        Proof::Outside,
    ),
];

const EXPECTED: [&str; 13] = [
    "null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm", "fd", "stdin",
    "stdout", "stderr",
];
const WANTED: [&str; 17] = [
    "kvm",
    "fuse",
    "mem",
    "port",
    "kmsg",
    "net/tun",
    "loop-control",
    "loop0",
    "vsock",
    "vhost-net",
    "userfaultfd",
    "btrfs-control",
    "sda",
    "vda",
    "nvme0n1",
    "mapper/control",
    "dri/renderD128",
];

fn make(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for (name, file, block) in
        [("memory", c"outpost-node-c", false), ("disk", c"outpost-node-b", true)]
    {
        tries.add(name, attack::make_device(file, block));
        let _never_made = file.to_str().map(std::fs::remove_file);
    }
    tries.end()
}

fn list(_: &Bait) -> Attempt {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let foreign: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !EXPECTED.contains(&name.as_str()))
        .take(8)
        .collect();
    Attempt::found((!foreign.is_empty()).then(|| foreign.join(" ")), "only the expected ones")
}

fn open(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for name in WANTED {
        let path = Path::new("/dev").join(name);
        // To read first: where that works, nothing more is done.
        let opened = std::fs::File::open(&path).or_else(|_| open_to_write(&path));
        tries.add(name, opened);
    }
    tries.end()
}
