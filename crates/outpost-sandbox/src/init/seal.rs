//! Gives up every privilege, for good, in an order in which each step is still allowed.

use std::io;
use std::os::fd::AsFd as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::landlock::{self, Rules};
use super::{Failure, Order, at};
use crate::spec::{Access, HOME_INSIDE};
use crate::weakness::Weakness;

/// Capability numbers the kernel may know (`CAP_LAST_CAP` is below 64 by the layout of capability sets).
const CAPABILITIES_MAX: u32 = 64;

/// POSIX message queues of one user: memory that no file system's size bounds. The kernel's own default.
const MESSAGE_QUEUE_BYTES_MAX: u64 = 819_200;

/// Drops everything. Returns the Landlock rules that are to be in force when the payload starts, if the kernel has any.
pub(super) fn seal(order: &Order<'_>) -> Result<Option<Rules>, Failure> {
    limits(order)?;
    let spec = order.spec;
    if !spec.lacks(Weakness::Capabilities) {
        at("drop bounding set", drop_bounding_set())?;
        at("lock secure bits", rustix::thread::set_capabilities_secure_bits(locked_bits()))?;
        at("clear ambient set", rustix::thread::clear_ambient_capability_set())?;
    }
    if !spec.lacks(Weakness::NewPrivileges) {
        at("set no_new_privs", rustix::thread::set_no_new_privs(true))?;
    }
    let mut writable = vec!["/tmp", HOME_INSIDE, "/dev/shm", "/dev/pts"];
    writable.extend(
        order
            .spec
            .binds
            .iter()
            .filter(|bind| bind.access == Access::ReadWrite)
            .filter_map(|bind| bind.inside.to_str()),
    );
    let rules = if spec.lacks(Weakness::Landlock) {
        None
    } else {
        at("make Landlock rules", landlock::rules(&writable))?
    };
    if let Some(rules) = rules.as_ref().filter(|_| spec.lacks(Weakness::NewPrivileges)) {
        // Now or never: it takes a capability.
        at("apply Landlock", landlock::enforce(rules.ruleset.as_fd()))?;
    }
    let none = CapabilitySet::empty();
    let empty = CapabilitySets { effective: none, permitted: none, inheritable: none };
    if spec.lacks(Weakness::Capabilities) {
        at("keep capabilities", keep_capabilities())?;
    } else {
        at("drop capabilities", rustix::thread::set_capabilities(None, empty))?;
    }
    if !spec.lacks(Weakness::Filter) && !spec.lacks(Weakness::NewPrivileges) {
        at("install the system call filter", crate::sys::install_filter(order.filter))?;
    }
    Ok(rules)
}

/// For a proof: what this process has, its programs get.
fn keep_capabilities() -> io::Result<()> {
    let mut have = rustix::thread::capabilities(None)?;
    have.inheritable = have.permitted;
    rustix::thread::set_capabilities(None, have)?;
    for number in 0..CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if have.permitted.contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true)?;
        }
    }
    Ok(())
}

/// Only ever lowers: raising needs a privilege that even root may lack.
fn limits(order: &Order<'_>) -> Result<(), Failure> {
    let lower = |resource: Resource, want: u64| {
        let hard = getrlimit(resource).maximum.map_or(want, |hard| hard.min(want));
        setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
    };
    at("limit core dumps", lower(Resource::Core, 0))?;
    at("limit open files", lower(Resource::Nofile, order.spec.limits.open_files_max.into()))?;
    at("limit message queues", lower(Resource::Msgqueue, MESSAGE_QUEUE_BYTES_MAX))?;
    at("forbid real-time priority", lower(Resource::Rtprio, 0))?;
    if let Some(bytes) = order.spec.limits.disk_bytes {
        at("limit the size of files", lower(Resource::Fsize, bytes))?;
    }
    if order.limit_processes_by_rlimit {
        at("limit processes", lower(Resource::Nproc, order.spec.limits.pids_max.into()))?;
    }
    Ok(())
}

fn drop_bounding_set() -> io::Result<()> {
    for number in 0..CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number this kernel does not know ends the list.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn locked_bits() -> CapabilitiesSecureBits {
    use CapabilitiesSecureBits as Bits;
    Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED
}
