//! The binds that a parked sandbox gets when it is claimed.
//!
//! Its init has no privilege left and may not mount, so a helper of the launcher goes in: what it puts in place was
//! opened with the launcher's rights before, and in there it is the payload's user with the rights of the sandbox's own
//! user namespace. Nothing of a payload runs yet. Deliberately absent: doing it twice.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::process::{Gid, Signal, Uid, set_parent_process_death_signal, umask};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::helper;
use crate::init::root::{self, OpenBind};
use crate::spec::PAYLOAD_ID_INSIDE;
use crate::sys;
use crate::weakness::Weakness;

/// The ways into a parked sandbox, opened by its init before it gave up its rights. Closed at the start of the payload.
#[derive(Debug)]
pub(super) struct Doors {
    /// Its mount namespace.
    pub(super) mounts: OwnedFd,
    /// Its Landlock rules, which come into force at the start; `None` if the kernel has no Landlock.
    pub(super) ruleset: Option<OwnedFd>,
}

/// Puts `binds` in place.
///
/// # Errors
/// The step that failed; some may be in place then.
pub(super) fn attach(
    doors: &Doors,
    binds: &[OpenBind],
    weakened: &BTreeSet<Weakness>,
    drop_groups: bool,
) -> Result<(), String> {
    if binds.is_empty() {
        return Ok(());
    }
    let own = [&doors.mounts].into_iter().chain(&doors.ruleset).map(|fd| fd.as_raw_fd());
    let keep: Vec<i32> = own.chain(binds.iter().flat_map(OpenBind::descriptors)).collect();
    helper::run(&keep, || {
        enter(doors, drop_groups).map_err(|error| format!("enter the sandbox: {error}"))?;
        let ruleset = doors.ruleset.as_ref().map(|fd| fd.as_fd());
        root::add(binds, ruleset, weakened).map_err(|failure| failure.message)
    })
}

/// Becomes the payload's user in the sandbox's namespaces.
fn enter(doors: &Doors, drop_groups: bool) -> io::Result<()> {
    if drop_groups {
        set_thread_groups(&[])?;
    }
    let users = sys::owning_user_namespace(doors.mounts.as_fd())?;
    move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))?;
    move_into_link_name_space(doors.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let (uid, gid) = (Uid::from_raw(PAYLOAD_ID_INSIDE), Gid::from_raw(PAYLOAD_ID_INSIDE));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Changing ids clears it.
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}
