//! What must hold for every parser that reads bytes an agent, its repository or a client controls,
//! whatever these bytes are. One plain function a parser; each panics when something does not hold.
//!
//! Two callers: the fuzzers in `fuzz_targets/`, which search for inputs, and a test of xtask, which runs
//! every function on the committed corpus and on some mutations of it, with the pinned compiler and
//! without any fuzzer. README.md has the table of parsers. Bounded: what a small input may grow to
//! ([`GROWN_BYTES_MAX`]). Deliberately absent: parsers that need a disk, a socket or git.
#![forbid(unsafe_code)]

mod agents;
mod context;
mod feed;
mod gateway;
mod ids;
mod lines;
mod requests;
mod sandbox;
mod terminal;
mod text;
mod workspace;

pub use agents::{
    agent_aider, agent_claude, agent_codex, agent_files, agent_gemini, agent_text, text_clean,
};
pub use context::{context, scrub_stream};
pub use feed::GROWN_BYTES_MAX;
pub use gateway::{host_rule, tls_hello, usage_reader};
pub use ids::ids;
pub use lines::{line_cutter, output_index, output_replay};
pub use requests::{artifact_names, dispatch_body, request_form, request_headers};
pub use sandbox::init_messages;
pub use terminal::terminal;
pub use workspace::{collect_status, git_refs, git_words, repo_source, tree_listing};

/// A target: its name, and the function that panics when something does not hold.
pub type Target = (&'static str, fn(&[u8]));

/// All targets by name. The file in `fuzz_targets/` and the folder in `corpus/` have the same name.
pub const TARGETS: [Target; 27] = [
    ("agent_aider", agent_aider),
    ("agent_claude", agent_claude),
    ("agent_codex", agent_codex),
    ("agent_files", agent_files),
    ("agent_gemini", agent_gemini),
    ("agent_text", agent_text),
    ("artifact_names", artifact_names),
    ("collect_status", collect_status),
    ("context", context),
    ("dispatch_body", dispatch_body),
    ("git_refs", git_refs),
    ("git_words", git_words),
    ("host_rule", host_rule),
    ("ids", ids),
    ("init_messages", init_messages),
    ("line_cutter", line_cutter),
    ("output_index", output_index),
    ("output_replay", output_replay),
    ("repo_source", repo_source),
    ("request_form", request_form),
    ("request_headers", request_headers),
    ("scrub_stream", scrub_stream),
    ("terminal", terminal),
    ("text_clean", text_clean),
    ("tls_hello", tls_hello),
    ("tree_listing", tree_listing),
    ("usage_reader", usage_reader),
];
