//! The door between a sandbox and the world: the [`gateway`] to the models that swaps credentials, the proxy
//! ([`egress`]) to what a policy allows, and the [`scripted`] provider that stands in for a model in the demo, in rehearsals and in tests.
//!
//! Bounded here: connections, header bytes, body bytes, idle times, events, journal entries and every
//! part of a script; each bound is a constant named with its unit. Deliberately absent: TLS termination. A
//! sandbox reaches nothing but what its own grant names.

pub mod egress;
pub mod gateway;
pub mod scripted;
mod serve;
