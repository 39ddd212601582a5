//! Protections that a proof of the self-test leaves off, one by one, to show that a probe would notice.
//!
//! They reach nothing in the product: a launcher refuses a spec that has any unless its program called
//! [`crate::launcher_main_for_proofs`], which the `outpost` program does nowhere. What is left off is listed in the
//! sandbox's `isolation.missing` all the same. Deliberately absent: a way to choose one from a configuration, an
//! argument or a variable.

use serde::{Deserialize, Serialize};

/// One protection left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weakness {
    /// No system call filter.
    Filter,
    /// `no_new_privs` is not set; the filter, which needs it, is left off too.
    NewPrivileges,
    /// All capabilities of the user namespace are kept, and handed on to the payload.
    Capabilities,
    /// No Landlock rules.
    Landlock,
    /// The host's network namespace.
    Network,
    /// The host's processes: its pid namespace and its /proc.
    Processes,
    /// /proc without covers, with a writable /proc/sys and without `hidepid`.
    ProcCovers,
    /// The host's whole /dev.
    Devices,
    /// The host's whole tree, writable as far as its owner's rights go, at [`HOST_ROOT_INSIDE`].
    HostRoot,
    /// The root's own file system stays writable.
    WritableRoot,
    /// Read-only binds are writable.
    WritableBinds,
    /// Binds and programs keep their setuid bits.
    SetuidBits,
    /// A descriptor of the host's root directory stays open in the payload.
    Descriptors,
    /// Host paths of binds are opened through symbolic links.
    Links,
}

/// Where [`Weakness::HostRoot`] shows the host.
pub const HOST_ROOT_INSIDE: &str = "/mnt/host";
