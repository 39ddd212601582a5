//! Slots are never given beyond a limit, never left empty while somebody could use one, and shared
//! fairly between tenants.

use std::collections::BTreeMap;

use outpost_core::{Dispatch, Event, Limits, Queue, QueueReason, WorkspaceName, step};
use outpost_types::{Priority, Timestamp};
use proptest::prelude::*;

use crate::lifecycle::{dispatch, provision_failure};

const AGENTS: [&str; 3] = ["claude", "codex", "own"];
const TENANTS: [&str; 2] = ["a", "b"];
const USERS: [&str; 2] = ["ann", "bob"];
const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];
const NOW: Timestamp = Timestamp::from_millis(1_000);

fn limits() -> impl Strategy<Value = Limits> {
    let quota = || proptest::option::of(0..4u32);
    (0..6u32, quota(), quota(), 0..4u32, 0..4u32).prop_map(|(host, tenant, own, default, codex)| {
        Limits {
            host_attempts_max: host,
            tenant_attempts_max: tenant,
            tenant_attempts_max_of: own
                .map(|own| (TENANTS[1].parse().unwrap(), own))
                .into_iter()
                .collect(),
            agent_attempts_max_default: default,
            agent_attempts_max: BTreeMap::from([("codex".parse().unwrap(), codex)]),
        }
    })
}

fn wide(host: u32) -> Limits {
    Limits {
        host_attempts_max: host,
        tenant_attempts_max: None,
        tenant_attempts_max_of: BTreeMap::new(),
        agent_attempts_max_default: u32::MAX,
        agent_attempts_max: BTreeMap::new(),
    }
}

/// Records and a queue that was told of every change.
struct World {
    records: Vec<Dispatch>,
    queue: Queue,
}

impl World {
    fn of(records: Vec<Dispatch>) -> Self {
        let mut queue = Queue::default();
        records.iter().for_each(|record| queue.observe(None, record));
        Self { records, queue }
    }

    fn apply(&mut self, index: usize, event: &Event, now: Timestamp) {
        let Ok(transition) = step(&self.records[index], event, now) else { return };
        self.queue.observe(Some(&self.records[index]), &transition.next);
        self.records[index] = transition.next;
    }

    /// Places until nobody can be placed; the order of who was.
    fn place_all(&mut self, limits: &Limits, now: Timestamp) -> Vec<usize> {
        let mut placed = Vec::new();
        while let Some(id) = self.queue.next(limits, now) {
            let index = self.records.iter().position(|record| record.id == id).unwrap();
            self.apply(index, &Event::Placed, now);
            assert!(self.records[index].holds_slot(), "{id} was next but cannot be placed");
            placed.push(index);
        }
        placed
    }

    fn count(&self, chosen: impl Fn(&Dispatch) -> bool) -> u32 {
        let holders = self.records.iter().filter(|record| record.holds_slot() && chosen(record));
        u32::try_from(holders.count()).unwrap()
    }

    fn check(&self, limits: &Limits) -> Result<(), TestCaseError> {
        prop_assert!(self.count(|_| true) <= limits.host_attempts_max);
        prop_assert_eq!(self.count(|_| true), self.queue.slots().total());
        for record in &self.records {
            let (agent, tenant) = (&record.spec.agent, &record.tenant);
            let of_agent = self.count(|other| other.spec.agent == *agent);
            prop_assert_eq!(of_agent, self.queue.slots().of_agent(agent));
            prop_assert!(of_agent <= limits.of_agent(agent));
            let of_tenant = self.count(|other| other.tenant == *tenant);
            prop_assert!(limits.of_tenant(tenant).is_none_or(|max| of_tenant <= max));
            let together = |other: &Dispatch| {
                other.tenant == *tenant && other.spec.workspace == record.spec.workspace
            };
            prop_assert!(record.spec.workspace.is_none() || self.count(together) <= 1);
        }
        Ok(())
    }
}

/// Agent, tenant, user of a persistent workspace, priority.
type One = (usize, usize, Option<usize>, usize);

fn population() -> impl Strategy<Value = Vec<One>> {
    let user = proptest::option::of(0..USERS.len());
    let one = (0..AGENTS.len(), 0..TENANTS.len(), user, 0..PRIORITIES.len());
    proptest::collection::vec(one, 0..16)
}

fn records(population: &[One]) -> Vec<Dispatch> {
    let record = |((agent, tenant, user, priority), serial): (&One, u64)| {
        let mut record = dispatch(AGENTS[*agent], TENANTS[*tenant], serial);
        record.spec.workspace = user.map(|user| workspace(USERS[user]));
        record.spec.priority = PRIORITIES[*priority];
        record
    };
    population.iter().zip(1..).map(record).collect()
}

fn workspace(user: &str) -> WorkspaceName {
    WorkspaceName { user: user.into(), repo: "o/r".into() }
}

fn shared(agent: &str, tenant: &str, user: &str, serial: u64) -> Dispatch {
    let mut record = dispatch(agent, tenant, serial);
    record.spec.workspace = Some(workspace(user));
    record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn limits_hold_and_no_slot_is_wasted(
        population in population(),
        limits in limits(),
        ends in proptest::collection::vec((0..16usize, 0..4u8), 0..24),
    ) {
        let mut world = World::of(records(&population));
        let mut now = NOW;
        world.place_all(&limits, now);
        world.check(&limits)?;
        for (index, how) in ends {
            now = now.plus_millis(400);
            let Some(record) = world.records.get(index) else { continue };
            let event = match (how, record.attempt_id()) {
                (0, Some(attempt)) => provision_failure(attempt, true),
                (1, Some(attempt)) => Event::WorkerLost { attempt },
                (2, _) => Event::MustWait(QueueReason::HostLimit),
                _ => Event::CancelRequested { reason: None },
            };
            world.apply(index, &event, now);
            world.place_all(&limits, now);
            world.check(&limits)?;
            // In step with the records: counting anew gives the same, but for who backs off.
            let mut anew = World::of(world.records.clone()).queue;
            let mut kept = world.queue.clone();
            prop_assert_eq!(anew.next(&limits, now), kept.next(&limits, now));
            prop_assert_eq!(anew, kept);
        }
        for record in &world.records {
            let waits = record.attempt_id().is_none() && !record.status().is_terminal();
            if waits {
                let reason = world.queue.reason(record, &limits);
                prop_assert!(reason.is_some(), "{} waits for nothing", record.id);
            }
        }
    }
}

/// A flood of one tenant delays another by nothing but the slots that are taken.
#[test]
fn a_quiet_tenant_is_next() {
    let mut flood: Vec<_> = (1..=1_000).map(|serial| dispatch("claude", "flood", serial)).collect();
    flood.push(dispatch("claude", "quiet", 2_000));
    let mut world = World::of(flood);
    // Nobody has a slot yet, so the oldest goes first; from then on the quiet one does.
    assert_eq!(world.place_all(&wide(2), NOW), [0, 1_000]);
}

#[test]
fn tenants_take_turns() {
    let mut all: Vec<_> = (1..=6).map(|serial| dispatch("claude", "a", serial)).collect();
    all.extend((7..=9).map(|serial| dispatch("codex", "b", serial)));
    let mut world = World::of(all);
    // Each time the tenant with fewer slots; between equals the one who waits longest.
    assert_eq!(world.place_all(&wide(6), NOW), [0, 6, 1, 7, 2, 8]);
}

#[test]
fn priority_orders_within_a_tenant_only() {
    let mut low = dispatch("claude", "a", 1);
    low.spec.priority = Priority::Low;
    let mut high = dispatch("claude", "a", 3);
    high.spec.priority = Priority::High;
    let other = dispatch("claude", "b", 4);
    let mut world = World::of(vec![low, dispatch("claude", "a", 2), high, other]);
    let positions: Vec<_> =
        world.records.iter().map(|record| world.queue.position(record)).collect();
    assert_eq!(positions, [Some(2), Some(1), Some(0), Some(0)]);
    assert_eq!(world.place_all(&wide(4), NOW), [2, 3, 1, 0]);
}

#[test]
fn a_full_agent_does_not_hold_up_another() {
    let mut limits = wide(10);
    limits.agent_attempts_max.insert("claude".parse().unwrap(), 1);
    let all =
        vec![dispatch("claude", "a", 1), dispatch("claude", "a", 2), dispatch("codex", "a", 3)];
    let mut world = World::of(all);
    assert_eq!(world.place_all(&limits, NOW), [0, 2]);
    assert_eq!(world.queue.reason(&world.records[1], &limits), Some(QueueReason::AgentLimit));
    assert_eq!(world.queue.waiting(), 1);
}

#[test]
fn one_at_a_time_in_a_workspace_and_nobody_else_is_held_up() {
    let mut high = shared("codex", "a", "ann", 3);
    high.spec.priority = Priority::High;
    let all = vec![
        shared("claude", "a", "ann", 1),
        shared("claude", "a", "ann", 2),
        high,
        shared("claude", "a", "bob", 4),
        shared("claude", "b", "ann", 5),
        dispatch("claude", "a", 6),
    ];
    let mut world = World::of(all);
    let limits = wide(10);
    // The head of ann's line, then one of each other workspace, and who is in none.
    assert_eq!(world.place_all(&limits, NOW), [2, 4, 3, 5]);
    let told = |world: &World, index: usize| {
        let record = &world.records[index];
        (world.queue.reason(record, &limits), world.queue.position(record))
    };
    assert_eq!(told(&world, 0), (Some(QueueReason::Workspace), Some(0)));
    assert_eq!(told(&world, 1), (Some(QueueReason::Workspace), Some(1)));
    let fresh = shared("codex", "a", "ann", 7);
    assert_eq!(world.queue.reason(&fresh, &limits), Some(QueueReason::Workspace));

    let attempt = world.records[2].attempt_id().unwrap();
    world.apply(2, &Event::WorkerLost { attempt }, NOW);
    assert_eq!(told(&world, 0), (None, Some(0)));
    assert_eq!(told(&world, 1), (Some(QueueReason::Workspace), Some(1)));
    world.apply(0, &Event::CancelRequested { reason: None }, NOW);
    assert_eq!(world.place_all(&limits, NOW), [1]);
}

/// The line keeps its order: who cannot have a slot yet holds up those of its line, and nobody else.
#[test]
fn the_head_of_a_line_waits_for_its_agent() {
    let mut limits = wide(10);
    limits.agent_attempts_max.insert("claude".parse().unwrap(), 1);
    let all = vec![
        dispatch("claude", "a", 1),
        shared("claude", "a", "ann", 2),
        shared("codex", "a", "ann", 3),
        dispatch("codex", "a", 4),
    ];
    let mut world = World::of(all);
    assert_eq!(world.place_all(&limits, NOW), [0, 3]);
    let reason = |index: usize| world.queue.reason(&world.records[index], &limits);
    assert_eq!(reason(1), Some(QueueReason::AgentLimit));
    assert_eq!(reason(2), Some(QueueReason::Workspace));
}

/// Who backs off is out of the line until its time.
#[test]
fn a_retry_leaves_its_line_and_comes_back() {
    let mut world =
        World::of(vec![shared("claude", "a", "ann", 1), shared("claude", "a", "ann", 2)]);
    assert_eq!(world.place_all(&wide(9), NOW), [0]);
    let attempt = world.records[0].attempt_id().unwrap();
    world.apply(0, &provision_failure(attempt, true), NOW);
    assert_eq!(world.place_all(&wide(9), NOW), [1]);
    let at = NOW.plus_millis(500);
    assert_eq!(world.place_all(&wide(9), at), [] as [usize; 0]);
    let reason = world.queue.reason(&world.records[0], &wide(9));
    assert_eq!(reason, Some(QueueReason::Workspace));
    world.apply(1, &Event::CancelRequested { reason: None }, at);
    let attempt = world.records[1].attempt_id().unwrap();
    world.apply(1, &provision_failure(attempt, false), at);
    assert_eq!(world.place_all(&wide(9), at), [0]);
}

#[test]
fn a_retry_waits_its_time_and_a_deadline_is_seen() {
    let mut world = World::of(vec![dispatch("claude", "a", 1)]);
    world.place_all(&wide(1), NOW);
    let attempt = world.records[0].attempt_id().unwrap();
    world.apply(0, &provision_failure(attempt, true), NOW);
    assert_eq!(world.queue.reason(&world.records[0], &wide(1)), Some(QueueReason::Retry));
    assert_eq!(world.place_all(&wide(1), NOW), [] as [usize; 0]);
    let at = world.queue.wake_at().unwrap();
    assert_eq!(at, NOW.plus_millis(500));
    assert_eq!(world.queue.due(at, 9), []);
    assert_eq!(world.place_all(&wide(1), at), [0]);

    let waiting = dispatch("claude", "a", 9);
    let (id, deadline) = (waiting.id, waiting.deadline_at());
    let mut world = World::of(vec![waiting]);
    assert_eq!(world.queue.wake_at(), Some(deadline));
    assert_eq!(world.queue.due(deadline, 9), [id]);
    world.apply(0, &Event::Expired, deadline);
    assert!(world.records[0].status().is_terminal());
    assert_eq!((world.queue.waiting(), world.queue.wake_at()), (0, None));
}
