//! What a gateway session reports.
//!
//! Bounded: the channel; when nobody reads, new events are dropped and counted, but those about budgets have
//! their own room and always arrive. Absent: bodies, queries and keys.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outpost_core::{Nanodollars, Tokens};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::egress::EgressReason;

/// Most events waiting to be read.
pub(crate) const EVENTS_MAX: usize = 256;
/// Most different refusals of other hosts that are told apart; more are counted only.
const EGRESS_DENIALS_MAX: usize = 128;
/// Room for events about budgets: threshold, end, and the end of the tenant's day on as many days as a session can
/// touch.
const BUDGET_EVENTS_MAX: usize = 4;
/// Longest host or path in an event, bytes. Both are the agent's words.
const TEXT_BYTES_MAX: usize = 512;

/// Something a human or the engine wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum GatewayEvent {
    /// A request was refused by policy.
    Denied {
        /// Host asked for, when it was not the gateway itself.
        host: Option<String>,
        /// Path asked for, without the query.
        path: String,
        /// Why.
        reason: DenialReason,
    },
    /// A call of a model ended.
    Call {
        /// Name of the route.
        provider: String,
        /// HTTP status; 502 or 504 when the provider did not answer.
        status: u16,
        /// The model, by the answer's account, else by the request's.
        model: Option<String>,
        /// From the head of the request to the last byte, milliseconds.
        duration_ms: u64,
        /// Body of the request, bytes.
        request_bytes: u64,
        /// Body of the answer, bytes.
        response_bytes: u64,
        /// Whether the answer arrived to its end.
        complete: bool,
        /// Tokens, if it is a call that is charged.
        usage: Option<Tokens>,
        /// Cost; `None` when the price is unknown or the call is not charged.
        cost: Option<Nanodollars>,
        /// Whether `usage` and `cost` are estimates.
        estimated: bool,
    },
    /// Most of the attempt's budget is spent. Told once, and never lost.
    BudgetThreshold {
        /// What was spent.
        spent: Nanodollars,
        /// Of what.
        limit: Nanodollars,
    },
    /// A budget is used up: no further call of a model is passed on. Told once, and never lost.
    BudgetExhausted {
        /// What was spent.
        spent: Nanodollars,
        /// Of what.
        limit: Nanodollars,
        /// Whose budget.
        scope: BudgetScope,
    },
    /// Another host than a model provider was not reached. A repeated one is told again at the 10th, 100th, ... time.
    EgressDenied {
        /// Host asked for. The agent's words.
        host: String,
        /// Port asked for; 0 when it named none that could be read.
        port: u16,
        /// Why.
        reason: EgressReason,
        /// The rule with which a human could allow it; `None` when no rule can.
        suggested_rule: Option<String>,
        /// How often so far.
        count: u64,
    },
    /// The provider wants no calls for now.
    RateLimited {
        /// Name of the route.
        provider: String,
        /// When it is tried again, or when the provider would take calls again, milliseconds from now.
        until_millis_from_now: u64,
        /// Whether the call is held until then; else the provider's answer was passed on.
        held: bool,
    },
}

/// Whose budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The attempt's own.
    Attempt,
    /// The tenant's for this UTC day.
    TenantDay,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialReason {
    /// The handle is missing or belongs to another attempt.
    WrongHandle,
    /// No route has this prefix.
    UnknownRoute,
    /// Not a path of a model call.
    PathNotAllowed,
    /// A model path with another method.
    MethodNotAllowed,
    /// CONNECT, or a request for another host.
    PolicyDenied,
    /// More than the body may have.
    BodyTooLarge,
    /// A budget is in force, and the call is written so that its cost could not be told.
    NotCountable,
    /// The attempt may reach nothing, and the call asks the provider to reach something for it.
    ProviderTool,
    /// The attempt may reach nothing, and what the call asks for cannot be read.
    NotReadable,
}

impl DenialReason {
    /// As in events and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongHandle => "wrong_handle",
            Self::UnknownRoute => "unknown_route",
            Self::PathNotAllowed => "path_not_allowed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PolicyDenied => "policy_denied",
            Self::BodyTooLarge => "body_too_large",
            Self::NotCountable => "not_countable",
            Self::ProviderTool => "provider_tool",
            Self::NotReadable => "not_readable",
        }
    }
}

/// Counts, and the sending end of the channel.
#[derive(Debug)]
pub(crate) struct Reporter {
    sender: mpsc::Sender<GatewayEvent>,
    /// Room that is kept for events about budgets.
    reserved: Mutex<Vec<mpsc::OwnedPermit<GatewayEvent>>>,
    pub(crate) calls: AtomicU64,
    pub(crate) denials: AtomicU64,
    pub(crate) dropped: AtomicU64,
    egress_denials: Mutex<HashMap<(String, u16, EgressReason), u64>>,
}

impl Reporter {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<GatewayEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX + BUDGET_EVENTS_MAX);
        let reserve = |_| sender.clone().try_reserve_owned().ok();
        let reporter = Self {
            reserved: Mutex::new((0..BUDGET_EVENTS_MAX).filter_map(reserve).collect()),
            sender,
            calls: AtomicU64::new(0),
            denials: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            egress_denials: Mutex::default(),
        };
        (Arc::new(reporter), receiver)
    }

    pub(crate) fn denied(&self, host: Option<&str>, path: &str, reason: DenialReason) {
        let count = self.denials.fetch_add(1, Ordering::Relaxed) + 1;
        let (host, path) = (host.map(clean), clean(path));
        // An agent can ask as often as it likes; the log is the host's.
        if is_told(count) {
            let reason = reason.as_str();
            tracing::info!(host, path, reason, count, "gateway denied a request");
        }
        self.send(GatewayEvent::Denied { host, path, reason });
    }

    pub(crate) fn call(&self, event: GatewayEvent) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.send(event);
    }

    pub(crate) fn egress_denied(
        &self,
        host: &str,
        port: u16,
        reason: EgressReason,
        suggested_rule: Option<String>,
    ) {
        self.denials.fetch_add(1, Ordering::Relaxed);
        let host = clean(host);
        let mut denials = self.egress_denials.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host, port, reason);
        if denials.len() >= EGRESS_DENIALS_MAX && !denials.contains_key(&key) {
            return;
        }
        let host = key.0.clone();
        let count = denials.entry(key).or_insert(0);
        *count += 1;
        let count = *count;
        drop(denials);
        if is_told(count) {
            tracing::info!(host, port, reason = reason.as_str(), count, "egress was refused");
            self.send(GatewayEvent::EgressDenied { host, port, reason, suggested_rule, count });
        }
    }

    pub(crate) fn rate_limited(&self, provider: &str, wait: Duration, held: bool) {
        let until_millis_from_now = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            provider,
            until_millis_from_now,
            held,
            "a model provider wants no calls for now"
        );
        let provider = provider.to_owned();
        self.send(GatewayEvent::RateLimited { provider, until_millis_from_now, held });
    }

    pub(crate) fn budget(&self, event: GatewayEvent) {
        let room = self.reserved.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match room {
            Some(room) => drop(room.send(event)),
            None => self.send(event),
        }
    }

    pub(crate) fn send(&self, event: GatewayEvent) {
        if self.sender.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether the `count`-th of a kind is told: the 1st, 10th, 100th and so on.
const fn is_told(count: u64) -> bool {
    count == 10_u64.pow(count.ilog10())
}

/// Short enough, and nothing a terminal would obey.
fn clean(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    cut.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
