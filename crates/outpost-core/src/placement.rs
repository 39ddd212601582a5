//! Who gets a slot next, within the limits of agent, tenant and host.
//!
//! Fair between tenants: the one that uses the fewest slots is served first, so a flood of one
//! tenant never delays another's by more than the slots that are taken. Within a tenant: higher
//! priority first, then first come, first served. In a persistent workspace one works at a time; those
//! who wait for it stand in a line of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use outpost_types::{AgentId, DispatchId, Priority, TenantId, Timestamp};

use crate::dispatch::{Dispatch, QueueReason, State};
use crate::drain::Drains;
use crate::line::{self, Line, Lines};

/// Most live attempts at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// On this host.
    pub host_attempts_max: u32,
    /// Of one tenant, where not said otherwise; `None` is no limit beyond the others.
    pub tenant_attempts_max: Option<u32>,
    /// Of tenants for which it is said otherwise; one with 0 waits.
    pub tenant_attempts_max_of: BTreeMap<TenantId, u32>,
    /// Of one agent, where not said otherwise.
    pub agent_attempts_max_default: u32,
    /// Of agents for which it is said otherwise.
    pub agent_attempts_max: BTreeMap<AgentId, u32>,
}

impl Limits {
    /// Most live attempts of that agent at once.
    #[must_use]
    pub fn of_agent(&self, agent: &AgentId) -> u32 {
        self.agent_attempts_max.get(agent).copied().unwrap_or(self.agent_attempts_max_default)
    }

    /// Most live attempts of that tenant at once.
    #[must_use]
    pub fn of_tenant(&self, tenant: &TenantId) -> Option<u32> {
        self.tenant_attempts_max_of.get(tenant).copied().or(self.tenant_attempts_max)
    }
}

/// Slots in use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slots {
    total: u32,
    by_agent: BTreeMap<AgentId, u32>,
    by_tenant: BTreeMap<TenantId, u32>,
}

impl Slots {
    /// All slots in use.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// Slots in use by that agent.
    #[must_use]
    pub fn of_agent(&self, agent: &AgentId) -> u32 {
        self.by_agent.get(agent).copied().unwrap_or(0)
    }

    fn of_tenant(&self, tenant: &TenantId) -> u32 {
        self.by_tenant.get(tenant).copied().unwrap_or(0)
    }

    fn take(&mut self, agent: &AgentId, tenant: &TenantId) {
        self.total += 1;
        *self.by_agent.entry(agent.clone()).or_insert(0) += 1;
        *self.by_tenant.entry(tenant.clone()).or_insert(0) += 1;
    }

    fn free(&mut self, agent: &AgentId, tenant: &TenantId) {
        self.total -= 1;
        lower(&mut self.by_agent, agent);
        lower(&mut self.by_tenant, tenant);
    }

    fn refusal(&self, agent: &AgentId, tenant: &TenantId, limits: &Limits) -> Option<QueueReason> {
        if self.total >= limits.host_attempts_max {
            Some(QueueReason::HostLimit)
        } else if limits.of_tenant(tenant).is_some_and(|max| self.of_tenant(tenant) >= max) {
            Some(QueueReason::TenantLimit)
        } else if self.of_agent(agent) >= limits.of_agent(agent) {
            Some(QueueReason::AgentLimit)
        } else {
            None
        }
    }
}

fn lower<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K) {
    let count = counts.get_mut(key).expect("a slot that is freed was taken");
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}

/// Order within a tenant and agent, and in the line of a workspace.
pub(crate) type Rank = (Reverse<Priority>, DispatchId);

/// What somebody who waits wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    key: (TenantId, AgentId),
    rank: Rank,
    workspace: Option<line::Key>,
}

impl Wish {
    fn of(dispatch: &Dispatch) -> Self {
        let workspace = line::key(dispatch);
        Self { key: key(dispatch), rank: rank(dispatch), workspace }
    }
}

/// Everybody who waits, every slot in use, and whatever time alone will change, kept in step with the
/// records by [`Queue::observe`]. It holds nothing that cannot be counted again from them but the drains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queue {
    slots: Slots,
    ready: BTreeMap<(TenantId, AgentId), BTreeSet<Rank>>,
    backing_off: BTreeSet<(Timestamp, DispatchId)>,
    held_back: BTreeMap<DispatchId, Wish>,
    lines: Lines,
    alarms: BTreeSet<(Timestamp, DispatchId)>,
    waiting: usize,
    drains: Drains,
}

impl Queue {
    /// Nothing of what these hold is placed. They are on record apart from the dispatches.
    pub fn set_drains(&mut self, drains: Drains) {
        self.drains = drains;
    }

    /// What nothing is placed of.
    #[must_use]
    pub const fn drains(&self) -> &Drains {
        &self.drains
    }

    fn refusal(&self, agent: &AgentId, tenant: &TenantId, limits: &Limits) -> Option<QueueReason> {
        let drained = self.drains.hold(agent).then_some(QueueReason::Draining);
        drained.or_else(|| self.slots.refusal(agent, tenant, limits))
    }

    /// Takes note of a change of a record; `before` is `None` for a new one.
    pub fn observe(&mut self, before: Option<&Dispatch>, after: &Dispatch) {
        if let Some(before) = before {
            self.forget(before);
        }
        if after.holds_slot() {
            self.slots.take(&after.spec.agent, &after.tenant);
            self.change_line(line::key(after), |line| line.inside += 1);
        }
        if let Some((at, _)) = after.alarm() {
            self.alarms.insert((at, after.id));
        }
        let Some(not_before) = waits(after) else { return };
        self.waiting += 1;
        match not_before {
            Some(at) => {
                self.backing_off.insert((at, after.id));
                self.held_back.insert(after.id, Wish::of(after));
            }
            None => self.enter(Wish::of(after)),
        }
    }

    fn forget(&mut self, before: &Dispatch) {
        if before.holds_slot() {
            self.slots.free(&before.spec.agent, &before.tenant);
            self.change_line(line::key(before), |line| line.inside -= 1);
        }
        let known = before.alarm().is_some_and(|(at, _)| self.alarms.remove(&(at, before.id)));
        let Some(not_before) = waits(before) else { return };
        self.waiting -= usize::from(known);
        if let Some(at) = not_before {
            self.backing_off.remove(&(at, before.id));
            self.held_back.remove(&before.id);
        }
        let Wish { key, rank, workspace } = Wish::of(before);
        match workspace {
            Some(_) => self.change_line(workspace, |line| drop(line.waiting.remove(&rank))),
            None => self.not_ready(&key, &rank),
        }
    }

    fn enter(&mut self, wish: Wish) {
        let Wish { key, rank, workspace } = wish;
        match workspace {
            Some(_) => self.change_line(workspace, |line| {
                line.waiting.insert(rank, key.1);
            }),
            None => drop(self.ready.entry(key).or_default().insert(rank)),
        }
    }

    fn not_ready(&mut self, key: &(TenantId, AgentId), rank: &Rank) {
        if let Some(ranks) = self.ready.get_mut(key) {
            ranks.remove(rank);
            if ranks.is_empty() {
                self.ready.remove(key);
            }
        }
    }

    /// Changes the line of a workspace; its head, and nobody else of it, is ready.
    fn change_line(&mut self, key: Option<line::Key>, edit: impl FnOnce(&mut Line)) {
        let Some(key) = key else { return };
        let (before, after) = self.lines.change(&key, edit);
        if before == after {
            return;
        }
        if let Some((agent, rank)) = before {
            self.not_ready(&(key.0.clone(), agent), &rank);
        }
        if let Some((agent, rank)) = after {
            self.ready.entry((key.0, agent)).or_default().insert(rank);
        }
    }

    /// Slots in use.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Dispatches that wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Who gets a slot now. The caller places it and [`observe`](Self::observe)s that before it asks
    /// again.
    pub fn next(&mut self, limits: &Limits, now: Timestamp) -> Option<DispatchId> {
        while let Some((at, id)) = self.backing_off.first().copied().filter(|(at, _)| *at <= now) {
            self.backing_off.remove(&(at, id));
            if let Some(wish) = self.held_back.remove(&id) {
                self.enter(wish);
            }
        }
        let may_go =
            |(tenant, agent): &(TenantId, AgentId)| self.refusal(agent, tenant, limits).is_none();
        let heads = self.ready.iter().filter(|(key, _)| may_go(key));
        let heads = heads.filter_map(|(key, ranks)| Some((&key.0, ranks.first()?)));
        let (_, rank) =
            heads.min_by_key(|(tenant, rank)| (self.slots.of_tenant(tenant), **rank))?;
        Some(rank.1)
    }

    /// Those that time alone changes now, at most `count_max` of them; [`Dispatch::alarm`] says how.
    #[must_use]
    pub fn due(&self, now: Timestamp, count_max: usize) -> Vec<DispatchId> {
        let due = self.alarms.iter().take_while(|(at, _)| *at <= now);
        due.take(count_max).map(|(_, id)| *id).collect()
    }

    /// When something changes by time alone.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let retry = self.backing_off.first().map(|(at, _)| *at);
        alarm.into_iter().chain(retry).min()
    }

    /// Why it waits; `None` when it does not, or is next.
    #[must_use]
    pub fn reason(&self, dispatch: &Dispatch, limits: &Limits) -> Option<QueueReason> {
        match waits(dispatch)? {
            Some(_) if self.held_back.contains_key(&dispatch.id) => Some(QueueReason::Retry),
            _ if self.lines.holds_up(dispatch) => Some(QueueReason::Workspace),
            _ => self.refusal(&dispatch.spec.agent, &dispatch.tenant, limits),
        }
    }

    /// How many of the same tenant and agent are before it, or in the line of its workspace. Others' are
    /// nobody's business.
    #[must_use]
    pub fn position(&self, dispatch: &Dispatch) -> Option<u32> {
        let rank = rank(dispatch);
        let ranks = self.ready.get(&key(dispatch)).filter(|ranks| ranks.contains(&rank));
        let before = match ranks {
            Some(ranks) => ranks.range(..rank).count(),
            None => self.lines.position(dispatch)?,
        };
        Some(u32::try_from(before).unwrap_or(u32::MAX))
    }
}

/// `None` when it does not wait for a slot; else the instant it holds back to, if any.
const fn waits(dispatch: &Dispatch) -> Option<Option<Timestamp>> {
    match &dispatch.state {
        State::Pending => Some(None),
        State::Queued { not_before, .. } => Some(*not_before),
        _ => None,
    }
}

fn key(dispatch: &Dispatch) -> (TenantId, AgentId) {
    (dispatch.tenant.clone(), dispatch.spec.agent.clone())
}

pub(crate) const fn rank(dispatch: &Dispatch) -> Rank {
    (Reverse(dispatch.spec.priority), dispatch.id)
}
