//! System calls that administer a machine, reach into other processes, or have a long record of holes.

use std::io;

use outpost_sandbox::Weakness as W;
use outpost_sandbox::attack::{self, Call};

use crate::attempt::{Attempt, Tries};
use crate::probe::{Bait, Probe, Proof};
use crate::verdict::Group::Calls;

/// The filter alone is in the way.
const FILTER: Proof = Proof::Weakened(&[W::Filter]);
/// So are the missing capabilities.
const BOTH: Proof = Proof::Weakened(&[W::Filter, W::Capabilities]);

pub(super) const PROBES: &[Probe] = &[
    Probe::call("call.acct", "acct", Call::Acct, Proof::Outside),
    Probe::call("call.add-key", "add_key", Call::AddKey, FILTER),
    Probe::call("call.bpf", "bpf", Call::Bpf, Proof::Outside),
    Probe::call("call.chroot", "chroot", Call::Chroot, BOTH),
    Probe::call("call.clock-settime", "clock_settime", Call::ClockSettime, FILTER),
    Probe::call("call.delete-module", "delete_module", Call::DeleteModule, Proof::Outside),
    Probe::call("call.fanotify-init", "fanotify_init", Call::FanotifyInit, FILTER),
    Probe::call("call.finit-module", "finit_module", Call::FinitModule, Proof::Outside),
    Probe::call("call.fsopen", "fsopen", Call::Fsopen, BOTH),
    Probe::call("call.init-module", "init_module", Call::InitModule, Proof::Outside),
    Probe::call("call.io-uring", "io_uring_setup", Call::IoUringSetup, FILTER),
    #[cfg(target_arch = "x86_64")]
    Probe::call("call.iopl", "iopl", Call::Iopl, FILTER),
    Probe::call("call.kcmp", "kcmp", Call::Kcmp, FILTER),
    Probe::call("call.kexec-load", "kexec_load", Call::KexecLoad, Proof::Outside),
    Probe::call("call.keyctl", "keyctl", Call::Keyctl, FILTER),
    #[cfg(target_arch = "x86_64")]
    Probe::call("call.modify-ldt", "modify_ldt", Call::ModifyLdt, FILTER),
    Probe::call("call.open-tree", "open_tree", Call::OpenTree, BOTH),
    Probe::call(
        "call.open-tree-attr",
        "open_tree_attr, a call newer than the filter",
        Call::OpenTreeAttr,
        FILTER,
    ),
    Probe::call("call.perf-event-open", "perf_event_open", Call::PerfEventOpen, FILTER),
    Probe::call(
        "call.personality",
        "personality: readable memory is executable",
        Call::Personality,
        FILTER,
    ),
    Probe::call("call.pivot-root", "pivot_root", Call::PivotRoot, BOTH),
    Probe::call("call.quotactl", "quotactl", Call::Quotactl, FILTER),
    Probe::call("call.reboot", "reboot", Call::Reboot, BOTH),
    Probe::call("call.request-key", "request_key", Call::RequestKey, FILTER),
    Probe::call("call.sethostname", "sethostname", Call::Sethostname, BOTH),
    Probe::call("call.setns", "setns", Call::Setns, FILTER),
    Probe::call("call.swapon", "swapon", Call::Swapon, Proof::Outside),
    Probe::call("call.syslog", "syslog", Call::Syslog, Proof::Outside),
    Probe::call("call.userfaultfd", "userfaultfd", Call::Userfaultfd, FILTER),
    Probe::new(
        Calls,
        "call.open-by-handle",
        "open_by_handle_at, past all mounts",
        |_| Tries::one("open_by_handle_at", attack::open_by_handle()),
        Proof::Outside,
    ),
    Probe::new(
        Calls,
        "call.read-memory",
        "process_vm_readv of init and of a host process",
        read_memory,
        Proof::Outside,
    ),
    Probe::new(Calls, "call.ptrace", "ptrace of init and of a host process", trace, Proof::Outside),
    Probe::new(Calls, "call.signal", "signal init and a host process", signal, Proof::Outside),
    Probe::new(
        Calls,
        "call.tiocsti",
        "type into a terminal (TIOCSTI)",
        |_| Tries::filtered("TIOCSTI", attack::type_into_terminal()),
        FILTER,
    ),
];

/// Process numbers an attack tries: init's, and that of a process of the host.
fn targets(bait: &Bait) -> [i32; 2] {
    [1, bait.host_pid]
}

fn read_memory(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for pid in targets(bait) {
        // EFAULT comes from beyond the permission check.
        let read = match attack::read_memory_of(pid) {
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
            other => other,
        };
        tries.add(&format!("process {pid}"), read);
    }
    tries.end()
}

fn trace(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    for pid in targets(bait) {
        tries.add(&format!("process {pid}"), attack::trace(pid));
    }
    tries.end()
}

fn signal(bait: &Bait) -> Attempt {
    let mut tries = Tries::default();
    // Init belongs to the sandbox and may be signalled; the kernel keeps from it what it does not handle.
    let host = rustix::process::Pid::from_raw(bait.host_pid).ok_or(rustix::io::Errno::SRCH);
    let asked = host.and_then(rustix::process::test_kill_process);
    tries.add(&format!("process {}", bait.host_pid), asked.map_err(io::Error::from));
    tries.end()
}
