//! Deterministic simulation of the control plane around the real core.
//!
//! `outpost-core` decides; everything around it is a model that runs in simulated time on one thread:
//! a server that makes decisions durable and executes their effects as the engine does, a runner, a
//! disk, a launcher with its sandboxes, agents, clients, a wall clock. A seed decides what goes wrong
//! and when; the same seed is the same history, byte by byte. Bounded: jobs, time and steps of each
//! simulation. Absent: logs, events, HTTP, git, the gateway: they decide nothing about a dispatch.
//! [`day`] is a second, smaller simulation: the warm pools under a day's load.

mod attempt;
mod check;
mod client;
mod disk;
mod host;
mod placer;
mod plan;
mod rng;
mod run;
mod runner;
mod sched;
mod server;
mod world;

pub mod day;
pub mod explore;
pub mod scenario;

pub use plan::{AgentPlan, Cancel, Faults, Job, Kill, Mutant, Plan, Provision};
pub use run::{Outcome, simulate};
