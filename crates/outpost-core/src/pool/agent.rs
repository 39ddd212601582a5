//! The workers of one agent, and what is known about making them.

use std::collections::BTreeMap;

use outpost_types::{AttemptId, Tier, Timestamp};

use super::config::AgentSizes;
use super::window::Window;
use super::worker::{
    BUILD_SECONDS_MAX, Busy, Fingerprint, Idle, STOP_AGAIN_SECONDS, Starting, Stopping, WorkerId,
};
use super::{
    BACKOFF_MILLIS_FIRST, BACKOFF_MILLIS_MAX, Claim, Effect, Event, FAILURE_TEXT_BYTES_MAX,
    GROW_CLAIMS_MIN, GROW_MISS_PERCENT, GROW_WAITING_COUNT, GROW_WINDOW_MINUTES, Miss, StopReason,
};

/// Whether workers can be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Ready(Fingerprint),
    Unavailable(String),
}

/// What happened since the server began.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) hits: u64,
    pub(super) misses: BTreeMap<Miss, u64>,
    pub(super) built: u64,
    pub(super) builds_failed: u64,
    pub(super) lost: u64,
    pub(super) last_failure: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct AgentPool {
    pub(super) sizes: AgentSizes,
    /// How many warm workers there are to be now: from the minimum, up by claims that found too few, down
    /// by workers that nobody used.
    pub(super) target: u32,
    pub(super) standing: Standing,
    pub(super) starting: BTreeMap<WorkerId, Starting>,
    pub(super) idle: BTreeMap<WorkerId, Idle>,
    pub(super) busy: BTreeMap<WorkerId, Busy>,
    pub(super) stopping: BTreeMap<WorkerId, Stopping>,
    pub(super) counts: Counts,
    pub(super) window: Window,
    pub(super) backoff_until: Option<Timestamp>,
    /// When a worker was last wanted.
    claimed_at: Timestamp,
    /// Turns of the pool in which a worker was last wanted and last built; 0 is never.
    pub(super) claimed_turn: u64,
    pub(super) built_turn: u64,
    /// Failures since a worker last proved good.
    failures: u32,
    /// The last idle worker that went was not claimed but lost.
    lost: bool,
    /// No new workers of this agent alone.
    pub(super) draining: bool,
}

impl AgentPool {
    pub(super) fn new(sizes: AgentSizes) -> Self {
        Self {
            sizes,
            target: sizes.min,
            standing: Standing::Unavailable("nobody has looked for its command yet".to_owned()),
            starting: BTreeMap::new(),
            idle: BTreeMap::new(),
            busy: BTreeMap::new(),
            stopping: BTreeMap::new(),
            counts: Counts::default(),
            window: Window::default(),
            backoff_until: None,
            claimed_at: Timestamp::default(),
            claimed_turn: 0,
            built_turn: 0,
            failures: 0,
            lost: false,
            draining: false,
        }
    }

    pub(super) fn knows(&self, worker: WorkerId) -> bool {
        self.starting.contains_key(&worker)
            || self.idle.contains_key(&worker)
            || self.busy.contains_key(&worker)
            || self.stopping.contains_key(&worker)
    }

    /// Whether it came to be, and nobody stopped it.
    fn is_parked(&self, worker: WorkerId) -> bool {
        self.idle.contains_key(&worker) || self.busy.contains_key(&worker)
    }

    /// Warm workers, those that are being made included.
    pub(super) fn warm(&self) -> u32 {
        count(self.starting.len() + self.idle.len())
    }

    /// Warm workers beyond the minimum; negative below it.
    pub(super) fn surplus(&self) -> i64 {
        i64::from(self.warm()) - i64::from(self.sizes.min)
    }

    /// Whether another worker is to be made, and can be.
    pub(super) fn wants_worker(&self) -> bool {
        let ready = matches!(self.standing, Standing::Ready(_)) && self.backoff_until.is_none();
        ready && !self.draining && self.warm() < self.target
    }

    /// How much it lacks: whether that is below the minimum, and how much of it, per mille.
    pub(super) fn shortage(&self) -> (bool, u32) {
        let below = self.warm() < self.sizes.min;
        let goal = if below { self.sizes.min } else { self.target };
        (below, goal.saturating_sub(self.warm()) * 1_000 / goal.max(1))
    }

    pub(super) fn build(&mut self, worker: WorkerId, turn: u64, now: Timestamp) {
        let before = self.starting.insert(worker, Starting { since: now });
        assert!(before.is_none(), "no two workers have one id");
        self.built_turn = turn;
        self.counts.built += 1;
    }

    /// Whether a worker that an earlier server left can go on: of the same size, made of the same.
    pub(super) fn accepts(&self, tier: Tier, fingerprint: Fingerprint) -> bool {
        let same = tier == self.sizes.tier && self.standing == Standing::Ready(fingerprint);
        same && !self.draining && self.warm() < self.sizes.max
    }

    pub(super) fn adopt(&mut self, worker: WorkerId, made_at: Timestamp, now: Timestamp) {
        let before = self.idle.insert(worker, Idle::new(made_at, now));
        assert!(before.is_none(), "no worker is adopted twice");
        self.target = self.target.max(self.warm());
    }

    /// An event of one of its workers.
    pub(super) fn apply(
        &mut self,
        worker: WorkerId,
        event: &Event,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match event {
            Event::Started { .. } => {
                if let Some(starting) = self.starting.remove(&worker) {
                    self.idle.insert(worker, starting.started(now));
                    self.lost = false;
                }
            }
            Event::BuildFailed { reason, .. } if !self.is_parked(worker) => {
                self.ended(worker, reason, now);
            }
            Event::WorkerEnded { reason, .. } => self.ended(worker, reason, now),
            Event::HealthPassed { .. } if self.idle.contains_key(&worker) => self.failures = 0,
            Event::HealthFailed { reason, .. } if self.idle.contains_key(&worker) => {
                self.stop(worker, StopReason::Unhealthy, now, effects);
                self.lost(reason, now);
            }
            Event::ClaimFailed { reason, .. } if self.busy.contains_key(&worker) => {
                self.stop(worker, StopReason::Unhealthy, now, effects);
                self.lost(reason, now);
                self.counts.hits -= 1;
                self.window.now(now).missed += 1;
                *self.counts.misses.entry(Miss::Unhealthy).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Nothing of it is left.
    fn ended(&mut self, worker: WorkerId, reason: &str, now: Timestamp) {
        self.busy.remove(&worker);
        self.stopping.remove(&worker);
        if self.starting.remove(&worker).is_some() {
            self.counts.builds_failed += 1;
            self.failed(reason, now);
        }
        if self.idle.remove(&worker).is_some() {
            self.lost(reason, now);
        }
    }

    /// The worker that attempt has already.
    pub(super) fn worker_of(&self, attempt: AttemptId) -> Option<WorkerId> {
        self.busy.iter().find(|(_, busy)| busy.attempt == attempt).map(|(worker, _)| *worker)
    }

    /// Takes a worker for an attempt: the one that was parked last, so that what is not needed grows old
    /// and is stopped.
    pub(super) fn claim(&mut self, claim: &Claim, draining: bool) -> Result<WorkerId, Miss> {
        if self.sizes.max == 0 {
            return Err(Miss::Disabled);
        }
        if claim.tier != self.sizes.tier {
            return Err(Miss::OtherTier);
        }
        if matches!(self.standing, Standing::Unavailable(_)) {
            return Err(Miss::Unavailable);
        }
        if draining {
            return Err(Miss::Draining);
        }
        let newest = self.idle.iter().max_by_key(|(worker, idle)| (idle.since, **worker));
        let Some(worker) = newest.map(|(worker, _)| *worker) else { return Err(self.lack()) };
        let idle = self.idle.remove(&worker).expect("it was just seen");
        let before = self.busy.insert(worker, idle.claim(claim.attempt));
        assert!(before.is_none(), "a worker serves one attempt");
        self.failures = 0;
        Ok(worker)
    }

    fn lack(&self) -> Miss {
        if !self.starting.is_empty() {
            Miss::Starting
        } else if self.backoff_until.is_some() {
            Miss::BackingOff
        } else if self.lost {
            Miss::Unhealthy
        } else {
            Miss::Exhausted
        }
    }

    pub(super) fn note(&mut self, answer: Result<WorkerId, Miss>, turn: u64, now: Timestamp) {
        (self.claimed_at, self.claimed_turn) = (now, turn);
        let claims = self.window.now(now);
        claims.all += 1;
        match answer {
            Ok(_) => self.counts.hits += 1,
            Err(miss) => {
                claims.missed += 1;
                claims.short += u64::from(miss.is_short());
                *self.counts.misses.entry(miss).or_default() += 1;
            }
        }
    }

    /// One more from now on, if this claim shows that there are too few.
    pub(super) fn grow(&mut self, answer: Result<WorkerId, Miss>, waiting: u32, now: Timestamp) {
        let recent = self.window.recent(now, GROW_WINDOW_MINUTES);
        let missing = recent.short * 100 > recent.all * GROW_MISS_PERCENT;
        let short = answer.is_err_and(Miss::is_short);
        let by_rate = short && missing && recent.all >= GROW_CLAIMS_MIN;
        let by_queue = waiting >= GROW_WAITING_COUNT && (short || answer.is_ok());
        if (by_rate || by_queue) && self.target < self.sizes.max {
            self.target += 1;
        }
    }

    /// A worker did not come to be, or went before it was used. What fails while it backs off already is
    /// the same mishap: all workers may go at once.
    fn failed(&mut self, reason: &str, now: Timestamp) {
        self.counts.last_failure = Some(bounded(reason));
        if self.backoff_until.is_some_and(|until| until > now) {
            return;
        }
        let times = 2_u64.saturating_pow(self.failures);
        let millis = BACKOFF_MILLIS_FIRST.saturating_mul(times).min(BACKOFF_MILLIS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.backoff_until = Some(now.plus_millis(millis));
    }

    fn lost(&mut self, reason: &str, now: Timestamp) {
        self.counts.lost += 1;
        self.lost = true;
        self.failed(reason, now);
    }

    /// Whether other workers are made from now on than so far; then backing off from the old is over.
    pub(super) fn set_standing(&mut self, standing: Standing) -> bool {
        let changed = self.standing != standing;
        if changed {
            (self.failures, self.backoff_until, self.target) = (0, None, self.sizes.min);
        }
        self.standing = standing;
        changed
    }

    pub(super) fn stop(
        &mut self,
        worker: WorkerId,
        why: StopReason,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let starting = self.starting.remove(&worker).is_some();
        let idle = self.idle.remove(&worker).is_some();
        let busy = self.busy.remove(&worker).is_some();
        assert!(starting || idle || busy, "what is stopped was there");
        self.stopping.insert(worker, Stopping { asked_at: now, why });
        effects.push(Effect::Stop { worker, why });
    }

    /// Stops everything that no attempt has.
    pub(super) fn stop_warm(&mut self, why: StopReason, now: Timestamp, effects: &mut Vec<Effect>) {
        let warm: Vec<_> = self.starting.keys().chain(self.idle.keys()).copied().collect();
        for worker in warm {
            self.stop(worker, why, now, effects);
        }
    }

    /// What time alone asks for.
    pub(super) fn settle(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.backoff_until = self.backoff_until.filter(|until| *until > now);
        let slow = |starting: &Starting| build_ends_at(starting) <= now;
        while let Some((worker, _)) = self.starting.iter().find(|(_, starting)| slow(starting)) {
            self.stop(*worker, StopReason::TooSlow, now, effects);
            self.counts.builds_failed += 1;
            self.failed(&format!("it was not ready after {BUILD_SECONDS_MAX} s"), now);
        }
        for (worker, stopping) in &mut self.stopping {
            if stop_again_at(stopping) <= now {
                stopping.asked_at = now;
                effects.push(Effect::Stop { worker: *worker, why: stopping.why });
            }
        }
        while let Some((_, worker)) = self.surplus_at().filter(|(at, _)| *at <= now) {
            self.stop(worker, StopReason::Surplus, now, effects);
            self.target = self.target.min(self.warm()).max(self.sizes.min);
        }
        if self.relents_at().is_some_and(|at| at <= now) {
            self.target = self.warm().max(self.sizes.min);
        }
    }

    /// Stops the oldest worker if it is due for another; whether it was.
    pub(super) fn renew(
        &mut self,
        age_millis: u64,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let due = self.renewal_at(age_millis).filter(|(at, _)| *at <= now);
        if let Some((_, worker)) = due {
            self.stop(worker, StopReason::TooOld, now, effects);
        }
        due.is_some()
    }

    /// The worker that was parked first, and when nobody used it in its warm time.
    fn unused_at(&self) -> Option<(Timestamp, WorkerId)> {
        let (since, worker) = self.idle.iter().map(|(worker, idle)| (idle.since, *worker)).min()?;
        Some((since.plus_millis(self.sizes.warm_seconds * 1_000), worker))
    }

    /// When that one is one too many.
    fn surplus_at(&self) -> Option<(Timestamp, WorkerId)> {
        self.unused_at().filter(|_| self.surplus() > 0)
    }

    /// When the target gives up workers that are not made yet: there is one that nobody uses, or no worker
    /// was wanted for as long.
    fn relents_at(&self) -> Option<Timestamp> {
        let unwanted_at = self.claimed_at.plus_millis(self.sizes.warm_seconds * 1_000);
        let at = self.unused_at().map_or(unwanted_at, |(at, _)| at.min(unwanted_at));
        (self.target > self.warm().max(self.sizes.min)).then_some(at)
    }

    /// When the worker that was made first is to be replaced: one by one, and not while others are missing.
    pub(super) fn renewal_at(&self, age_millis: u64) -> Option<(Timestamp, WorkerId)> {
        let whole = self.starting.is_empty() && self.warm() >= self.target;
        let oldest = self.idle.iter().map(|(worker, idle)| (idle.made_at, *worker)).min();
        let (made_at, worker) = oldest.filter(|_| whole && self.backoff_until.is_none())?;
        Some((made_at.plus_millis(age_millis), worker))
    }

    /// When [`settle`](Self::settle) has something to do, or a worker is to be looked at.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let instants = self.starting.values().map(build_ends_at);
        let instants = instants.chain(self.stopping.values().map(stop_again_at));
        let instants = instants.chain(self.idle.values().map(|idle| idle.check_at));
        let instants = instants.chain(self.backoff_until).chain(self.relents_at());
        instants.chain(self.surplus_at().map(|(at, _)| at)).min()
    }
}

const fn build_ends_at(starting: &Starting) -> Timestamp {
    starting.since.plus_millis(BUILD_SECONDS_MAX * 1_000)
}

const fn stop_again_at(stopping: &Stopping) -> Timestamp {
    stopping.asked_at.plus_millis(STOP_AGAIN_SECONDS * 1_000)
}

/// Text of others, cut to what is kept of it.
pub(super) fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX)].to_owned()
}

/// As the bounds are: far below what it holds.
pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
