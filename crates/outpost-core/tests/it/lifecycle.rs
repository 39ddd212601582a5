//! Random events in random order, stale and repeated ones included.

use std::collections::BTreeSet;

use outpost_core::{
    AgentDefaults, AgentVerdict, Dispatch, DispatchSpec, Effect, Event, ExitFacts, PreparedFacts,
    QueueReason, Rejection, ResultFacts, State, step,
};
use outpost_types::{
    AttemptId, DispatchId, DispatchRequest, DispatchStatus, Failure, FailureCode, KeyId, Network,
    NetworkLevel, TenantId, Tier, Timestamp, limits::PROVISION_TRIES_MAX,
};
use proptest::prelude::*;

pub(crate) fn dispatch(agent: &str, tenant: &str, serial: u64) -> Dispatch {
    let request =
        DispatchRequest { agent: agent.into(), task: "do it".into(), ..Default::default() };
    let defaults =
        AgentDefaults { agent: agent.parse().unwrap(), model_id: "model".into(), tier: Tier::Fast };
    Dispatch::accept(
        DispatchId::from_parts(serial, 0),
        tenant.parse::<TenantId>().unwrap(),
        KeyId::from_parts(0, 0),
        DispatchSpec::from_request(request, &defaults).unwrap(),
        Timestamp::from_millis(serial),
    )
}

fn results(verdict: AgentVerdict) -> Box<ResultFacts> {
    Box::new(ResultFacts {
        verdict,
        summary: Some("done".into()),
        session_id: None,
        usage: None,
        spend: None,
        files_changed: Some(1),
        checks: vec![],
        collect_millis: 3,
    })
}

pub(crate) fn provision_failure(attempt: AttemptId, retry: bool) -> Event {
    Event::ProvisionFailed { attempt, failure: failure(), retry }
}

fn failure() -> Failure {
    Failure::new(FailureCode::Provisioning, "no")
}

fn network(index: usize) -> Network {
    let level = [NetworkLevel::None, NetworkLevel::Trusted, NetworkLevel::Custom][index];
    Network { level, allow_hosts: Vec::new() }
}

fn event(dispatch: DispatchId) -> impl Strategy<Value = Event> {
    let attempt = (1..5u32).prop_map(move |number| AttemptId { dispatch, number });
    let reason = prop_oneof![Just(QueueReason::AgentLimit), Just(QueueReason::HostLimit)];
    prop_oneof![
        3 => Just(Event::Placed),
        1 => reason.prop_map(Event::MustWait),
        3 => attempt.clone().prop_map(|attempt| Event::AgentStarted {
            attempt,
            prepared: Box::new(PreparedFacts::default()),
        }),
        2 => (attempt.clone(), any::<bool>()).prop_map(|(attempt, retry)| {
            Event::ProvisionFailed { attempt, failure: failure(), retry }
        }),
        2 => attempt.clone().prop_map(|attempt| Event::AgentExited {
            attempt,
            exit: ExitFacts { code: Some(0), first_output_millis: None },
        }),
        1 => attempt.clone().prop_map(|attempt| Event::DeadlinePassed { attempt }),
        1 => (attempt.clone(), 0..900_000u64).prop_map(|(attempt, at)| Event::Parked {
            attempt,
            until: Timestamp::from_millis(at),
        }),
        1 => Just(Event::Expired),
        1 => Just(Event::CancelRequested { reason: Some("enough".into()) }),
        2 => (attempt.clone(), any::<bool>()).prop_map(|(attempt, ok)| Event::Collected {
            attempt,
            results: results(if ok {
                AgentVerdict::Completed
            } else {
                AgentVerdict::Failed(failure())
            }),
        }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(from, to)| Event::NetworkChanged {
            from: network(from),
            to: network(to),
        }),
        1 => attempt.prop_map(|attempt| Event::WorkerLost { attempt }),
    ]
}

fn history() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let id = DispatchId::from_parts(1, 0);
    proptest::collection::vec((event(id), 0..400_000u64), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_history_breaks_a_law(history in history()) {
        let mut record = dispatch("claude", "t", 1);
        let mut now = record.created_at;
        let mut started = BTreeSet::new();
        let mut stops = BTreeSet::new();
        let mut retired = BTreeSet::new();
        let mut terminal = None;
        for (event, later) in history {
            now = now.plus_millis(later);
            let before = record.clone();
            let Ok(transition) = step(&record, &event, now) else { continue };
            prop_assert!(terminal.is_none(), "left {:?} by {:?}", terminal, event);
            record = transition.next;
            prop_assert!(record.attempt >= before.attempt);
            if let State::Running { deadline, .. } = &record.state {
                let latest = record.deadline_at().max(record.started_at.unwrap_or_default());
                prop_assert!(*deadline <= latest, "{deadline} is after {latest}");
            }
            prop_assert!(record.attempt <= PROVISION_TRIES_MAX);
            for effect in transition.effects {
                match effect {
                    Effect::StartAttempt(attempt) => {
                        prop_assert!(started.insert(attempt), "{attempt} started twice");
                        prop_assert_eq!(Some(attempt), record.attempt_id());
                    }
                    Effect::StopAgent { attempt, .. } => {
                        prop_assert!(stops.insert((attempt, "stop")));
                    }
                    Effect::Retire(attempt) => {
                        prop_assert!(started.contains(&attempt));
                        prop_assert!(retired.insert(attempt), "{attempt} retired twice");
                    }
                    _ => {}
                }
            }
            if record.status().is_terminal() {
                terminal = Some(record.status());
                prop_assert_eq!(&started, &retired, "every started attempt is retired");
                let ok = record.status() == DispatchStatus::Completed;
                prop_assert_eq!(ok, record.failure().is_none());
            }
            let json = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Dispatch>(&json).unwrap(), &record);
        }
        // Liveness: whatever happened, the world can still bring it to an end.
        let ended = drive_to_end(record, now);
        prop_assert!(ended.status().is_terminal());
    }
}

/// Answers every state the way a working world would.
fn drive_to_end(mut record: Dispatch, mut now: Timestamp) -> Dispatch {
    for _ in 0..20 {
        now = now.plus_millis(100_000);
        let attempt = record.attempt_id();
        let event = match (&record.state, attempt) {
            (State::Pending | State::Queued { .. }, _) => Event::Placed,
            (State::Provisioning { .. }, Some(attempt)) => {
                Event::AgentStarted { attempt, prepared: Box::default() }
            }
            (State::Running { .. }, Some(attempt)) => {
                Event::AgentExited { attempt, exit: ExitFacts::default() }
            }
            (State::Completing { .. }, Some(attempt)) => {
                Event::Collected { attempt, results: results(AgentVerdict::Completed) }
            }
            _ => return record,
        };
        record = step(&record, &event, now).unwrap().next;
    }
    record
}

fn at(record: &Dispatch, event: &Event, millis: u64) -> Dispatch {
    step(record, event, Timestamp::from_millis(millis)).unwrap().next
}

fn started(record: &Dispatch, millis: u64) -> Dispatch {
    let placed = at(record, &Event::Placed, millis);
    let attempt = placed.attempt_id().unwrap();
    at(&placed, &Event::AgentStarted { attempt, prepared: Box::default() }, millis)
}

#[test]
fn the_usual_way() {
    let record = started(&dispatch("claude", "t", 1), 10);
    assert_eq!(record.status(), DispatchStatus::Running);
    let attempt = record.attempt_id().unwrap();
    let exit = ExitFacts { code: Some(0), first_output_millis: Some(5) };
    let record = at(&record, &Event::AgentExited { attempt, exit }, 50);
    assert_eq!(record.status(), DispatchStatus::Completing);
    let done = results(AgentVerdict::Completed);
    let record = at(&record, &Event::Collected { attempt, results: done }, 60);
    assert_eq!(record.status(), DispatchStatus::Completed);
    let view = record.view();
    assert_eq!((view.exit_code, view.timings.total_millis), (Some(0), Some(59)));
    assert_eq!((view.timings.queue_millis, view.timings.agent_millis), (Some(9), Some(40)));
}

#[test]
fn a_timeout_stops_once_and_wins_over_the_agents_account() {
    let record = started(&dispatch("claude", "t", 1), 0);
    let attempt = record.attempt_id().unwrap();
    let deadline = Event::DeadlinePassed { attempt };
    let early = step(&record, &deadline, Timestamp::from_millis(599_999));
    assert_eq!(early, Err(Rejection::NotApplicable(DispatchStatus::Running)));
    let stopping = at(&record, &deadline, 600_000);
    assert!(step(&stopping, &deadline, Timestamp::from_millis(600_001)).is_err());
    let exited =
        at(&stopping, &Event::AgentExited { attempt, exit: ExitFacts::default() }, 600_100);
    let done = results(AgentVerdict::Completed);
    let ended = at(&exited, &Event::Collected { attempt, results: done }, 600_200);
    assert_eq!(ended.status(), DispatchStatus::Timeout);
    assert_eq!(ended.facts.files_changed, Some(1), "what it had changed is kept");
}

#[test]
fn a_deadline_ends_the_wait_and_shortens_the_run() {
    let mut record = dispatch("claude", "t", 1);
    record.spec.deadline_seconds = 60;
    let at_deadline = record.deadline_at().as_millis();
    let early = step(&record, &Event::Expired, Timestamp::from_millis(at_deadline - 1));
    assert!(early.is_err());
    let ended = at(&record, &Event::Expired, at_deadline);
    assert_eq!(ended.status(), DispatchStatus::Timeout);
    assert!(ended.failure().unwrap().message.contains("60 seconds"));
    let running = started(&record, 10_000);
    let State::Running { deadline, .. } = running.state else { panic!("{running:?}") };
    assert_eq!(deadline.as_millis(), at_deadline);
    assert!(step(&running, &Event::Expired, Timestamp::from_millis(at_deadline)).is_err());
}

#[test]
fn a_cancel_while_provisioning_never_starts_the_agent_again() {
    let record = at(&dispatch("claude", "t", 1), &Event::Placed, 1);
    let cancelled = at(&record, &Event::CancelRequested { reason: None }, 2);
    assert_eq!(cancelled.status(), DispatchStatus::Provisioning);
    let attempt = cancelled.attempt_id().unwrap();
    let failed = Event::ProvisionFailed { attempt, failure: failure(), retry: true };
    assert_eq!(at(&cancelled, &failed, 3).status(), DispatchStatus::Cancelled);
    // The agent may have been started in the same moment: then it is stopped.
    let raced = Event::AgentStarted { attempt, prepared: Box::default() };
    let transition = step(&cancelled, &raced, Timestamp::from_millis(3)).unwrap();
    assert!(transition.effects.iter().any(|e| matches!(e, Effect::StopAgent { .. })));
}

#[test]
fn provisioning_is_retried_with_backoff_and_then_fails() {
    let mut record = dispatch("claude", "t", 1);
    let mut millis = 0;
    for number in 1..=PROVISION_TRIES_MAX {
        record = at(&record, &Event::Placed, millis);
        assert_eq!(record.attempt, number);
        let attempt = record.attempt_id().unwrap();
        let failed = Event::ProvisionFailed { attempt, failure: failure(), retry: true };
        record = at(&record, &failed, millis);
        if number < PROVISION_TRIES_MAX {
            let early = step(&record, &Event::Placed, Timestamp::from_millis(millis));
            assert!(early.is_err(), "placed before the backoff is over");
        }
        millis += 60_000;
    }
    assert_eq!(record.status(), DispatchStatus::Failed);
}

#[test]
fn a_lost_worker_is_never_started_again_once_the_agent_began() {
    let record = started(&dispatch("claude", "t", 1), 0);
    let attempt = record.attempt_id().unwrap();
    let ended = at(&record, &Event::WorkerLost { attempt }, 5);
    assert_eq!(ended.failure().unwrap().code, FailureCode::LostWorker);
    assert_eq!(ended.status(), DispatchStatus::Failed);
}
