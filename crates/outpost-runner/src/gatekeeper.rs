//! The gateway of one attempt, while its agent runs: what it reports becomes events, what it counts is written
//! down, and a budget that is used up ends the agent.
//!
//! Bounded: by the gateway's own channel. Absent: deciding anything about a call.

use std::path::{Path, PathBuf};

use outpost_context::Scrubber;
use outpost_core::{Nanodollars, Spend};
use outpost_gateway::gateway::{self, GatewayEvent, GatewaySession};
use outpost_types::{Attention, BudgetScope, EventData, Failure, FailureCode, Network};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::masking;
use crate::money::note_spend;
use crate::network::policy_of;
use crate::provision::Session;
use crate::runner::Report;

/// A budget that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exhausted {
    pub(crate) scope: BudgetScope,
    pub(crate) spent: Nanodollars,
    pub(crate) limit: Nanodollars,
}

impl Exhausted {
    /// The failure of an agent that was ended by it.
    pub(crate) fn failure(self) -> Failure {
        let (spent, limit) = (self.spent.to_usd(), self.limit.to_usd());
        let (whose, hint) = match self.scope {
            BudgetScope::Dispatch => (
                "Its budget",
                "What it had changed is kept. Give a larger budgetUsd or a smaller task.",
            ),
            BudgetScope::TenantDay => (
                "The tenant's budget of the day",
                "What it had changed is kept. Dispatch it again tomorrow (UTC), or ask the operator.",
            ),
        };
        let message = format!("{whose} of ${limit:.4} is used up: ${spent:.4} were spent.");
        Failure::new(FailureCode::BudgetExceeded, message).with_hint(hint)
    }
}

fn threshold(scope: BudgetScope, spent: Nanodollars, limit: Nanodollars) -> Vec<Report> {
    let (spent_usd, budget_usd) = (spent.to_usd(), limit.to_usd());
    vec![Report::Event(EventData::BudgetThreshold { scope, spent_usd, budget_usd })]
}

/// What is known when it is over.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) spend: Option<Spend>,
    pub(crate) exhausted: Option<Exhausted>,
}

/// The task that has the open gateway; dropping this closes the gateway.
pub(crate) struct Gatekeeper {
    close: oneshot::Sender<()>,
    exhausted: watch::Receiver<Option<Exhausted>>,
    task: JoinHandle<Account>,
}

impl Gatekeeper {
    /// Takes the gateway over.
    pub(crate) fn begin(
        session: Session,
        network: watch::Receiver<Network>,
        dir: PathBuf,
        reports: mpsc::Sender<Report>,
        scrubber: Scrubber,
    ) -> Self {
        let (session, events) = session;
        let (close, closed) = oneshot::channel();
        let (exhaust, exhausted) = watch::channel(None);
        let clerk = Clerk { session, dir, reports, exhaust, scrubber };
        Self { close, exhausted, task: tokio::spawn(clerk.serve(events, network, closed)) }
    }

    /// Hears of the end of a budget.
    pub(crate) fn exhausted(&self) -> watch::Receiver<Option<Exhausted>> {
        self.exhausted.clone()
    }

    /// Closes the gateway, and waits until everything it had to say is told.
    pub(crate) async fn close(self) -> Account {
        drop(self.close);
        self.task.await.unwrap_or_else(|error| {
            warn!(%error, "what a gateway counted is lost");
            Account::default()
        })
    }
}

struct Clerk {
    session: GatewaySession,
    dir: PathBuf,
    reports: mpsc::Sender<Report>,
    exhaust: watch::Sender<Option<Exhausted>>,
    scrubber: Scrubber,
}

impl Clerk {
    async fn serve(
        self,
        mut events: mpsc::Receiver<GatewayEvent>,
        mut network: watch::Receiver<Network>,
        mut closed: oneshot::Receiver<()>,
    ) -> Account {
        let mut written = None;
        // It may have changed since the gateway was opened.
        network.mark_changed();
        loop {
            let event = tokio::select! {
                // What is taken away is taken before anything else is looked at.
                biased;
                Ok(()) = network.changed() => {
                    self.session.set_egress(policy_of(&network.borrow_and_update()));
                    continue;
                }
                _ = &mut closed => None,
                event = events.recv() => event,
            };
            let Some(event) = event else { break };
            tell(event, &self.reports, &self.exhaust, &self.scrubber).await;
            let spend = self.session.spend();
            if written.as_ref() != Some(&spend) {
                write_down(&self.dir, &spend);
                written = Some(spend);
            }
        }
        let Self { session, dir, reports, exhaust, scrubber } = self;
        let spend = session.shutdown().await;
        write_down(&dir, &spend);
        while let Some(event) = events.recv().await {
            tell(event, &reports, &exhaust, &scrubber).await;
        }
        let exhausted = *exhaust.borrow();
        Account { spend: Some(spend), exhausted }
    }
}

fn write_down(dir: &Path, spend: &Spend) {
    if let Err(error) = note_spend(dir, spend) {
        warn!(%error, "what an attempt has spent could not be written down");
    }
}

async fn tell(
    event: GatewayEvent,
    reports: &mpsc::Sender<Report>,
    exhaust: &watch::Sender<Option<Exhausted>>,
    scrubber: &Scrubber,
) {
    let told = match event {
        GatewayEvent::Call { .. } => Vec::new(),
        GatewayEvent::Denied { host, path, reason } => {
            let target = host.map_or_else(|| path.clone(), |host| format!("{host}{path}"));
            let reason = reason.as_str().to_owned();
            vec![Report::Event(EventData::PolicyDenied { target, reason, suggestion: None })]
        }
        GatewayEvent::EgressDenied { host, port, reason, suggested_rule: suggestion, .. } => {
            let target = format!("{host}:{port}");
            let reason = reason.as_str().to_owned();
            vec![Report::Event(EventData::PolicyDenied { target, reason, suggestion })]
        }
        GatewayEvent::BudgetThreshold { spent, limit } => {
            threshold(BudgetScope::Dispatch, spent, limit)
        }
        GatewayEvent::BudgetExhausted { spent, limit, scope } => {
            let scope = match scope {
                gateway::BudgetScope::Attempt => BudgetScope::Dispatch,
                gateway::BudgetScope::TenantDay => BudgetScope::TenantDay,
            };
            exhaust.send_replace(Some(Exhausted { scope, spent, limit }));
            threshold(scope, spent, limit)
        }
        GatewayEvent::RateLimited { provider, until_millis_from_now, held } => {
            rate_limited(&provider, until_millis_from_now, held)
        }
    };
    for report in told {
        let report = match report {
            // Names of hosts are the agent's words.
            Report::Event(data) => Report::Event(masking::event(scrubber, data)),
            other => other,
        };
        // Nobody listening is seen by whoever reads the commands.
        let _ = reports.send(report).await;
    }
}

fn rate_limited(provider: &str, millis: u64, held: bool) -> Vec<Report> {
    let seconds = millis.div_ceil(1_000);
    let message = if held {
        format!("{provider} takes no calls for {seconds} s; the agent waits and goes on by itself.")
    } else {
        format!("{provider} takes no calls for {seconds} s; that is too long to wait for.")
    };
    let code = "rate_limited".to_owned();
    let event = Report::Event(EventData::Attention(Attention { code, message }));
    if held { vec![Report::Parked { millis }, event] } else { vec![event] }
}
