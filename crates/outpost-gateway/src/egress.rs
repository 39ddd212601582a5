//! The way out of a sandbox to anything but models: a proxy that opens what a policy allows.
//!
//! It serves `CONNECT` and plain HTTP in absolute form, on the same listener as the models. A request is judged
//! by its name first, and only then the name is resolved, outside; every address is judged, and the
//! connection is made to a judged address itself, so a name cannot lead elsewhere a moment later. What goes
//! through a tunnel to port 443 must begin with TLS to the same name.
//!
//! Bounded: rules, tunnels, heads, names, addresses, times, and bytes where the grant says so. Deliberately
//! absent: reading inside TLS, following redirects (each new request is judged anew), UDP, HTTP/2 and
//! upgrades of plain HTTP.

mod address;
mod hello;
mod host;
mod policy;
mod proxy;
mod resolve;

use std::sync::Arc;

pub use address::Cidr;
pub(crate) use address::judge;
pub use hello::server_name;
pub use policy::{
    EGRESS_RULES_MAX, EgressError, EgressFloor, EgressLevel, EgressPolicy, EgressRule,
};
pub(crate) use proxy::Egress;
pub use proxy::{TUNNEL_IDLE_SECONDS_MAX, TUNNELS_MAX};
pub use resolve::{Resolve, Resolving, SystemResolver};
use serde::Serialize;

/// What one attempt may reach besides models.
#[derive(Debug, Clone)]
pub struct EgressGrant {
    /// What is allowed to begin with.
    pub policy: EgressPolicy,
    /// What the operator allows at most.
    pub floor: EgressFloor,
    /// Who resolves names.
    pub resolver: Arc<dyn Resolve>,
    /// Ports besides 443 on which a tunnel must begin with TLS to the host it was opened for.
    pub tls_ports: Vec<u16>,
    /// Most bytes of all tunnels and requests together, both ways; `None` is no limit.
    pub bytes_max: Option<u64>,
}

impl EgressGrant {
    /// A policy within what the operator allows, with the system's resolver, TLS on port 443 only, and no
    /// limit of bytes.
    #[must_use]
    pub fn new(policy: EgressPolicy, floor: EgressFloor) -> Self {
        Self {
            policy,
            floor,
            resolver: Arc::new(SystemResolver),
            tls_ports: Vec::new(),
            bytes_max: None,
        }
    }
}

/// Why something was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressReason {
    /// No rule of the policy allows it.
    NotAllowed,
    /// The operator does not allow it, whatever the policy says.
    OperatorDenied,
    /// The host's own data, credentials among them, are behind it. Never allowed.
    Metadata,
    /// It is, or leads to, an address that is not on the public internet.
    PrivateAddress,
    /// Not a host name, or an address in a form that could be read in several ways.
    BadHost,
    /// The request names one host and talks to another.
    HostMismatch,
    /// Not TLS, or TLS that names no host.
    NoServerName,
    /// The attempt's own handle is in it.
    HandleInRequest,
    /// The attempt has moved as many bytes as it may.
    BytesUsedUp,
}

impl EgressReason {
    /// As in events and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::OperatorDenied => "operator_denied",
            Self::Metadata => "metadata",
            Self::PrivateAddress => "private_address",
            Self::BadHost => "bad_host",
            Self::HostMismatch => "host_mismatch",
            Self::NoServerName => "no_server_name",
            Self::HandleInRequest => "handle_in_request",
            Self::BytesUsedUp => "bytes_used_up",
        }
    }
}
