//! HTTP surface of Outpost: routes over the `Api` trait of `outpost-types`.
//!
//! [`router`] builds the routes, [`serve`] runs them on a listener, and a [`Backend`] supplies who a
//! key belongs to and what that caller may do. Every request passes two layers: the edge (request
//! id, span, host check, time limit, panic, one shape for all errors) and the guard (key, rate limit,
//! scope). Handlers only translate between HTTP and `Api`.
//!
//! Bounded here: bodies (10 MB), query fields, header values, connections, time of a handler, bytes
//! buffered per event stream, time of a graceful stop. Deliberately absent: TLS (a proxy's job),
//! compression, CORS (no origin but our own is served), sessions and cookies (keys travel in headers,
//! so a foreign page cannot make a browser send one).

mod backend;
mod body;
mod bounds;
mod config;
mod docs;
mod edge;
mod examples;
mod explain;
mod files;
mod form;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hosts;
mod limiter;
mod openapi;
mod ops;
mod problem;
mod query;
mod routes;
mod serve;
mod sign;
mod sse;
mod stop;

pub use backend::{AuthError, Backend};
pub use config::ServerConfig;
pub use limiter::RateState;
pub use openapi::openapi_json;
pub use routes::{router, router_with_mcp};
pub use serve::{
    CONNECTIONS_COUNT_MAX, HEADER_READ_SECONDS_MAX, STOP_SECONDS_MAX, ServeEnd, serve,
};
pub use sign::SigningKey;
