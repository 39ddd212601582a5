//! The async shell around the pure core: makes its decisions durable, carries out its effects, keeps
//! the logs, and answers callers.
//!
//! Stored: records, keys, sealed secrets and audit in the store; events, output and artifacts as files below
//! `dispatches/<id>/`. Bounded: live attempts by the limits, reports and commands of an attempt by
//! their channels, output by `OUTPUT_LOG_BYTES_MAX`, events by `EVENTS_BYTES_MAX`. Absent: HTTP, the
//! sandbox, git.

mod access;
mod api;
mod artifacts;
mod attempt;
mod audit;
mod clock;
mod context;
mod effects;
mod engine;
mod fleet;
mod journal;
mod keys;
mod live;
mod pass;
mod placer;
mod previews;
mod promote;
mod query;
mod retention;
mod secrets;
mod streams;
mod tasks;
mod trail;
mod usage;
mod waiting;
mod webhooks;

pub use api::EngineApi;
pub use clock::{Machine, World};
pub use engine::{Engine, EngineConfig, OpenError};
pub use keys::KeyRefusal;
pub use retention::{Removed, RetentionError};
pub use secrets::{KeyFault, KeyFile, Secrets};
pub use tasks::{TaskKind, Tasks};
