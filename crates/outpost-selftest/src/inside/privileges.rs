//! Capabilities, ids, `no_new_privs`, setuid programs, and the namespaces a process is in or could make.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::process::Command;

use outpost_sandbox::Weakness as W;
use outpost_sandbox::attack;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{WHO_AM_I, status};
use crate::attempt::{Attempt, Tries};
use crate::probe::{Bait, PROBE_ARGUMENT, Probe, Proof};
use crate::verdict::Group::{Namespaces, Privileges};

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        Privileges,
        "privilege.capabilities",
        "hold a capability in any of the five sets",
        capabilities,
        Proof::Weakened(&[W::Capabilities]),
    ),
    Probe::new(
        Privileges,
        "privilege.regain",
        "take a capability back, or hand it to a program",
        regain,
        Proof::Weakened(&[W::Capabilities]),
    ),
    Probe::new(Privileges, "privilege.root", "be or become user 0", root, Proof::Outside),
    Probe::new(
        Privileges,
        "privilege.new",
        "find no_new_privs unset",
        no_new_privs,
        Proof::Weakened(&[W::NewPrivileges]),
    ),
    Probe::new(
        Privileges,
        "privilege.filter",
        "find no system call filter",
        filter,
        Proof::Weakened(&[W::Filter]),
    ),
    Probe::new(
        Privileges,
        "privilege.setuid-program",
        "run a setuid program of root's",
        setuid_program,
        Proof::OutsideAsUser,
    ),
    Probe::new(
        Privileges,
        "privilege.setuid-mount",
        "find a mount that honours setuid bits",
        setuid_mount,
        Proof::Weakened(&[W::SetuidBits]),
    ),
    Probe::new(
        Namespaces,
        "namespace.shared",
        "share a namespace with the host",
        shared,
        Proof::Weakened(&[W::Network]),
    ),
    Probe::new(
        Namespaces,
        "namespace.user",
        "make a user namespace by unshare",
        user_namespace,
        Proof::Weakened(&[W::Filter]),
    ),
    Probe::new(
        Namespaces,
        "namespace.clone",
        "make one by clone",
        |_| Tries::one("clone", attack::clone_user_namespace(false)),
        Proof::Weakened(&[W::Filter]),
    ),
    Probe::new(
        Namespaces,
        "namespace.clone3",
        "make one by clone3, whose flags a filter cannot read",
        |_| Tries::one("clone3", attack::clone_user_namespace(true)),
        Proof::Weakened(&[W::Filter]),
    ),
    Probe::new(
        Namespaces,
        "namespace.others",
        "make any of the other kinds",
        other_namespaces,
        Proof::Weakened(&[W::Filter, W::Capabilities]),
    ),
    Probe::new(
        Namespaces,
        "namespace.nested",
        "mount by the rights of a nested user namespace",
        nested,
        Proof::Weakened(&[W::Filter, W::Landlock]),
    ),
];

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

fn capabilities(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for set in SETS {
        let value = status(set);
        let found = value.as_ref().map_or(true, |value| value.bytes().any(|byte| byte != b'0'));
        tries.add_found(&format!("{set} {}", value.unwrap_or_default()), found);
    }
    tries.end()
}

fn regain(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    let one = CapabilitySet::SYS_ADMIN;
    let all = CapabilitySets { effective: one, permitted: one, inheritable: one };
    tries.add("capset", rustix::thread::set_capabilities(None, all).map_err(io::Error::from));
    let ambient = rustix::thread::configure_capability_in_ambient_set(one, true);
    tries.add("ambient set", ambient.map_err(io::Error::from));
    tries.end()
}

fn root(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    tries.add_found("user id 0", rustix::process::geteuid().is_root());
    tries.add("setresuid", attack::become_user(0));
    tries.end()
}

fn no_new_privs(_: &Bait) -> Attempt {
    let set = status("NoNewPrivs").is_ok_and(|value| value == "1");
    Attempt::found((!set).then(|| "NoNewPrivs is 0".to_owned()), "NoNewPrivs is 1")
}

fn filter(_: &Bait) -> Attempt {
    let on = status("Seccomp").is_ok_and(|value| value == "2");
    Attempt::found((!on).then(|| "Seccomp is not 2".to_owned()), "Seccomp is 2")
}

fn setuid_program(bait: &Bait) -> Attempt {
    let Some(program) = &bait.setuid_program else {
        return Attempt::blocked("no such program");
    };
    let me = super::who_am_i();
    match Command::new(program)
        .args([PROBE_ARGUMENT, WHO_AM_I, crate::probe::OUTSIDE_ARGUMENT])
        .output()
    {
        Ok(output) => {
            let them = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let changed = !them.is_empty() && them != me;
            Attempt::found(
                changed.then(|| format!("ran as user {them}")),
                "it ran as who started it",
            )
        }
        Err(error) => Tries::one::<()>("execute", Err(error)),
    }
}

fn setuid_mount(_: &Bait) -> Attempt {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lax: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(4);
            let (place, options) = (fields.next()?, fields.next()?);
            (!options.split(',').any(|option| option == "nosuid")).then_some(place)
        })
        .collect();
    let found = (!lax.is_empty() || mounts.is_empty()).then(|| lax.join(", "));
    Attempt::found(found, "all mounts are nosuid")
}

fn shared(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for (name, theirs) in &bait.namespaces {
        let ours = std::fs::read_link(Path::new("/proc/self/ns").join(name));
        tries.add_found(name, ours.is_ok_and(|ours| ours.as_os_str() == theirs.as_str()));
    }
    tries.end()
}

fn user_namespace(_: &Bait) -> Attempt {
    Tries::one("unshare", attack::unshare(libc::CLONE_NEWUSER))
}

fn other_namespaces(_: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for (name, flag) in [
        ("mount", libc::CLONE_NEWNS),
        ("pid", libc::CLONE_NEWPID),
        ("network", libc::CLONE_NEWNET),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
    ] {
        tries.add(name, attack::unshare(flag));
    }
    tries.end()
}

fn nested(bait: &Bait) -> Attempt {
    let mount = || -> io::Result<()> {
        attack::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
        attack::mount_over(&CString::new(bait.workspace.clone())?)
    };
    Tries::one("mount", mount())
}
