//! From wire types to text that a terminal may show.
//!
//! Pure functions of a value, a [`Surface`] and an instant: nothing here writes, reads the environment or
//! knows the clock. Every text that an agent, a repository or a server wrote passes [`sanitize`] first.
//! Bounded: lines of a message, of a summary and of a check's output, open tool calls. Deliberately absent:
//! JSON, which is the wire type itself, and what is said to a person besides data.

mod access;
mod agents;
mod artifacts;
mod card;
mod context;
mod diff;
mod dispatches;
mod event;
mod fleet;
pub mod format;
mod live;
pub mod sanitize;
mod secrets;
mod surface;
mod table;
mod timeline;
mod usage;
mod workspaces;

#[cfg(test)]
mod samples;

pub use access::{audit, keys, tenants};
pub use agents::{LocalAgent, local_agents};
pub use artifacts::{artifact_previews, artifacts};
pub use card::card;
pub use context::context;
pub use diff::patch;
pub use dispatches::dispatches;
pub use event::{EventPrinter, network};
pub use fleet::{fleet, paint_available};
pub use live::{FRAME_MILLIS, Live};
pub use secrets::secrets;
pub use surface::Surface;
pub use table::{Column, Painter, table};
pub use usage::usage;
pub use workspaces::{workspace, workspaces};
