//! The door between a sandbox and the models: the [`gateway`] that swaps credentials, and the
//! [`scripted`] provider that stands in for a model in the demo, in rehearsals and in tests.
//!
//! Bounded here: connections, header bytes, body bytes, idle times, events, journal entries and every
//! part of a script; each bound is a constant named with its unit. Deliberately absent: egress to hosts that
//! are not model providers, TLS termination. A sandbox reaches nothing but the routes of its own grant.

pub mod gateway;
pub mod scripted;
mod serve;
