//! The door between a sandbox and the world: the [`gateway`] to the models that swaps credentials, and the
//! proxy ([`egress`]) to what a policy allows.
//!
//! Bounded here: connections, header bytes, body bytes, idle times and events; each bound is a constant named
//! with its unit. Deliberately absent: TLS termination. A sandbox reaches nothing but what its own grant names.

pub mod egress;
pub mod gateway;
#[doc(hidden)]
pub mod serve;
