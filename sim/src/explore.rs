//! Runs many seeds on all cores, and makes a failing one small.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use outpost_types::DispatchStatus;

use crate::plan::{Mutant, Plan};
use crate::run::{Outcome, simulate};

/// Most tries at making a failing plan smaller.
const SHRINKS_MAX: usize = 200;

/// What many simulations came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Simulations that ran.
    pub ran: u64,
    /// The smallest seed that failed, and how.
    pub failed: Option<(u64, String)>,
    /// Sum of all trace hashes, whatever the order in which they came: the same seeds have the same.
    pub trace_sum: u64,
    /// Servers that ran in all of them.
    pub servers: u64,
    /// How many dispatches ended how.
    pub ends: BTreeMap<DispatchStatus, u64>,
}

/// Runs the seeds `from..from + count` on that many threads; stops soon after the first that fails.
#[must_use]
pub fn explore(from: u64, count: u64, mutant: Option<Mutant>, threads: usize) -> Summary {
    let next = AtomicU64::new(from);
    let end = from.saturating_add(count);
    let first_failed = AtomicU64::new(u64::MAX);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut own = Summary::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Those below the failed one still run, so that the smallest is found.
                    if seed >= end || seed > first_failed.load(Ordering::Relaxed) {
                        break;
                    }
                    let outcome = simulate(Plan { mutant, ..Plan::random(seed) }, false);
                    if outcome.violation.is_some() {
                        first_failed.fetch_min(seed, Ordering::Relaxed);
                    }
                    own.add(seed, outcome);
                }
                // A panic of another thread is reported by the scope.
                summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner).merge(own);
            });
        }
    });
    summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.ran += 1;
        self.servers += u64::from(outcome.servers);
        self.trace_sum = self.trace_sum.wrapping_add(outcome.trace_hash.wrapping_mul(seed | 1));
        for (status, count) in outcome.ends {
            *self.ends.entry(status).or_default() += count;
        }
        if let Some(violation) = outcome.violation {
            self.fail(seed, violation);
        }
    }

    fn fail(&mut self, seed: u64, violation: String) {
        if self.failed.as_ref().is_none_or(|(known, _)| seed < *known) {
            self.failed = Some((seed, violation));
        }
    }

    fn merge(&mut self, other: Self) {
        self.ran += other.ran;
        self.servers += other.servers;
        self.trace_sum = self.trace_sum.wrapping_add(other.trace_sum);
        for (status, count) in other.ends {
            *self.ends.entry(status).or_default() += count;
        }
        if let Some((seed, violation)) = other.failed {
            self.fail(seed, violation);
        }
    }
}

/// Takes away jobs, kinds of faults and time from a failing plan as long as it goes on failing.
#[must_use]
pub fn shrink(plan: Plan) -> Plan {
    let fails = |plan: &Plan| simulate(plan.clone(), false).violation.is_some();
    let mut best = plan;
    let mut tries = 0;
    let mut progress = true;
    while progress && tries < SHRINKS_MAX {
        progress = false;
        for smaller in smaller_ones(&best) {
            tries += 1;
            if fails(&smaller) {
                best = smaller;
                progress = true;
                break;
            }
        }
    }
    best
}

fn smaller_ones(plan: &Plan) -> Vec<Plan> {
    let mut smaller = Vec::new();
    for index in 0..plan.jobs.len() {
        let mut fewer = plan.clone();
        fewer.jobs.remove(index);
        smaller.push(fewer);
    }
    let rates: [fn(&mut Plan) -> &mut u64; 13] = [
        |plan| &mut plan.faults.server_kill,
        |plan| &mut plan.faults.launcher_kill,
        |plan| &mut plan.faults.reboot,
        |plan| &mut plan.faults.leave,
        |plan| &mut plan.faults.disk_slow,
        |plan| &mut plan.faults.disk_fail,
        |plan| &mut plan.faults.answer_lost,
        |plan| &mut plan.faults.store_dies,
        |plan| &mut plan.faults.disk_full,
        |plan| &mut plan.faults.clock_jump,
        |plan| &mut plan.faults.repeat,
        |plan| &mut plan.faults.reattach_fails,
        |plan| &mut plan.faults.reply_lost,
    ];
    for rate in rates {
        let mut calmer = plan.clone();
        if std::mem::take(rate(&mut calmer)) > 0 {
            smaller.push(calmer);
        }
    }
    if plan.chaos_seconds > 5 {
        smaller.push(Plan { chaos_seconds: plan.chaos_seconds / 2, ..plan.clone() });
    }
    smaller
}
