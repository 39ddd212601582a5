//! One attempt, from assignment to report: workspace → task.md and context.json → sandbox → agent →
//! events → diff, output, artifacts.
//!
//! A runner decides nothing about a dispatch. It carries out one attempt, tells what happens in
//! order, and leaves nothing behind. Bounded: reports and commands that wait, lines, tails of
//! output, the time of every step after the agent's end. Absent: records, retries.

mod ahead;
mod attempt;
mod carry;
mod context;
#[doc(hidden)]
pub mod fuzzing;
mod gatekeeper;
mod handover;
pub mod install;
mod lines;
mod local;
mod masking;
mod models;
mod money;
mod network;
mod output;
mod provision;
mod resume;
mod runner;
mod setup;
mod shown;
mod side;
mod warm;
mod watch;

pub use local::{LocalRunner, LocalRunnerConfig};
pub use models::Models;
pub use money::Money;
pub use network::Network;
pub use runner::{
    Assignment, COMMANDS_MAX, Command, Outcome, REPORTS_MAX, Report, Resume, ResumeStage, Runner,
    Told,
};
pub use warm::WarmSettings;
