//! Outpost for assistants: tools, resources and prompts of the Model Context Protocol over `dyn Api`.
//!
//! [`McpServer`] is the one server; [`serve`] runs it on a pair of streams (`outpost mcp`), [`McpHttp`]
//! answers single HTTP requests (`/mcp`). What a caller may do is a [`Grant`], asked for anew at each
//! call: a tool never acts for anybody but the holder of the key that the call came with.
//!
//! Texts here are written for a model: when to use a tool, what comes back, what to do next. What comes
//! back is sized for a context window; what is cut says how to get the rest. Bounded: messages, texts of
//! answers, what is read to make them, waits, entries of lists. Deliberately absent: sessions over HTTP
//! (each request stands for itself, so any instance may answer it; a client gets a name, with which it can take
//! a call back while that is under way), and
//! whatever changes keys, secrets or workspaces: that is for people.

mod arguments;
mod call;
mod calls;
mod fault;
mod grant;
mod http;
mod patch;
mod prompts;
mod read;
mod resources;
mod results;
mod schema;
mod server;
mod tail;
mod tools;
mod wait;

pub use grant::{Checks, Grant, Grants};
pub use http::{McpHttp, REQUEST_BYTES_MAX};
pub use server::{McpServer, ServeError, serve};
pub use tools::tools_json;
