//! The door between a sandbox and the world: the [`gateway`] to the models that swaps credentials, and the
//! proxy ([`egress`]) to what a policy allows. Webhooks of tenants go through the same judgement ([`hooks`]).
//!
//! Bounded here: connections, header bytes, body bytes, idle times and events; each bound is a constant named
//! with its unit. Deliberately absent: TLS termination. A sandbox reaches nothing but what its own grant names.

pub mod egress;
pub mod gateway;
pub mod hooks;
#[doc(hidden)]
pub mod serve;
