//! Who gets a slot next: first come, first served, within the limits of agent, tenant and host.

use std::collections::BTreeMap;

use outpost_types::{AgentId, DispatchId, TenantId, Timestamp};

use crate::dispatch::{Dispatch, QueueReason, State};

/// Most live attempts at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// On this host.
    pub host_attempts_max: u32,
    /// Of one tenant; `None` is no limit beyond the others.
    pub tenant_attempts_max: Option<u32>,
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
}

/// Slots in use. Always a count of records that hold one, never a number kept beside them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slots {
    total: u32,
    by_agent: BTreeMap<AgentId, u32>,
    by_tenant: BTreeMap<TenantId, u32>,
}

impl Slots {
    /// Counts the slots that these records hold.
    pub fn count<'a>(dispatches: impl IntoIterator<Item = &'a Dispatch>) -> Self {
        let mut slots = Self::default();
        for dispatch in dispatches.into_iter().filter(|dispatch| dispatch.holds_slot()) {
            slots.take(&dispatch.spec.agent, &dispatch.tenant);
        }
        slots
    }

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

    fn take(&mut self, agent: &AgentId, tenant: &TenantId) {
        self.total += 1;
        *self.by_agent.entry(agent.clone()).or_insert(0) += 1;
        *self.by_tenant.entry(tenant.clone()).or_insert(0) += 1;
    }

    fn refusal(&self, candidate: &Candidate<'_>, limits: &Limits) -> Option<QueueReason> {
        let of_tenant = self.by_tenant.get(candidate.tenant).copied().unwrap_or(0);
        if self.total >= limits.host_attempts_max {
            Some(QueueReason::HostLimit)
        } else if limits.tenant_attempts_max.is_some_and(|max| of_tenant >= max) {
            Some(QueueReason::TenantLimit)
        } else if self.of_agent(candidate.agent) >= limits.of_agent(candidate.agent) {
            Some(QueueReason::AgentLimit)
        } else {
            None
        }
    }
}

/// One that wants a slot.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its id; ids sort by age.
    pub id: DispatchId,
    /// Its agent.
    pub agent: &'a AgentId,
    /// Its tenant.
    pub tenant: &'a TenantId,
    /// Not before this instant.
    pub not_before: Option<Timestamp>,
}

impl<'a> Candidate<'a> {
    /// The record as a candidate, if it wants a slot.
    #[must_use]
    pub const fn of(dispatch: &'a Dispatch) -> Option<Self> {
        let not_before = match &dispatch.state {
            State::Pending => None,
            State::Queued { not_before, .. } => *not_before,
            _ => return None,
        };
        let (agent, tenant) = (&dispatch.spec.agent, &dispatch.tenant);
        Some(Self { id: dispatch.id, agent, tenant, not_before })
    }
}

/// What becomes of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It gets a slot.
    Place(DispatchId),
    /// It waits.
    Wait(DispatchId, QueueReason),
}

/// Decides for every candidate, oldest first. A candidate that backs off is left alone.
#[must_use]
pub fn place(
    candidates: &[Candidate<'_>],
    mut slots: Slots,
    limits: &Limits,
    now: Timestamp,
) -> Vec<Decision> {
    let mut in_order: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.not_before.is_none_or(|at| at <= now))
        .collect();
    in_order.sort_unstable_by_key(|candidate| candidate.id);
    let mut decisions = Vec::with_capacity(in_order.len());
    for candidate in in_order {
        decisions.push(match slots.refusal(candidate, limits) {
            Some(reason) => Decision::Wait(candidate.id, reason),
            None => {
                slots.take(candidate.agent, candidate.tenant);
                Decision::Place(candidate.id)
            }
        });
    }
    decisions
}
