//! Sealed sandboxes for hostile programs on Linux, without a daemon and without setuid helpers.
//!
//! A multi-threaded server never forks. A [launcher](launcher_main), single-threaded and small, makes each sandbox
//! with one `clone3`, reaps it, and outlives the server. In the sandbox an init builds a root from the host's
//! userland (read-only), opens the gateway's listener, drops every privilege and parks; "go" makes it execute the
//! payload. It works as root and as an ordinary user.
//!
//! - [`Sandbox`], [`ParkedSandbox`], [`RunningSandbox`]: the interface; [`LinuxSandbox`] is the implementation.
//! - [`SandboxSpec`], [`Payload`]: what to make and what to run. [`Isolation`]: what was truly enforced.
//! - [`conformance`]: the checks every implementation must pass.
//! - [`probe_host`]: can this host do it, and what to change if not.
//! - [`attack`], [`Weakness`]: what the self-test tries inside, and how it shows that it would notice.
//!
//! Deliberately absent: images, networks, pools of warm sandboxes, and workspaces; they belong to callers.

pub mod attack;
mod client;
pub mod conformance;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod init;
mod launcher;
mod linux;
mod report;
mod sandbox;
mod spec;
mod sys;
mod userland;
mod weakness;
mod wire;

pub use client::LauncherOptions;
pub use error::SandboxError;
pub use host::{HostProbe, probe_host};
pub use launcher::{
    LAUNCHER_ARGUMENT, SANDBOXES_MAX, cgroup_name, launcher_main, launcher_main_for_proofs,
};
pub use linux::LinuxSandbox;
pub use report::{ExitReport, HostReport, Isolation, IsolationLevel, SandboxPolicy};
pub use sandbox::{ParkedSandbox, Reattached, RunningSandbox, Sandbox};
pub use spec::{
    ARGS_AND_ENV_BYTES_MAX, ARGS_COUNT_MAX, Access, BINDS_MAX, Bind, Claim, DEFAULT_PAYLOAD_OWNER,
    GATEWAY_PORT, HOME_INSIDE, ID_BYTES_MAX, Limits, OVERLAY_LOWER_MAX, Overlay, Owner,
    PATH_BYTES_MAX, PAYLOAD_ID_INSIDE, Payload, STDIN_BYTES_MAX, SandboxSpec,
};
pub use sys::watch;
pub use weakness::{HOST_ROOT_INSIDE, Weakness};
