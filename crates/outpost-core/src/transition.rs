//! The transitions: one function per event, each with its guard, its change and its effects.

use outpost_types::{
    AttemptId, DispatchStatus, Failure, FailureCode, Network, Timestamp,
    limits::{PARKED_SECONDS_MAX, PROVISION_TRIES_MAX},
};
use thiserror::Error;

use crate::dispatch::{Dispatch, QueueReason, State, Stop};
use crate::effect::{Transition, effects};
use crate::event::{AgentVerdict, Event, ExitFacts, PreparedFacts, ResultFacts};

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Rejection {
    /// It is terminal already.
    #[error("the dispatch is already {0}")]
    Terminal(DispatchStatus),
    /// The event is of an attempt that is not the current one.
    #[error("the event belongs to an older attempt")]
    StaleAttempt,
    /// The event has no meaning in this state, or says what is known already.
    #[error("the event has no meaning while the dispatch is {0}")]
    NotApplicable(DispatchStatus),
}

/// Applies one event. `Ok` is a change that must be stored before its effects are executed; `Err`
/// leaves the record as it was.
///
/// # Errors
/// [`Rejection`] says why the event changes nothing; that is normal for late and repeated events.
pub fn step(dispatch: &Dispatch, event: &Event, now: Timestamp) -> Result<Transition, Rejection> {
    let status = dispatch.status();
    if status.is_terminal() {
        return Err(Rejection::Terminal(status));
    }
    let next = match event {
        Event::Placed => placed(dispatch, now),
        Event::MustWait(reason) => must_wait(dispatch, *reason),
        Event::AgentStarted { attempt, prepared } => {
            current(dispatch, *attempt)?;
            agent_started(dispatch, prepared, now)
        }
        Event::ProvisionFailed { attempt, failure, retry } => {
            current(dispatch, *attempt)?;
            provision_failed(dispatch, *attempt, failure, *retry, now)
        }
        Event::AgentExited { attempt, exit } => {
            current(dispatch, *attempt)?;
            agent_exited(dispatch, *exit, now)
        }
        Event::DeadlinePassed { attempt } => {
            current(dispatch, *attempt)?;
            deadline_passed(dispatch, now)
        }
        Event::Parked { attempt, until } => {
            current(dispatch, *attempt)?;
            parked(dispatch, *until, now)
        }
        Event::Expired => expired(dispatch, now),
        Event::CancelRequested { reason } => cancel_requested(dispatch, reason.clone(), now),
        Event::NetworkChanged { from, to } => network_changed(dispatch, from, to),
        Event::Collected { attempt, results } => {
            current(dispatch, *attempt)?;
            collected(dispatch, results, now)
        }
        Event::WorkerLost { attempt } => {
            current(dispatch, *attempt)?;
            worker_lost(dispatch, *attempt, now)
        }
    };
    let next = next.ok_or(Rejection::NotApplicable(status))?;
    assert_lawful(dispatch, &next);
    Ok(Transition { effects: effects(Some(dispatch), &next), next })
}

/// How long to wait before provisioning is tried again, milliseconds, after `failures` failures.
#[must_use]
pub fn provision_backoff_millis(failures: u32) -> u64 {
    const FIRST_MILLIS: u64 = 500;
    const FACTOR: u64 = 4;
    FIRST_MILLIS.saturating_mul(FACTOR.saturating_pow(failures.saturating_sub(1)))
}

fn current(dispatch: &Dispatch, attempt: AttemptId) -> Result<(), Rejection> {
    if dispatch.attempt_id() == Some(attempt) { Ok(()) } else { Err(Rejection::StaleAttempt) }
}

fn change(dispatch: &Dispatch, state: State) -> Dispatch {
    let mut next = dispatch.clone();
    next.state = state;
    next.generation += 1;
    next
}

fn end(dispatch: &Dispatch, state: State, now: Timestamp) -> Dispatch {
    let mut next = change(dispatch, state);
    next.completed_at = Some(now);
    next.facts.timings.total_millis = Some(now.millis_since(dispatch.created_at));
    next
}

fn stopped_state(dispatch: &Dispatch, stop: &Stop) -> State {
    match stop {
        Stop::Timeout => State::Timeout {
            failure: Failure::new(
                FailureCode::Timeout,
                format!(
                    "The agent was stopped after its {} seconds.",
                    dispatch.spec.timeout_seconds
                ),
            )
            .with_hint(
                "What it had changed is kept. Give a longer timeoutSeconds or a smaller task.",
            ),
        },
        Stop::Cancel { reason } => State::Cancelled {
            failure: Failure::new(
                FailureCode::Cancelled,
                reason.as_ref().map_or_else(
                    || "Cancelled by a client.".to_owned(),
                    |reason| format!("Cancelled by a client: {reason}"),
                ),
            ),
        },
    }
}

fn placed(dispatch: &Dispatch, now: Timestamp) -> Option<Dispatch> {
    let ready = match &dispatch.state {
        State::Pending => true,
        State::Queued { not_before, .. } => not_before.is_none_or(|at| at <= now),
        _ => false,
    };
    if !ready {
        return None;
    }
    let mut next = change(dispatch, State::Provisioning { stop: None });
    next.attempt += 1;
    next.facts.timings.queue_millis = Some(now.millis_since(dispatch.created_at));
    Some(next)
}

fn must_wait(dispatch: &Dispatch, reason: QueueReason) -> Option<Dispatch> {
    match &dispatch.state {
        State::Pending => Some(change(dispatch, State::Queued { reason, not_before: None })),
        State::Queued { reason: known, not_before } if *known != reason => {
            Some(change(dispatch, State::Queued { reason, not_before: *not_before }))
        }
        _ => None,
    }
}

fn agent_started(
    dispatch: &Dispatch,
    prepared: &PreparedFacts,
    now: Timestamp,
) -> Option<Dispatch> {
    let State::Provisioning { stop } = &dispatch.state else {
        return None;
    };
    let timeout = now.plus_millis(dispatch.spec.timeout_seconds.saturating_mul(1000));
    // Provisioning may outlast the deadline: even then the agent gets a moment to be stopped in.
    let deadline = timeout.min(dispatch.deadline_at().max(now));
    let mut next = change(dispatch, State::Running { deadline, stop: stop.clone() });
    next.started_at = Some(now);
    next.facts.branch.clone_from(&prepared.branch);
    next.facts.base_commit.clone_from(&prepared.base_commit);
    next.facts.isolation.clone_from(&prepared.isolation);
    let timings = &mut next.facts.timings;
    timings.fetch_millis = prepared.timings.fetch_millis;
    timings.checkout_millis = prepared.timings.checkout_millis;
    timings.setup_millis = prepared.timings.setup_millis;
    timings.sandbox_millis = prepared.timings.sandbox_millis;
    timings.warm = prepared.timings.warm;
    Some(next)
}

fn provision_failed(
    dispatch: &Dispatch,
    attempt: AttemptId,
    failure: &Failure,
    retry: bool,
    now: Timestamp,
) -> Option<Dispatch> {
    let State::Provisioning { stop } = &dispatch.state else {
        return None;
    };
    if let Some(stop) = stop {
        return Some(end(dispatch, stopped_state(dispatch, stop), now));
    }
    if !retry || attempt.number >= PROVISION_TRIES_MAX {
        return Some(end(dispatch, State::Failed { failure: failure.clone() }, now));
    }
    let at = now.plus_millis(provision_backoff_millis(attempt.number));
    Some(change(dispatch, State::Queued { reason: QueueReason::Retry, not_before: Some(at) }))
}

fn agent_exited(dispatch: &Dispatch, exit: ExitFacts, now: Timestamp) -> Option<Dispatch> {
    let State::Running { stop, .. } = &dispatch.state else {
        return None;
    };
    let mut next = change(dispatch, State::Completing { stop: stop.clone() });
    let facts = &mut next.facts;
    facts.exit_code = exit.code;
    facts.timings.first_output_millis = exit.first_output_millis;
    facts.timings.agent_millis = dispatch.started_at.map(|started| now.millis_since(started));
    Some(next)
}

fn deadline_passed(dispatch: &Dispatch, now: Timestamp) -> Option<Dispatch> {
    let State::Running { deadline, stop: None } = &dispatch.state else {
        return None;
    };
    if now < *deadline {
        return None;
    }
    Some(change(dispatch, State::Running { deadline: *deadline, stop: Some(Stop::Timeout) }))
}

/// Time in which the provider serves nobody is not the agent's: its end moves on by it, within a bound and the
/// deadline of the dispatch. Instants that several calls wait for count once.
fn parked(dispatch: &Dispatch, until: Timestamp, now: Timestamp) -> Option<Dispatch> {
    let State::Running { deadline, stop: None } = &dispatch.state else {
        return None;
    };
    let from = dispatch.facts.parked_until.map_or(now, |known| known.max(now));
    if until <= from {
        return None;
    }
    let moved = deadline.plus_millis(until.millis_since(from));
    let seconds_max = dispatch.spec.timeout_seconds.saturating_add(PARKED_SECONDS_MAX);
    let latest = dispatch.started_at?.plus_millis(seconds_max.saturating_mul(1000));
    let deadline = moved.min(latest).min(dispatch.deadline_at()).max(*deadline);
    let mut next = change(dispatch, State::Running { deadline, stop: None });
    next.facts.parked_until = Some(until);
    Some(next)
}

/// One that waited too long ends; a running one has a deadline of its own.
fn expired(dispatch: &Dispatch, now: Timestamp) -> Option<Dispatch> {
    if !dispatch.waits() || now < dispatch.deadline_at() {
        return None;
    }
    let message = format!(
        "No slot was free within its deadline of {} seconds.",
        dispatch.spec.deadline_seconds
    );
    let failure = Failure::new(FailureCode::Timeout, message)
        .with_hint("Dispatch it again with a longer deadlineSeconds or a higher priority.");
    Some(end(dispatch, State::Timeout { failure }, now))
}

fn cancel_requested(
    dispatch: &Dispatch,
    reason: Option<String>,
    now: Timestamp,
) -> Option<Dispatch> {
    let why = Stop::Cancel { reason };
    let state = match &dispatch.state {
        State::Pending | State::Queued { .. } => {
            return Some(end(dispatch, stopped_state(dispatch, &why), now));
        }
        State::Provisioning { stop: None } => State::Provisioning { stop: Some(why) },
        State::Running { deadline, stop: None } => {
            State::Running { deadline: *deadline, stop: Some(why) }
        }
        State::Completing { stop: None } => State::Completing { stop: Some(why) },
        _ => return None,
    };
    Some(change(dispatch, state))
}

/// Nothing follows from it by itself: whoever opens or holds the way out goes by the record. Once the agent
/// has ended nobody does.
fn network_changed(dispatch: &Dispatch, from: &Network, to: &Network) -> Option<Dispatch> {
    let ended = matches!(dispatch.state, State::Completing { .. });
    if ended || dispatch.network() != *from || from == to {
        return None;
    }
    let mut next = change(dispatch, dispatch.state.clone());
    next.facts.network = Some(to.clone());
    Some(next)
}

fn collected(dispatch: &Dispatch, results: &ResultFacts, now: Timestamp) -> Option<Dispatch> {
    let State::Completing { stop } = &dispatch.state else {
        return None;
    };
    let state = match (stop, &results.verdict) {
        (Some(stop), _) => stopped_state(dispatch, stop),
        (None, AgentVerdict::Completed) => State::Completed,
        (None, AgentVerdict::Failed(failure)) => State::Failed { failure: failure.clone() },
    };
    let mut next = end(dispatch, state, now);
    let facts = &mut next.facts;
    facts.summary.clone_from(&results.summary);
    facts.session_id.clone_from(&results.session_id);
    facts.usage.clone_from(&results.usage);
    facts.spend.clone_from(&results.spend);
    facts.files_changed = results.files_changed;
    facts.checks.clone_from(&results.checks);
    facts.timings.collect_millis = Some(results.collect_millis);
    Some(next)
}

fn worker_lost(dispatch: &Dispatch, attempt: AttemptId, now: Timestamp) -> Option<Dispatch> {
    let lost = || {
        Failure::new(FailureCode::LostWorker, "The worker vanished while it worked on this.")
            .with_hint("Dispatch it again; nothing of this attempt runs any more.")
    };
    match &dispatch.state {
        State::Provisioning { .. } => provision_failed(dispatch, attempt, &lost(), true, now),
        State::Running { stop: Some(stop), .. } | State::Completing { stop: Some(stop) } => {
            Some(end(dispatch, stopped_state(dispatch, stop), now))
        }
        State::Running { stop: None, .. } | State::Completing { stop: None } => {
            Some(end(dispatch, State::Failed { failure: lost() }, now))
        }
        _ => None,
    }
}

/// The laws no transition may break, whatever the event: checked in release builds too, because to
/// go on from an impossible record is worse than to stop.
fn assert_lawful(before: &Dispatch, after: &Dispatch) {
    assert!(!before.status().is_terminal(), "a terminal dispatch never changes");
    assert_eq!(after.generation, before.generation + 1, "generations have no gaps");
    let begins = !before.holds_slot() && after.holds_slot();
    assert_eq!(after.attempt, before.attempt + u32::from(begins), "one attempt per placement");
    assert_eq!(
        after.completed_at.is_some(),
        after.status().is_terminal(),
        "completed exactly when terminal"
    );
    assert!(after.id == before.id && after.tenant == before.tenant, "identity never changes");
}
