//! What must always be true, looked at whenever the world changes and once a second. It sees
//! everything, and nothing here has a part in the decisions of the server.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use outpost_core::{Dispatch, Limits, State, Stop};
use outpost_types::limits::{PROVISION_TRIES_MAX, STOP_GRACE_SECONDS};
use outpost_types::{AttemptId, DispatchId, DispatchStatus, FailureCode, Priority};

use crate::disk::Disk;
use crate::host::{BACKSTOP_SECONDS, Phase};
use crate::world::World;

/// How long the server is given to settle after its start, seconds.
const SETTLE_SECONDS: u64 = 12;
/// Longest sleep of a timer before it looks at the wall clock again, seconds, and some.
const TIMER_SECONDS_MAX: u64 = 63;
/// How late a timer may be while the clock does not jump, seconds.
const TIMER_SLACK_SECONDS: u64 = 4;
/// Slack for everything between the end of an agent and the record of it, seconds.
const COLLECT_SECONDS_MAX: u64 = 20;
/// How long somebody may wait beside a free slot, seconds.
const IDLE_SLOT_SECONDS_MAX: u64 = 12;

const SECOND_MICROS: u64 = 1_000_000;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Check {
    violation: Option<String>,
    begun: BTreeMap<AttemptId, u64>,
    acknowledged: BTreeSet<DispatchId>,
    by_key: BTreeMap<String, DispatchId>,
    cancels: BTreeMap<DispatchId, u64>,
    /// Those whose worker may really have been lost.
    excused: BTreeSet<DispatchId>,
    clock_jumped_at: Option<u64>,
    overdue_since: BTreeMap<DispatchId, u64>,
    stray_since: BTreeMap<AttemptId, u64>,
    idle_since: BTreeMap<DispatchId, u64>,
    /// How often each status was the last one.
    pub(crate) ends: BTreeMap<DispatchStatus, u64>,
}

macro_rules! require {
    ($check:expr, $condition:expr, $($what:tt)+) => {
        if !$condition {
            $check.violated(format!($($what)+));
        }
    };
}

impl Check {
    pub(crate) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(crate) const fn violation(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    pub(crate) const fn clock_jumped(&mut self, micros: u64) {
        self.clock_jumped_at = Some(micros);
    }

    /// The worker of this dispatch may be lost now, and nobody can be blamed.
    pub(crate) fn excuse(&mut self, id: DispatchId) {
        self.excused.insert(id);
    }

    pub(crate) fn excuse_all(&mut self, disk: &Disk) {
        let held = disk.records.values().filter(|record| record.holds_slot());
        self.excused.extend(held.map(|record| record.id));
    }

    /// Something outside is made for this attempt: it must be the current one, on disk.
    pub(crate) fn external(&mut self, world: &World, attempt: AttemptId) {
        let disk = world.disk.borrow();
        let record = disk.records.get(&attempt.dispatch);
        let known = record
            .is_some_and(|record| record.attempt_id() == Some(attempt) && record.holds_slot());
        require!(self, known, "{attempt} is made, but is not a live attempt on disk");
    }

    /// An agent's process starts.
    pub(crate) fn begun(&mut self, world: &World, attempt: AttemptId) {
        self.external(world, attempt);
        let starts = self.begun.entry(attempt).or_default();
        *starts += 1;
        let (starts, id) = (*starts, attempt.dispatch);
        require!(self, starts == 1, "the agent of {attempt} starts {starts} times");
        let earlier =
            self.begun.keys().any(|one| one.dispatch == id && one.number < attempt.number);
        require!(self, !earlier, "{attempt} starts an agent, but one of an earlier attempt began");
        world.trace(format_args!("{attempt}: the agent begins"));
    }

    /// A record was written.
    pub(crate) fn recorded(
        &mut self,
        world: &World,
        before: Option<&Dispatch>,
        after: &Dispatch,
        key: Option<&str>,
    ) {
        let (id, status) = (after.id, after.status());
        world.trace(format_args!("{id}: {status} (generation {})", after.generation));
        if let Some(key) = key {
            let first = *self.by_key.entry(key.to_owned()).or_insert(id);
            require!(self, first == id, "key {key} made both {first} and {id}");
        }
        let Some(before) = before else { return };
        let was = before.status();
        require!(self, !was.is_terminal(), "{id} was {was}, and becomes {status}");
        require!(self, after.generation == before.generation + 1, "{id} skips a generation");
        require!(self, after.attempt >= before.attempt, "{id} goes back to an older attempt");
        if status.is_terminal() {
            *self.ends.entry(status).or_default() += 1;
            self.ended(before, after);
        }
    }

    fn ended(&mut self, before: &Dispatch, after: &Dispatch) {
        let (id, status) = (after.id, after.status());
        if matches!(stop_of(before), Some(Stop::Cancel { .. })) {
            let cancelled = status == DispatchStatus::Cancelled;
            require!(self, cancelled, "{id} was to be cancelled, and ends {status}");
        }
        let began = self.begun.keys().any(|attempt| attempt.dispatch == id);
        let completed = status == DispatchStatus::Completed;
        require!(self, began || !completed, "{id} completed, and no agent of it ever began");
        let lost = after.failure().is_some_and(|failure| failure.code == FailureCode::LostWorker);
        let excused = self.excused.contains(&id);
        require!(self, !lost || excused, "{id} failed as lost, but only servers were restarted");
    }

    /// Slots in use never pass a limit.
    pub(crate) fn slots(&mut self, records: &BTreeMap<DispatchId, Dispatch>, limits: &Limits) {
        let held: Vec<_> = records.values().filter(|record| record.holds_slot()).collect();
        let count = |is: &dyn Fn(&Dispatch) -> bool| {
            u32::try_from(held.iter().filter(|record| is(record)).count()).unwrap_or(u32::MAX)
        };
        let total = count(&|_| true);
        require!(self, total <= limits.host_attempts_max, "{total} attempts on the host");
        for record in &held {
            let agent = &record.spec.agent;
            let of_agent = count(&|other| other.spec.agent == *agent);
            require!(self, of_agent <= limits.of_agent(agent), "{of_agent} attempts of {agent}");
            let of_tenant = count(&|other| other.tenant == record.tenant);
            let fits = limits.tenant_attempts_max.is_none_or(|max| of_tenant <= max);
            require!(self, fits, "{of_tenant} attempts of tenant {}", record.tenant);
            let together = count(&|other| same_workspace(record, other));
            require!(self, together <= 1, "{together} attempts in the workspace of {}", record.id);
        }
    }

    /// Every change of state has its audit entry, in the same write.
    pub(crate) fn audited(&mut self, after: &Dispatch, entries: Option<u64>) {
        let (id, generation, entries) = (after.id, after.generation, entries.unwrap_or(0));
        require!(self, entries == generation, "{id} has {entries} audit entries at {generation}");
    }

    /// An event was applied; those of an older attempt change nothing.
    pub(crate) fn applied(&mut self, before: &Dispatch, named: Option<AttemptId>) {
        let stale = named.is_some_and(|attempt| before.attempt_id() != Some(attempt));
        require!(self, !stale, "an event of {named:?} changed {} at {}", before.id, before.attempt);
    }

    /// A client heard that its dispatch was accepted.
    pub(crate) fn acknowledged(&mut self, world: &World, id: DispatchId, key: Option<&str>) {
        world.trace(format_args!("{id}: acknowledged"));
        let on_disk = world.disk.borrow().records.contains_key(&id);
        require!(self, on_disk, "{id} was acknowledged, but is not on disk");
        if let Some(key) = key {
            let first = *self.by_key.entry(key.to_owned()).or_insert(id);
            require!(self, first == id, "key {key} answered with {first} and with {id}");
        }
        self.acknowledged.insert(id);
    }

    /// A client heard that its cancel was accepted.
    pub(crate) fn cancel_acknowledged(&mut self, world: &World, id: DispatchId) {
        world.trace(format_args!("{id}: cancel acknowledged"));
        let disk = world.disk.borrow();
        let durable = disk
            .records
            .get(&id)
            .is_some_and(|record| record.status().is_terminal() || stop_of(record).is_some());
        require!(self, durable, "the cancel of {id} was acknowledged, but is not on disk");
        self.cancels.entry(id).or_insert_with(|| world.micros());
    }

    /// Looks at everything that has to do with time.
    pub(crate) fn tick(&mut self, world: &World) {
        let Some(up_since) = world.server.borrow().as_ref().and_then(|server| server.up_since())
        else {
            self.overdue_since.clear();
            self.stray_since.clear();
            self.idle_since.clear();
            return;
        };
        self.look_at_sandboxes(world, up_since);
        self.look_at_deadlines(world);
        self.look_at_slots(world);
    }

    fn look_at_sandboxes(&mut self, world: &World, up_since: u64) {
        let (now, host, disk) = (world.micros(), world.host.borrow(), world.disk.borrow());
        let troubled = now < disk.troubled_until;
        let mut strays = BTreeMap::new();
        for (attempt, kept) in &host.sandboxes {
            let record = disk.records.get(&attempt.dispatch);
            let live = record
                .is_some_and(|record| record.attempt_id() == Some(*attempt) && record.holds_slot());
            if !live {
                let since = self.stray_since.get(attempt).copied().unwrap_or(now);
                require!(
                    self,
                    now - since <= SETTLE_SECONDS * SECOND_MICROS,
                    "{attempt} has a sandbox, and no live attempt"
                );
                strays.insert(*attempt, since);
            }
            let Some(cancelled) = self.cancels.get(&attempt.dispatch) else { continue };
            let since = now - (*cancelled).max(up_since);
            let bound = (STOP_GRACE_SECONDS + SETTLE_SECONDS) * SECOND_MICROS;
            // The process itself must be gone, whatever the disk does.
            let alive = kept.phase == Phase::Running;
            require!(self, !alive || since <= bound || troubled, "{attempt} outlives its cancel");
        }
        self.stray_since = strays;
    }

    fn look_at_deadlines(&mut self, world: &World) {
        let (now, disk) = (world.micros(), world.disk.borrow());
        let jumped = self
            .clock_jumped_at
            .is_some_and(|at| now - at < (TIMER_SECONDS_MAX + STOP_GRACE_SECONDS) * SECOND_MICROS);
        let bound = if jumped { TIMER_SECONDS_MAX } else { TIMER_SLACK_SECONDS };
        let mut overdue = BTreeMap::new();
        for record in disk.records.values() {
            let State::Running { deadline, stop: None } = &record.state else { continue };
            if world.now() < *deadline || now < disk.troubled_until {
                continue;
            }
            let since = self.overdue_since.get(&record.id).copied().unwrap_or(now);
            let late = (now - since) / SECOND_MICROS;
            require!(self, late <= bound, "{} runs {late} s beyond its deadline", record.id);
            overdue.insert(record.id, since);
        }
        self.overdue_since = overdue;
    }

    fn look_at_slots(&mut self, world: &World) {
        let (now, disk, limits) = (world.micros(), world.disk.borrow(), &world.plan.limits);
        let held: Vec<_> = disk.records.values().filter(|record| record.holds_slot()).collect();
        let mut idle = BTreeMap::new();
        for record in disk.records.values().filter(|_| now >= disk.troubled_until) {
            let ready = match &record.state {
                State::Pending => true,
                State::Queued { not_before, .. } => not_before.is_none_or(|at| at <= world.now()),
                _ => false,
            };
            let count =
                |is: &dyn Fn(&Dispatch) -> bool| held.iter().filter(|other| is(other)).count();
            let (agent, tenant) = (&record.spec.agent, &record.tenant);
            let free = count(&|_| true) < limits.host_attempts_max as usize
                && count(&|other| other.spec.agent == *agent) < limits.of_agent(agent) as usize
                && limits
                    .tenant_attempts_max
                    .is_none_or(|max| count(&|other| other.tenant == *tenant) < max as usize);
            let first = disk.records.values().all(|other| {
                !same_workspace(record, other)
                    || !(other.holds_slot() || other.waits() && rank(other) < rank(record))
            });
            if ready && free && first {
                let since = self.idle_since.get(&record.id).copied().unwrap_or(now);
                let waited = (now - since) / SECOND_MICROS;
                require!(
                    self,
                    waited <= IDLE_SLOT_SECONDS_MAX,
                    "{} waits {waited} s beside a free slot",
                    record.id
                );
                idle.insert(record.id, since);
            }
        }
        self.idle_since = idle;
    }

    /// Everything is over: what was promised must have been kept.
    pub(crate) fn finish(&mut self, world: &World) {
        let (disk, host) = (world.disk.borrow(), world.host.borrow());
        for id in &self.acknowledged {
            let record = disk.records.get(id);
            let kept = record.is_some_and(|record| record.status().is_terminal());
            if !kept {
                self.violation
                    .get_or_insert_with(|| format!("{id} was acknowledged, and never ended"));
            }
        }
        for record in disk.records.values() {
            self.audited(record, disk.audits.get(&record.id).copied());
        }
        for attempt in host.sandboxes.keys() {
            self.violation
                .get_or_insert_with(|| format!("the sandbox of {attempt} is left behind"));
        }
        for attempt in host.dirs.keys() {
            self.violation
                .get_or_insert_with(|| format!("the directory of {attempt} is left behind"));
        }
    }

    /// How long everything may take once faults are over, seconds.
    pub(crate) fn drain_seconds_max(world: &World) -> u64 {
        const PROVISION_SECONDS: u64 = 20;
        let one = |timeout: u64| {
            timeout
                + STOP_GRACE_SECONDS
                + BACKSTOP_SECONDS
                + COLLECT_SECONDS_MAX
                + u64::from(PROVISION_TRIES_MAX) * PROVISION_SECONDS
        };
        let jobs: u64 = world.plan.jobs.iter().map(|job| one(job.timeout_seconds)).sum();
        // A retry that backs off waits for the wall clock, which may have been set back.
        jobs + 3 * crate::plan::JUMP_SECONDS_MAX + 60
    }
}

/// Whether both work in one persistent workspace.
fn same_workspace(one: &Dispatch, other: &Dispatch) -> bool {
    one.spec.workspace.is_some()
        && one.tenant == other.tenant
        && one.spec.workspace == other.spec.workspace
}

/// Their order in the line for it.
fn rank(record: &Dispatch) -> (Reverse<Priority>, DispatchId) {
    (Reverse(record.spec.priority), record.id)
}

fn stop_of(record: &Dispatch) -> Option<&Stop> {
    match &record.state {
        State::Provisioning { stop } | State::Running { stop, .. } | State::Completing { stop } => {
            stop.as_ref()
        }
        _ => None,
    }
}
