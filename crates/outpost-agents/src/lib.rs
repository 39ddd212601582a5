//! The coding agents: how each CLI is installed, started, read and judged.
//!
//! One file per agent ([`claude`], [`codex`], [`gemini`], [`aider`], [`grok`]) and [`custom`] for
//! commands the operator declares. Everything here is pure: an [`Agent`] describes commands, files
//! and meanings; it starts no process, opens no socket, and reads files only in [`Installed::load`].
//!
//! Bounded: everything kept from an agent's output (see the constants in [`parse`]), the declared
//! custom agents, the files handed to Aider. Deliberately absent: credentials. An agent only ever
//! gets the gateway's address and a handle that works nowhere else.

mod agent;
pub mod aider;
pub mod claude;
pub mod codex;
pub mod custom;
mod environment;
mod fault;
pub mod gemini;
pub mod grok;
mod installed;
mod judge;
mod messages;
pub mod parse;
mod plan;
mod registry;
mod rehearsal;

pub use agent::{
    Agent, AgentError, AgentProfile, CONCURRENCY_MAX, GIT_EMAIL, GIT_NAME, HomeFile, Invocation,
    RepoMask, RunSpec, SuccessRule, TRACKED_FILES_MAX, TrackedFile,
};
pub use custom::{CustomAgentConfig, CustomError, OutputFormat};
pub use installed::{
    Installed, MANIFEST_BYTES_MAX, MANIFEST_NAME, MANIFEST_SCHEMA, Manifest, Unavailable,
};
pub use judge::{Exit, Verdict, judge};
pub use parse::{AgentReport, FinalStatus, OutputParser};
pub use plan::{
    InstallPlan, InstallStep, NODE_MAJOR_MIN, PYTHON_MINOR_MAX, PYTHON_MINOR_MIN, PlanFile,
    StepProgram, Tool, VersionCheck, Word,
};
pub use registry::{CUSTOM_AGENTS_MAX, Registry, RegistryError, builtin};
