//! Makes one sandbox: groups, one clone3, id maps. The rest of the work is the new init's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::FileType;
use rustix::pipe::{PipeFlags, pipe_with};

use super::cgroup::Group;
use super::host::{Host, userns_hint};
use super::meter::Disks;
use crate::error::Refusal;
use crate::init::overlay::Layers;
use crate::init::root::{OpenBind, Source, copy_callers_mount};
use crate::init::{self, Order};
use crate::spec::{Bind, Owner, PAYLOAD_ID_INSIDE, SandboxSpec};
use crate::sys::{self, Side};
use crate::weakness::Weakness;
use crate::wire::{self, ToInit};

/// All namespaces but the cgroup one, which init makes once it is in its cgroups.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// The namespaces of `spec`: all, but for a proof.
fn namespaces(spec: &SandboxSpec) -> i32 {
    let shared =
        [(Weakness::Network, libc::CLONE_NEWNET), (Weakness::Processes, libc::CLONE_NEWPID)];
    shared.iter().filter(|(off, _)| spec.lacks(*off)).fold(NAMESPACES, |all, (_, flag)| all & !flag)
}

/// A sandbox whose init has been told to build.
#[derive(Debug)]
pub(super) struct Newborn {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) go: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) group: Group,
    /// What may be written.
    pub(super) disks: Disks,
}

/// Starts the init of `spec`, which was validated. Nothing stays behind on failure.
pub(super) fn give_birth(host: &mut Host, spec: &SandboxSpec) -> Result<Newborn, Refusal> {
    let owner = payload_owner(host, spec)?;
    let binds = open_binds(&spec.binds, spec.lacks(Weakness::Links))?;
    let failed =
        |step: &str, error: io::Error| Refusal::Build { message: format!("{step}: {error}") };
    let group = host
        .cgroups
        .create(&spec.id, &spec.limits)
        .map_err(|error| failed("make cgroups", error))?;
    let disks = match Disks::of(&binds) {
        Ok(disks) => disks,
        Err(error) => {
            host.cgroups.remove(group);
            return Err(failed("open read-write binds", error));
        }
    };
    let (mut newborn, leftover) = match clone_init(host, spec, &binds, group) {
        Ok(newborn) => newborn,
        Err((group, error)) => {
            host.cgroups.remove(group);
            return Err(Refusal::Build { message: userns_hint(&error) });
        }
    };
    drop(leftover);
    newborn.disks = disks;
    match introduce(host, &mut newborn, owner, spec) {
        Ok(()) => Ok(newborn),
        Err((step, error)) => {
            abandon(host, newborn);
            Err(failed(step, error))
        }
    }
}

/// Who the payload is on the host.
fn payload_owner(host: &Host, spec: &SandboxSpec) -> Result<Owner, Refusal> {
    match spec.payload_owner {
        None => Ok(host.payload_owner),
        Some(owner) if !host.rootless || owner == host.payload_owner => Ok(owner),
        Some(_) => Err(Refusal::InvalidSpec {
            message: "payload_owner can be chosen only when Outpost runs as root; leave it out"
                .to_owned(),
        }),
    }
}

/// Opens binds in their order.
pub(super) fn open_binds(binds: &[Bind], through_links: bool) -> Result<Vec<OpenBind>, Refusal> {
    binds.iter().map(|bind| open_bind(bind, through_links)).collect()
}

/// Opens a bind while the launcher's rights still apply: its parents may be closed to the payload.
fn open_bind(bind: &Bind, through_links: bool) -> Result<OpenBind, Refusal> {
    let shown = bind.host.display();
    let refuse = |message: String| Refusal::InvalidSpec { message };
    let cannot = |error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::ELOOP) => "it leads through a symbolic link; give the real path",
            _ if bind.overlay.is_some() => "all layers must exist and be readable by Outpost",
            _ => "the path must exist and be readable by Outpost",
        };
        refuse(format!("bind {shown}: {error}; {hint}"))
    };
    let (inside, access) = (bind.inside.clone(), bind.access);
    if let Some(overlay) = &bind.overlay {
        let layers = Layers::open(bind, overlay, through_links).map_err(cannot)?;
        return Ok(OpenBind { source: Source::Overlay(layers), inside, access });
    }
    let (mount, kind) = copy_callers_mount(&bind.host, through_links).map_err(cannot)?;
    if !matches!(kind, FileType::Directory | FileType::RegularFile) {
        return Err(refuse(format!(
            "bind {shown}: only directories and regular files can be bound"
        )));
    }
    Ok(OpenBind { source: Source::Mount { mount, is_dir: kind.is_dir() }, inside, access })
}

/// The init's ends of sockets and pipes; dropping them in the launcher makes the init the only holder.
type InitEnds = (OwnedFd, OwnedFd, OwnedFd, OwnedFd);

fn clone_init(
    host: &Host,
    spec: &SandboxSpec,
    binds: &[OpenBind],
    group: Group,
) -> Result<(Newborn, InitEnds), (Group, io::Error)> {
    let ends = || -> io::Result<_> {
        let (control, init_control) = wire::pair()?;
        let (go, init_go) = wire::pair()?;
        let (stdout, init_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, init_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let placement = group.placement()?;
        Ok((
            (control, go, stdout, stderr),
            (init_control, init_go, init_stdout, init_stderr),
            placement,
        ))
    };
    let ((control, go, stdout, stderr), init_ends, placement) = match ends() {
        Ok(all) => all,
        Err(error) => return Err((group, error)),
    };
    match sys::clone3(namespaces(spec), placement.as_ref().map(AsFd::as_fd)) {
        Ok(Side::Child) => {
            let (control, go, stdout, stderr) = init_ends;
            init::run(Order {
                spec,
                userland: &host.userland,
                filter: &host.filter,
                binds,
                limit_processes_by_rlimit: !host.cgroups.limits_pids(),
                drop_groups: !host.rootless,
                control,
                go,
                stdout,
                stderr,
            })
        }
        Ok(Side::Parent { pid, pidfd }) => {
            let disks = Disks::default();
            Ok((Newborn { pid, pidfd, control, go, stdout, stderr, group, disks }, init_ends))
        }
        Err(error) => Err((group, error)),
    }
}

/// Maps the ids and says Build; joins the groups meanwhile, which takes the kernel milliseconds at times.
fn introduce(
    host: &Host,
    newborn: &mut Newborn,
    owner: Owner,
    spec: &SandboxSpec,
) -> Result<(), (&'static str, io::Error)> {
    let proc = Path::new("/proc").join(newborn.pid.to_string());
    if host.rootless {
        std::fs::write(proc.join("setgroups"), "deny")
            .map_err(|error| ("forbid setgroups", error))?;
    }
    let map = |file: &str, id: u32| {
        std::fs::write(proc.join(file), format!("{PAYLOAD_ID_INSIDE} {id} 1\n"))
    };
    map("uid_map", owner.uid).map_err(|error| ("map the user id", error))?;
    map("gid_map", owner.gid).map_err(|error| ("map the group id", error))?;
    let say = |newborn: &Newborn, what: &ToInit| {
        let said = wire::send(newborn.control.as_fd(), what, Vec::new());
        said.map_err(|error| ("talk to init", error))
    };
    say(newborn, &ToInit::Build)?;
    let joined = host.cgroups.join(&mut newborn.group, &spec.limits, newborn.pid);
    joined.map_err(|error| ("join cgroups", error))?;
    say(newborn, &ToInit::Joined)
}

/// Ends an init that never got to work, and waits for it: SIGKILL of a blocked process takes microseconds.
fn abandon(host: &mut Host, newborn: Newborn) {
    let _already_dead =
        rustix::process::pidfd_send_signal(&newborn.pidfd, rustix::process::Signal::KILL);
    let _timed_out = sys::readable_within(newborn.pidfd.as_fd(), super::KILL_MILLIS_MAX);
    let _not_ours = sys::reap(newborn.pid);
    host.cgroups.remove(newborn.group);
}
