//! A gateway that is open for one attempt.
//!
//! Bounded: connections at once; more wait. The session ends with its value: the listener closes, every
//! connection is dropped, and the handle is worth nothing from then on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outpost_core::Spend;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::GatewayError;
use super::call::Drains;
use super::client::UpstreamClient;
use super::event::{GatewayEvent, Reporter};
use super::forward::Door;
use super::grant::GatewayGrant;
use super::meter::Meter;
use crate::egress::{Egress, EgressPolicy};
use crate::serve;

/// Most connections of one attempt at once.
const CONNECTIONS_MAX: usize = 256;

/// Opens sessions; one for the whole server, as its connections to the providers are shared.
#[derive(Debug, Clone)]
pub struct Gateway {
    client: UpstreamClient,
}

/// Counts of a session so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayStats {
    /// Calls passed on.
    pub calls: u64,
    /// Requests refused.
    pub denials: u64,
    /// Events that found the channel full.
    pub events_dropped: u64,
}

/// An open gateway. Dropping it closes it.
#[derive(Debug)]
pub struct GatewaySession {
    stop: CancellationToken,
    task: JoinHandle<()>,
    reporter: Arc<Reporter>,
    meter: Arc<Meter>,
    drains: Arc<Drains>,
    egress: Option<Arc<Egress>>,
}

impl Gateway {
    /// Sets up the client for the providers, with ring as the process's TLS provider if none is installed.
    ///
    /// # Errors
    /// [`GatewayError::Client`] when TLS cannot be set up.
    pub fn new() -> Result<Self, GatewayError> {
        Ok(Self { client: UpstreamClient::new()? })
    }

    /// Serves one attempt on `listener`, which was created inside its sandbox. Must be called within a tokio
    /// runtime. The events end when the session and its last connection have ended.
    #[must_use]
    pub fn serve(
        &self,
        listener: TcpListener,
        grant: GatewayGrant,
    ) -> (GatewaySession, mpsc::Receiver<GatewayEvent>) {
        let (reporter, events) = Reporter::new();
        let stop = CancellationToken::new();
        let (budget, prices) = (grant.budget.clone(), grant.prices.clone());
        let meter = Meter::new(budget, prices, Arc::clone(&reporter));
        let drains = Drains::new(stop.clone());
        let egress = grant.egress.clone().map(|egress| {
            Egress::new(egress, drains.tasks.clone(), stop.clone(), Arc::clone(&reporter))
        });
        let door = Arc::new(Door {
            grant,
            client: self.client.clone(),
            reporter: Arc::clone(&reporter),
            meter: Arc::clone(&meter),
            drains: Arc::clone(&drains),
            replays: Arc::default(),
            egress: egress.clone(),
            stop: stop.clone(),
        });
        let task =
            tokio::spawn(serve::run(listener, CONNECTIONS_MAX, stop.clone(), move |request| {
                let door = Arc::clone(&door);
                async move { door.answer(request).await }
            }));
        (GatewaySession { stop, task, reporter, meter, drains, egress }, events)
    }
}

impl GatewaySession {
    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        GatewayStats {
            calls: self.reporter.calls.load(Ordering::Relaxed),
            denials: self.reporter.denials.load(Ordering::Relaxed),
            events_dropped: self.reporter.dropped.load(Ordering::Relaxed),
        }
    }

    /// What the attempt has spent so far. A call is in it before its event is told.
    #[must_use]
    pub fn spend(&self) -> Spend {
        self.meter.spend()
    }

    /// Puts another policy for other hosts in force: new connections follow it at once, and open ones to hosts
    /// that it does not allow are cut. Without a grant for other hosts nothing changes.
    pub fn set_egress(&self, policy: EgressPolicy) {
        if let Some(egress) = &self.egress {
            egress.set(policy);
        }
    }

    /// Closes the listener and all connections, waits until they are gone, and says what was spent; calls that
    /// were cut by this are estimated.
    pub async fn shutdown(mut self) -> Spend {
        self.stop.cancel();
        let _ = (&mut self.task).await;
        self.drains.tasks.close();
        self.drains.tasks.wait().await;
        self.meter.spend()
    }
}

impl Drop for GatewaySession {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
