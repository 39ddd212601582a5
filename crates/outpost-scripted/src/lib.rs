//! A model provider that answers from a script instead of a model.
//!
//! It speaks Anthropic Messages, OpenAI Responses and Chat Completions, and Gemini, streaming and not, so
//! every agent CLI can do real work against it without spending anything. The answer to a request
//! depends only on what the request contains: which task was asked last, and how many tool results
//! came since. The one exception is a fault that applies the first `times` times; it is counted per
//! rule and conversation.
//!
//! The format of a script is explained in `scripts/demo.toml`, which is also built in as
//! [`Script::demo`]. Bounded: script size, rules, steps, texts, delays, hangs, request bodies,
//! connections, journal entries. Deliberately absent: understanding of the task, images, audio, sessions
//! kept by the server (`previous_response_id`), WebSocket.

mod chat;
mod conversation;
mod fill;
mod gemini;
mod journal;
mod messages;
mod plan;
mod read;
mod reply;
mod responses;
mod script;
mod server;
mod text_edit;
mod tools;

pub use journal::{JournalEntry, KeySeen};
pub use reply::Usage;
pub use script::{
    Action, DELAY_MS_MAX, Dialect, Fault, FaultKind, Pace, RULES_MAX, Rule, SCRIPT_BYTES_MAX,
    STEP_TEXT_BYTES_MAX, STEPS_MAX, Script, ScriptError, Step, When,
};
pub use server::{SCRIPTED_KEY, ScriptedError, ScriptedHandle, ScriptedProvider};
