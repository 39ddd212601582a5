//! What is known of all runs: which were acknowledged, how each ended, what was broken.
//!
//! Bounded: [`FINDINGS_MAX`] sentences are kept, further ones are counted; one small entry per run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outpost_types::{DispatchId, DispatchStatus, FailureCode};

use crate::check::Evidence;
use crate::rng::Rng;

/// Findings that are kept in words.
const FINDINGS_MAX: usize = 100;

/// Shared by all clients and the storm.
#[derive(Debug, Default)]
pub struct Ledger {
    over: AtomicBool,
    launcher_kills: AtomicU64,
    state: Mutex<State>,
}

/// How a run ended: its state and the generation of its record.
pub type End = (DispatchStatus, u64);

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<DispatchId, Instant>,
    ended: BTreeMap<DispatchId, End>,
    /// Those that ended, in that order: any one of many is found without walking over them.
    order: Vec<DispatchId>,
    findings: Vec<String>,
    counts: Counts,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Broken promises.
    pub findings: u64,
    /// Runs that came to their natural end.
    pub natural: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
    /// Runs that a killed launcher took with it.
    pub lost: u64,
    /// Streams that were followed over restarts.
    pub followed: u64,
    /// Events that were compared.
    pub events: u64,
}

impl Ledger {
    /// Clients finish what they have and begin nothing more.
    pub fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether clients may stop.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A launcher is about to be killed, or was and the server knows it by now. Call it before the kill
    /// and after it: a run that began between the two may have met the dying one.
    pub fn launcher_dies(&self) {
        self.launcher_kills.fetch_add(1, Ordering::SeqCst);
    }

    /// Grows with every such call: runs over which it did not grow met no dying launcher.
    pub fn launcher_kills(&self) -> u64 {
        self.launcher_kills.load(Ordering::SeqCst)
    }

    /// The server acknowledged this dispatch.
    pub fn accepted(&self, id: DispatchId) {
        self.lock().open.insert(id, Instant::now());
    }

    /// A run is over and was looked at.
    pub fn judged(&self, seen: &Evidence, broken: Vec<String>) {
        let mut state = self.lock();
        let view = &seen.view;
        state.open.remove(&view.dispatch_id);
        state.ended.insert(view.dispatch_id, (view.status, view.generation));
        state.order.push(view.dispatch_id);
        let code = view.failure.as_ref().map(|failure| failure.code);
        let counts = &mut state.counts;
        match view.status {
            DispatchStatus::Cancelled => counts.cancelled += 1,
            DispatchStatus::Failed if code != Some(FailureCode::AgentExit) => counts.lost += 1,
            _ => counts.natural += 1,
        }
        counts.followed += u64::from(seen.followed.is_some());
        counts.followed += u64::from(seen.followed_log.is_some());
        counts.events += seen.events.len() as u64;
        state.note(broken);
    }

    /// Takes down broken promises.
    pub fn note(&self, broken: Vec<String>) {
        self.lock().note(broken);
    }

    /// Acknowledged and not seen to end yet.
    pub fn open(&self) -> Vec<DispatchId> {
        self.lock().open.keys().copied().collect()
    }

    /// Whether a run waits for its end for longer than that.
    pub fn is_any_older(&self, age: Duration) -> bool {
        self.lock().open.values().any(|since| since.elapsed() > age)
    }

    /// How one ended, if it is known to have.
    pub fn end_of(&self, id: DispatchId) -> Option<End> {
        self.lock().ended.get(&id).copied()
    }

    /// Any one of those that ended.
    pub fn one_ended(&self, rng: &mut Rng) -> Option<DispatchId> {
        let state = self.lock();
        let place = usize::try_from(rng.below(state.order.len() as u64)).ok()?;
        state.order.get(place).copied()
    }

    /// How many runs ended, and how much was looked at.
    pub fn tally(&self) -> (u64, Counts) {
        let state = self.lock();
        (state.ended.len() as u64, state.counts)
    }

    /// All that ended.
    pub fn ended(&self) -> BTreeMap<DispatchId, End> {
        self.lock().ended.clone()
    }

    /// What was broken, and how much was looked at.
    pub fn verdict(&self) -> (Vec<String>, Counts) {
        let state = self.lock();
        (state.findings.clone(), state.counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain inserts: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, broken: Vec<String>) {
        self.counts.findings += broken.len() as u64;
        let room = FINDINGS_MAX.saturating_sub(self.findings.len());
        self.findings.extend(broken.into_iter().take(room));
    }
}
