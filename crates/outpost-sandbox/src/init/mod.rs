//! Process 1 of a sandbox: builds the root, opens the gateway's listener, gives up everything, parks.
//!
//! It is a fork of the launcher and never returns into it. Until it parks it acts only on the launcher's word; after
//! that it has no privilege left. It cannot be traced or read by the payload although both have the same user id.

pub(crate) mod landlock;
pub(crate) mod overlay;
mod park;
pub(crate) mod root;
mod seal;
pub(crate) mod seccomp;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{DumpableBehavior, Signal};

use crate::spec::{PAYLOAD_ID_INSIDE, SandboxSpec};
use crate::sys;
use crate::userland::Userland;
use crate::weakness::Weakness;
use crate::wire::{self, FromInit, InitFacts, Peer, ToInit};
use root::OpenBind;

/// How long an init waits for the launcher to map its ids. The launcher does that at once or never.
const LAUNCHER_MILLIS_MAX: u32 = 10_000;
/// Connections the gateway's listener queues.
const LISTEN_BACKLOG: i32 = 1024;

/// What the launcher leaves to a new init in the forked memory.
pub(crate) struct Order<'a> {
    pub(crate) spec: &'a SandboxSpec,
    pub(crate) userland: &'a Userland,
    pub(crate) filter: &'a [seccompiler::sock_filter],
    pub(crate) binds: &'a [OpenBind],
    /// No pids cgroup: bound the number of processes by RLIMIT_NPROC, which counts per user namespace.
    pub(crate) limit_processes_by_rlimit: bool,
    /// The launcher's supplementary groups can be dropped (it runs as root).
    pub(crate) drop_groups: bool,
    pub(crate) control: OwnedFd,
    pub(crate) go: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// A step that failed, in words.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
}

/// Names the step of a failed call.
fn at<T, E: Into<io::Error>>(step: &str, result: Result<T, E>) -> Result<T, Failure> {
    result.map_err(|error| Failure { message: format!("{step}: {}", error.into()) })
}

/// The life of an init.
pub(crate) fn run(order: Order<'_>) -> ! {
    let run = std::panic::AssertUnwindSafe(|| live(order));
    // A panic must not unwind into the launcher's frames, which this fork has a copy of.
    let code = std::panic::catch_unwind(run).unwrap_or(70);
    sys::exit_now(code)
}

fn live(order: Order<'_>) -> i32 {
    match build(&order) {
        Ok(built) => {
            let Built { facts, mounts, ruleset, listener, children } = built;
            let copy = ruleset.as_ref().map(OwnedFd::try_clone).transpose();
            let Ok(copy) = copy else { return 1 };
            // The order that FromInit::Ready says.
            let fds = [Some(mounts), copy, listener].into_iter().flatten().collect();
            let ruleset = ruleset.filter(|_| !order.spec.lacks(Weakness::NewPrivileges));
            let Order { control, go, stdout, stderr, .. } = order;
            if wire::send(control.as_fd(), &FromInit::Ready { facts }, fds).is_err() {
                return 1;
            }
            let output = Some((stdout, stderr));
            let ends = park::Ends { control, go, output, children, ruleset };
            i32::from(park::park(ends).is_err())
        }
        Err(failure) => {
            let _launcher_gone = wire::send(
                order.control.as_fd(),
                &FromInit::Failed { message: failure.message },
                Vec::new(),
            );
            1
        }
    }
}

/// What a built sandbox has.
struct Built {
    facts: InitFacts,
    /// Its mount namespace, for a claim.
    mounts: OwnedFd,
    /// Its Landlock rules.
    ruleset: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    children: OwnedFd,
}

fn build(order: &Order<'_>) -> Result<Built, Failure> {
    let mut keep: Vec<i32> = order.binds.iter().flat_map(OpenBind::descriptors).collect();
    keep.extend([&order.control, &order.go, &order.stdout, &order.stderr].map(AsRawFd::as_raw_fd));
    at("close foreign descriptors", sys::close_all_but(&keep))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    await_launcher(order, |said| matches!(said, ToInit::Build))?;
    become_agent(order)?;
    at("set the host name", rustix::system::sethostname(b"outpost"))?;
    if order.spec.lacks(Weakness::Descriptors) {
        at("leave a descriptor open", sys::leave_root_open())?;
    }
    let hidepid = root::enter(order)?;
    let mounts = std::fs::File::open("/proc/self/ns/mnt").map(OwnedFd::from);
    let mounts = at("open the mount namespace", mounts)?;
    if !order.spec.lacks(Weakness::Network) {
        at("bring loopback up", sys::loopback_up())?;
    }
    let listener = order.spec.listener_port.map(listen).transpose()?;
    // The cgroup namespace is made only now, after the launcher has put this process into its cgroups, so that
    // /proc/self/cgroup shows nothing of the host's hierarchy.
    await_launcher(order, |said| matches!(said, ToInit::Joined))?;
    at("make a cgroup namespace", sys::unshare(libc::CLONE_NEWCGROUP))?;
    let children = at("watch children", sys::child_signal_fd())?;
    // Init has it from the launcher; a payload starts with the usual one.
    sys::set_slice(sys::Slice::ShortAlone);
    let rules = seal::seal(order)?;
    let facts = InitFacts { landlock_abi: rules.as_ref().map(|rules| rules.abi), hidepid };
    let ruleset = rules.map(|rules| rules.ruleset);
    Ok(Built { facts, mounts, ruleset, listener, children })
}

fn await_launcher(order: &Order<'_>, awaited: fn(&ToInit) -> bool) -> Result<(), Failure> {
    let control = order.control.as_fd();
    at("wait for the launcher", sys::readable_within(control, LAUNCHER_MILLIS_MAX))?;
    match at("wait for the launcher", wire::receive::<ToInit>(control, Peer::Trusted))? {
        Some((said, _)) if awaited(&said) => Ok(()),
        _ => Err(Failure { message: "the launcher gave up".to_owned() }),
    }
}

/// Takes the payload's ids, then ties its life to the launcher's.
fn become_agent(order: &Order<'_>) -> Result<(), Failure> {
    use rustix::process::{Gid, Uid};
    if order.drop_groups {
        at("drop groups", rustix::thread::set_thread_groups(&[]))?;
    }
    let (uid, gid) = (Uid::from_raw(PAYLOAD_ID_INSIDE), Gid::from_raw(PAYLOAD_ID_INSIDE));
    at("set group id", rustix::thread::set_thread_res_gid(gid, gid, gid))?;
    at("set user id", rustix::thread::set_thread_res_uid(uid, uid, uid))?;
    // Changing ids clears the death signal, so it is set after. If the launcher died before, its end is closed, which
    // is noticed when more is awaited from it, or when this process parks.
    let deadly = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    at("tie life to the launcher", deadly)?;
    at("forbid tracing", rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    at("start a session", rustix::process::setsid())?;
    Ok(())
}

/// The gateway's door: a listener that exists inside, and is accepted from outside.
fn listen(port: u16) -> Result<OwnedFd, Failure> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
    let open = || -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        listen(&socket, LISTEN_BACKLOG)?;
        Ok(socket)
    };
    at(&format!("listen on port {port}"), open())
}
