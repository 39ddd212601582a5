//! The only door out of a sandbox.
//!
//! An agent is pointed at the gateway with a random handle as its key. For each request the gateway checks
//! the handle, puts the real credential of the route in its place, and streams both ways as bytes arrive.
//! The real credential therefore never exists inside the sandbox (promise P9), and an upstream
//! that echoes it is redacted on the way back.
//!
//! What a call took is read from the answer as it passes, priced, and held against the attempt's and the
//! tenant's budget. When the provider wants no calls for now, the call is sent again with another credential of
//! the route, or held until the time that was named.
//!
//! Bounded: connections, header and body bytes, query, idle times, events waiting to be read, calls at once
//! under a budget, what is read on after an agent hung up, tries and time of a held call. Only the
//! paths of model calls are forwarded, so a handle cannot be used to list files, keys or batches
//! of the account behind it, and while an attempt may reach nothing else, no call that asks its provider to
//! reach something for it. Deliberately absent: other hosts (see [`crate::egress`]; refused as
//! `policy_denied` without a grant for them), following redirects, retries after other failures (the CLIs have their
//! own), the cost of what is charged apart from tokens and searches (containers).

pub(crate) mod answer;
mod call;
mod client;
mod event;
mod forward;
mod grant;
mod ledger;
mod meter;
mod prices;
mod provider;
mod ratelimit;
mod reach;
mod redact;
mod relay;
mod route;
mod scan;
mod session;
mod usage;

pub(crate) use event::Reporter;
pub use event::{BudgetScope, DenialReason, GatewayEvent};
pub use forward::REQUEST_BODY_BYTES_MAX;
pub(crate) use forward::{KEY_HEADERS, kept_headers};
pub use grant::{
    AuthStyle, CREDENTIAL_BYTES_MAX, CREDENTIAL_BYTES_MIN, Credential, GatewayGrant, Handle,
    RATE_LIMIT_WAIT_SECONDS_MAX, ROUTE_CREDENTIALS_MAX, ROUTES_MAX, Route, Upstream,
};
pub use ledger::{LEDGER_TENANTS_MAX, LedgerFull, TenantLedger, TenantShare};
pub use meter::{BudgetGrant, IN_FLIGHT_MAX};
pub use prices::{
    LongPrices, PRICE_ENTRIES_MAX, PRICE_USD_MAX, PriceEntry, PriceError, PriceTable,
};
pub use provider::{
    auth_style, base_url_variable, credential_from, default_base_url, route_from, upstream_from,
};
pub use session::{Gateway, GatewaySession, GatewayStats};
pub use usage::{ESTIMATE_BYTES_PER_TOKEN, Framing, Taken, UsageDialect, UsageReader};

/// Why a gateway, a grant or a route cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The system gives no randomness.
    #[error("the system gave no random bytes for a handle: check /dev/urandom")]
    Random,
    /// Not a handle.
    #[error("a gateway handle is `otph_` and 64 lower-case hex digits")]
    NotAHandle,
    /// Empty, short, long, or with characters a header cannot carry. The text itself is not shown.
    #[error(
        "the key of {provider} must be {CREDENTIAL_BYTES_MIN} to {CREDENTIAL_BYTES_MAX} visible ASCII \
         characters: check it for spaces and line ends"
    )]
    BadCredential {
        /// Whose key.
        provider: String,
    },
    /// Not a usable base URL.
    #[error("the base URL of {provider} cannot be used: {problem}")]
    BadUpstream {
        /// Whose URL.
        provider: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a usable prefix, or used twice.
    #[error("the route prefix `{prefix}` cannot be used: {problem}")]
    BadPrefix {
        /// The prefix.
        prefix: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No routes, or too many.
    #[error("a grant has {ROUTES_MAX} routes at most, not {0}")]
    RouteCount(usize),
    /// Too many credentials.
    #[error("a route can have {ROUTE_CREDENTIALS_MAX} credentials at most")]
    CredentialCount,
    /// The HTTP client could not be built.
    #[error("the client for model providers could not be set up")]
    Client(#[source] reqwest::Error),
}
