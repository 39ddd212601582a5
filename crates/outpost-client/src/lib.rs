//! HTTP client of Outpost: [`HttpApi`] is the `Api` of `outpost-types` over the network, so that a
//! program does not know whether the engine runs in its own process.
//!
//! Streams resume by themselves: a broken connection or a restarted server costs a reader of events
//! or logs time, but no event and no byte, and nothing arrives twice.
//!
//! Bounded here: time to connect, time of an answer, silence of a stream, bytes of an answer and of an
//! event, tries and pauses of a resume. Deliberately absent: repeating requests that change something
//! (the caller decides, with an `Idempotency-Key`), redirects (a key is sent to one place only),
//! cookies, caching.

mod access;
mod api;
mod config;
mod error;
mod events;
mod http;
mod logs;
mod promote;
mod retry;
mod secrets;
mod sse;
mod tls;
mod webhooks;

pub use config::{ApiKey, ClientConfig, RetryPolicy};
pub use error::ClientError;
pub use http::{ANSWER_BYTES_MAX, HttpApi, UNARY_SECONDS_MAX};
pub use tls::install_crypto_provider;
