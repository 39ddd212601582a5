//! One case per decision, with the exact state and effects that follow from it.

use outpost_core::{
    AgentDefaults, AgentVerdict, Dispatch, DispatchSpec, Effect, Event, ExitFacts, Limits, Parent,
    Queue, QueueReason, Rejection, ResultFacts, State, Stop, changed_network, effects, step,
};
use outpost_types::limits::{
    ALLOW_HOSTS_COUNT_MAX, BRANCH_BYTES_MAX, CHECKS_COUNT_MAX, DEADLINE_SECONDS_DEFAULT,
    PARKED_SECONDS_MAX, TAG_BYTES_MAX, TAGS_COUNT_MAX,
};
use outpost_types::{
    AttemptId, DispatchRequest, DispatchStatus, ErrorCode, FailureCode, Network, NetworkLevel,
    NetworkRequest, Tier, Timestamp,
};

use crate::lifecycle::{dispatch, provision_failure};

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn fresh() -> Dispatch {
    dispatch("claude", "t", 1)
}

fn after(record: &Dispatch, event: &Event) -> (Dispatch, Vec<Effect>) {
    let transition = step(record, event, NOW).unwrap();
    (transition.next, transition.effects)
}

fn cancel() -> Event {
    Event::CancelRequested { reason: Some("enough".into()) }
}

fn placed() -> (Dispatch, AttemptId) {
    let record = after(&fresh(), &Event::Placed).0;
    let attempt = record.attempt_id().unwrap();
    (record, attempt)
}

fn running() -> (Dispatch, AttemptId) {
    let (record, attempt) = placed();
    (after(&record, &Event::AgentStarted { attempt, prepared: Box::default() }).0, attempt)
}

fn exited(record: &Dispatch, attempt: AttemptId) -> Dispatch {
    after(record, &Event::AgentExited { attempt, exit: ExitFacts::default() }).0
}

fn success(attempt: AttemptId) -> Event {
    let results = Box::new(ResultFacts {
        verdict: AgentVerdict::Completed,
        summary: None,
        session_id: None,
        usage: None,
        spend: None,
        files_changed: None,
        checks: vec![],
        collect_millis: 0,
    });
    Event::Collected { attempt, results }
}

fn limits(host: u32) -> Limits {
    Limits {
        host_attempts_max: host,
        tenant_attempts_max: None,
        tenant_attempts_max_of: std::collections::BTreeMap::new(),
        agent_attempts_max_default: 9,
        agent_attempts_max: std::collections::BTreeMap::new(),
    }
}

#[test]
fn the_first_attempt_is_number_one_and_there_is_none_before() {
    assert_eq!(fresh().attempt_id(), None);
    assert_eq!(fresh().view().artifact_url, None);
    let (record, attempt) = placed();
    assert_eq!((record.attempt, attempt.number), (1, 1));
}

#[test]
fn waiting_is_recorded_once_per_reason() {
    let (host, agent) = (QueueReason::HostLimit, QueueReason::AgentLimit);
    let (waits, effects) = after(&fresh(), &Event::MustWait(host));
    assert_eq!(waits.state, State::Queued { reason: host, not_before: None });
    assert_eq!(effects, []);
    assert_eq!(waits.view().queue_reason.as_deref(), Some("all slots of this host are taken"));
    let again = step(&waits, &Event::MustWait(host), NOW);
    assert_eq!(again, Err(Rejection::NotApplicable(DispatchStatus::Queued)));
    let (moved, _) = after(&waits, &Event::MustWait(agent));
    assert_eq!(moved.state, State::Queued { reason: agent, not_before: None });
    let (running, _) = running();
    assert!(step(&running, &Event::MustWait(host), NOW).is_err());
}

#[test]
fn another_reason_does_not_shorten_a_backoff() {
    let (record, attempt) = placed();
    let (retry, effects) = after(&record, &provision_failure(attempt, true));
    let State::Queued { reason: QueueReason::Retry, not_before: Some(at) } = retry.state else {
        panic!("{:?}", retry.state)
    };
    assert_eq!(at, NOW.plus_millis(500));
    assert_eq!(effects, [Effect::Retire(attempt), Effect::Place]);
    let (told, _) = after(&retry, &Event::MustWait(QueueReason::HostLimit));
    let kept = State::Queued { reason: QueueReason::HostLimit, not_before: Some(at) };
    assert_eq!(told.state, kept);
}

#[test]
fn each_reason_has_its_own_words() {
    let reasons = [
        QueueReason::AgentLimit,
        QueueReason::TenantLimit,
        QueueReason::HostLimit,
        QueueReason::Retry,
        QueueReason::Workspace,
    ];
    let words: std::collections::BTreeSet<_> =
        reasons.iter().map(|reason| reason.message()).collect();
    assert_eq!(words.len(), reasons.len());
    assert!(words.iter().all(|words| words.contains(' ')), "{words:?}");
}

#[test]
fn a_cancel_of_one_that_waits_ends_it_at_once() {
    let queued = after(&fresh(), &Event::MustWait(QueueReason::HostLimit)).0;
    for record in [fresh(), queued] {
        let (ended, effects) = after(&record, &cancel());
        assert_eq!(ended.status(), DispatchStatus::Cancelled);
        assert_eq!(ended.failure().unwrap().message, "Cancelled by a client: enough");
        assert_eq!(effects, [], "it held no slot");
        let again = step(&ended, &cancel(), NOW);
        assert_eq!(again, Err(Rejection::Terminal(DispatchStatus::Cancelled)));
    }
}

#[test]
fn a_cancel_of_a_running_agent_stops_it_once() {
    let why = Stop::Cancel { reason: Some("enough".into()) };
    let (record, attempt) = running();
    let (stopping, effects) = after(&record, &cancel());
    assert_eq!(effects, [Effect::StopAgent { attempt, why: why.clone() }]);
    let State::Running { stop, .. } = &stopping.state else { panic!("{:?}", stopping.state) };
    assert_eq!(*stop, Some(why));
    assert!(step(&stopping, &cancel(), NOW).is_err());
    let ended = after(&exited(&stopping, attempt), &success(attempt)).0;
    assert_eq!(ended.status(), DispatchStatus::Cancelled);
}

fn network(level: NetworkLevel, hosts: &[&str]) -> Network {
    Network { level, allow_hosts: hosts.iter().map(|host| (*host).to_owned()).collect() }
}

#[test]
fn a_network_changes_until_the_agent_has_ended() {
    let (none, trusted) = (network(NetworkLevel::None, &[]), network(NetworkLevel::Trusted, &[]));
    let change =
        |from: &Network, to: &Network| Event::NetworkChanged { from: from.clone(), to: to.clone() };
    let (running, attempt) = running();
    for record in [fresh(), placed().0, running.clone()] {
        let (open, effects) = after(&record, &change(&none, &trusted));
        assert_eq!((open.network(), effects), (trusted.clone(), vec![]));
        assert_eq!((&open.state, &open.spec), (&record.state, &record.spec));
        assert_eq!(open.view().network, NetworkLevel::Trusted);
        // What was known is not true any more, or nothing would change.
        assert!(step(&open, &change(&none, &trusted), NOW).is_err());
        assert!(step(&open, &change(&trusted, &trusted), NOW).is_err());
        let (closed, _) = after(&open, &change(&trusted, &none));
        assert_eq!(closed.network(), none);
    }
    let over = step(&exited(&running, attempt), &change(&none, &trusted), NOW);
    assert_eq!(over, Err(Rejection::NotApplicable(DispatchStatus::Completing)));
}

#[test]
fn what_is_left_out_of_a_change_stays() {
    let of = |now: &Network, network, hosts: Option<&[&str]>| {
        let allow_hosts = hosts.map(|hosts| hosts.iter().map(|it| (*it).to_owned()).collect());
        changed_network(now, NetworkRequest { network, allow_hosts })
    };
    let none = network(NetworkLevel::None, &[]);
    let custom = network(NetworkLevel::Custom, &["a"]);
    assert_eq!(of(&custom, None, Some(&["b"])), Ok(network(NetworkLevel::Custom, &["b"])));
    let trusted = Some(NetworkLevel::Trusted);
    assert_eq!(of(&custom, trusted, None), Ok(network(NetworkLevel::Trusted, &["a"])));
    assert_eq!(of(&custom, Some(NetworkLevel::None), None), Ok(none.clone()));
    let many = ["h"; ALLOW_HOSTS_COUNT_MAX + 1];
    for (now, level, hosts, field) in [
        (&none, None, None, "network"),
        (&none, None, Some(&["a"][..]), "allowHosts"),
        (&custom, Some(NetworkLevel::None), Some(&["a"]), "allowHosts"),
        (&custom, None, Some(&[""]), "allowHosts[0]"),
        (&custom, None, Some(&many), "allowHosts"),
    ] {
        assert_eq!(of(now, level, hosts).unwrap_err().field.as_deref(), Some(field));
    }
}

#[test]
fn a_cancel_while_results_are_collected_wins_over_success() {
    let (record, attempt) = running();
    let (stopping, effects) = after(&exited(&record, attempt), &cancel());
    assert_eq!((stopping.status(), effects), (DispatchStatus::Completing, vec![]));
    assert!(step(&stopping, &cancel(), NOW).is_err());
    let (ended, effects) = after(&stopping, &success(attempt));
    assert_eq!(ended.status(), DispatchStatus::Cancelled);
    assert_eq!(effects, [Effect::Retire(attempt), Effect::Place]);
}

/// What a new server does about a record is what the old one would still have to do.
#[test]
fn a_new_server_asks_for_what_the_state_asks_for() {
    let queued = after(&fresh(), &Event::MustWait(QueueReason::HostLimit)).0;
    for waiting in [fresh(), queued] {
        assert_eq!(effects(None, &waiting), [Effect::Place]);
    }
    let why = Stop::Cancel { reason: Some("enough".into()) };
    let (provisioning, attempt) = placed();
    let (running, _) = running();
    let completing = exited(&running, attempt);
    let cases = [
        (&provisioning, vec![]),
        (&after(&provisioning, &cancel()).0, vec![Effect::AbortProvisioning(attempt)]),
        (&running, vec![]),
        (&after(&running, &cancel()).0, vec![Effect::StopAgent { attempt, why }]),
        (&completing, vec![Effect::Collect(attempt)]),
        (&after(&completing, &cancel()).0, vec![Effect::Collect(attempt)]),
        (&after(&completing, &success(attempt)).0, vec![]),
    ];
    for (record, wanted) in cases {
        assert_eq!(effects(None, record), wanted, "{:?}", record.state);
        assert_eq!(effects(Some(record), record), [], "{:?}", record.state);
    }
}

/// A record may be some steps ahead of what was known of it.
#[test]
fn steps_that_were_missed_are_made_up_for() {
    let (first, one) = placed();
    let retry = after(&first, &provision_failure(one, true)).0;
    let second = step(&retry, &Event::Placed, NOW.plus_millis(500)).unwrap().next;
    let two = second.attempt_id().unwrap();
    assert_eq!(effects(Some(&fresh()), &first), [Effect::StartAttempt(one)]);
    assert_eq!(
        effects(Some(&first), &second),
        [Effect::Retire(one), Effect::Place, Effect::StartAttempt(two)]
    );
    let stopping = after(&second, &cancel()).0;
    assert_eq!(
        effects(Some(&retry), &stopping),
        [Effect::StartAttempt(two), Effect::AbortProvisioning(two)]
    );
}

#[test]
fn time_alone_changes_who_waits_and_who_runs() {
    let waiting = fresh();
    assert_eq!(waiting.alarm(), Some((waiting.deadline_at(), Event::Expired)));
    let (record, attempt) = running();
    let State::Running { deadline, .. } = record.state else { panic!("{:?}", record.state) };
    assert_eq!(record.alarm(), Some((deadline, Event::DeadlinePassed { attempt })));
    let mut queue = Queue::default();
    queue.observe(None, &waiting);
    queue.observe(None, &Dispatch { id: outpost_types::DispatchId::from_parts(9, 9), ..record });
    assert_eq!((queue.waiting(), queue.slots().total()), (1, 1));
    assert_eq!(queue.wake_at(), Some(deadline));
    assert_eq!(queue.due(deadline, 9).len(), 1);
    let both = waiting.deadline_at();
    assert_eq!((queue.due(both, 9).len(), queue.due(both, 1).len()), (2, 1));
    let (provisioning, _) = placed();
    for silent in [&provisioning, &after(&running().0, &cancel()).0] {
        assert_eq!(silent.alarm(), None);
    }
}

#[test]
fn a_lost_worker_is_tried_again_only_before_the_agent_began() {
    let (record, attempt) = placed();
    let lost = Event::WorkerLost { attempt };
    let (retry, _) = after(&record, &lost);
    assert_eq!(retry.status(), DispatchStatus::Queued);
    assert!(step(&retry, &lost, NOW).is_err(), "it waits already");
    let (cancelled, _) = after(&after(&record, &cancel()).0, &lost);
    assert_eq!(cancelled.status(), DispatchStatus::Cancelled);
    let (record, attempt) = running();
    let lost = Event::WorkerLost { attempt };
    for record in [record.clone(), exited(&record, attempt)] {
        let (failed, effects) = after(&record, &lost);
        assert_eq!(failed.failure().unwrap().code, FailureCode::LostWorker);
        assert_eq!(effects, [Effect::Retire(attempt), Effect::Place]);
        let (cancelled, _) = after(&after(&record, &cancel()).0, &lost);
        assert_eq!(cancelled.status(), DispatchStatus::Cancelled, "what was wanted came about");
    }
}

#[test]
#[should_panic(expected = "completed exactly when terminal")]
fn an_impossible_record_is_not_gone_on_from() {
    let impossible = Dispatch { completed_at: Some(NOW), ..fresh() };
    let _unreachable = step(&impossible, &Event::MustWait(QueueReason::HostLimit), NOW);
}

#[test]
fn who_backed_off_waits_for_a_slot_like_everybody() {
    let (record, attempt) = placed();
    let retry = after(&record, &provision_failure(attempt, true)).0;
    let mut queue = Queue::default();
    queue.observe(None, &retry);
    assert_eq!(queue.reason(&retry, &limits(0)), Some(QueueReason::Retry));
    assert_eq!(queue.next(&limits(9), NOW), None, "it backs off");
    let later = NOW.plus_millis(500);
    assert_eq!(queue.next(&limits(0), later), None);
    assert_eq!(queue.reason(&retry, &limits(0)), Some(QueueReason::HostLimit));
    assert_eq!(queue.next(&limits(9), later), Some(retry.id));
}

#[test]
fn leaving_the_queue_leaves_nothing_behind() {
    let mut queue = Queue::default();
    queue.observe(None, &fresh());
    assert_eq!((queue.waiting(), queue.slots().total()), (1, 0));
    let (record, attempt) = placed();
    queue.observe(Some(&fresh()), &record);
    assert_eq!((queue.waiting(), queue.slots().total()), (0, 1));
    let retry = after(&record, &provision_failure(attempt, true)).0;
    queue.observe(Some(&record), &retry);
    assert_eq!((queue.waiting(), queue.slots().total()), (1, 0));
    queue.observe(Some(&retry), &after(&retry, &cancel()).0);
    assert_eq!(queue, Queue::default());
}

fn spec(edit: impl FnOnce(&mut DispatchRequest)) -> Result<DispatchSpec, outpost_types::ApiError> {
    let mut request =
        DispatchRequest { agent: "claude".into(), task: "do it".into(), ..Default::default() };
    edit(&mut request);
    let defaults = AgentDefaults {
        agent: "claude".parse().unwrap(),
        model_id: "model".into(),
        tier: Tier::Fast,
    };
    DispatchSpec::from_request(request, &defaults)
}

fn deadline(record: &Dispatch) -> Timestamp {
    match &record.state {
        State::Running { deadline, stop: None } => *deadline,
        other => panic!("{other:?}"),
    }
}

#[test]
fn time_in_which_the_provider_serves_nobody_is_not_the_agents() {
    let (record, attempt) = running();
    let parked = |millis| Event::Parked { attempt, until: NOW.plus_millis(millis) };
    let first = deadline(&record);
    let (once, effects) = after(&record, &parked(60_000));
    assert_eq!((deadline(&once), effects), (first.plus_millis(60_000), vec![]));
    assert_eq!(once.view().parked_until, Some(NOW.plus_millis(60_000)));
    // A second call that waits for the same instant, or for an earlier one, adds nothing.
    for millis in [60_000, 59_999] {
        let again = step(&once, &parked(millis), NOW);
        assert_eq!(again, Err(Rejection::NotApplicable(DispatchStatus::Running)));
    }
    assert_eq!(deadline(&after(&once, &parked(90_000)).0), first.plus_millis(90_000));
    // One after the first was over counts from now on.
    let later = step(&once, &parked(80_000), NOW.plus_millis(70_000)).unwrap().next;
    assert_eq!(deadline(&later), first.plus_millis(70_000));
    assert!(step(&record, &parked(0), NOW).is_err(), "it is over already");
    assert_eq!(exited(&once, attempt).view().parked_until, None);
}

#[test]
fn parking_moves_no_end_beyond_the_deadline_and_none_that_is_being_stopped() {
    let (record, attempt) = running();
    let parked = Event::Parked { attempt, until: NOW.plus_millis(u64::from(u32::MAX)) };
    let bound = deadline(&record).plus_millis(PARKED_SECONDS_MAX * 1_000);
    assert_eq!(deadline(&after(&record, &parked).0), bound);
    let mut brief = record.clone();
    brief.spec.deadline_seconds = 700;
    assert_eq!(deadline(&after(&brief, &parked).0), brief.deadline_at());
    // What was started after its deadline keeps the moment it got.
    let late = record.deadline_at().plus_millis(5);
    let (placed, _) = placed();
    let started = Event::AgentStarted { attempt, prepared: Box::default() };
    let started = step(&placed, &started, late).unwrap().next;
    let parked_late = Event::Parked { attempt, until: late.plus_millis(10) };
    assert_eq!(deadline(&step(&started, &parked_late, late).unwrap().next), late);
    let (stopped, _) = after(&record, &cancel());
    assert!(step(&stopped, &parked, NOW).is_err());
    let other = AttemptId { number: 7, ..attempt };
    let stale = step(&record, &Event::Parked { attempt: other, until: record.deadline_at() }, NOW);
    assert_eq!(stale, Err(Rejection::StaleAttempt));
}

#[test]
fn a_request_at_every_bound_is_taken() {
    let spec = spec(|request| {
        request.branch = Some("b".repeat(BRANCH_BYTES_MAX));
        request.tags = vec!["t".repeat(TAG_BYTES_MAX); TAGS_COUNT_MAX];
        request.checks = vec!["true".into(); CHECKS_COUNT_MAX];
    });
    assert_eq!(spec.unwrap().tags.len(), TAGS_COUNT_MAX);
}

#[test]
fn a_record_of_an_older_version_has_the_usual_deadline() {
    let mut json = serde_json::to_value(spec(|_| ()).unwrap()).unwrap();
    for field in ["deadlineSeconds", "network"] {
        assert!(json.as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    let read: DispatchSpec = serde_json::from_value(json).unwrap();
    assert_eq!(read.deadline_seconds, DEADLINE_SECONDS_DEFAULT);
    assert_eq!((read.network, read.budget, read.parent), (NetworkLevel::None, None, None));
}

#[test]
fn a_record_keeps_what_it_goes_on_from() {
    let parent = Parent {
        dispatch_id: fresh().id,
        session_id: Some("s".into()),
        root: None,
        base_commit: None,
        branch: None,
    };
    let child = DispatchSpec { parent: Some(parent), ..spec(|_| ()).unwrap() };
    let json = serde_json::to_value(&child).unwrap();
    assert_eq!(json["parent"]["sessionId"], "s");
    assert_eq!(serde_json::from_value::<DispatchSpec>(json).unwrap(), child);
}

#[test]
fn a_dispatch_goes_on_only_from_one_that_has_ended() {
    let mut parent = dispatch("claude", "acme", 1);
    let spec = || dispatch("claude", "acme", 2).spec;
    assert_eq!(spec().continuing(&parent).unwrap_err().code, ErrorCode::NotFinished);
    parent.facts.session_id = Some("session".into());
    parent.facts.base_commit = Some("c0ffee".into());
    parent.spec.repo = Some("owner/name".into());
    parent.spec.setup = vec!["npm ci".into()];
    let ended = step(&parent, &Event::Expired, parent.deadline_at()).unwrap().next;
    let next = spec().continuing(&ended).unwrap();
    let from = next.parent.clone().unwrap();
    assert_eq!((from.dispatch_id, from.root), (ended.id, Some(ended.id)));
    assert_eq!(
        (from.session_id.as_deref(), next.repo.as_deref()),
        (Some("session"), Some("owner/name"))
    );
    // What was set up for it is not among its changes: the same is done again, unless something else is asked for.
    assert_eq!(next.setup, ["npm ci"]);
    let own = DispatchSpec { setup: vec!["make".into()], ..spec() };
    assert_eq!(own.continuing(&ended).unwrap().setup, ["make"]);
    // Another agent cannot read that session; and the line keeps its first one's name.
    let mut second = dispatch("codex", "acme", 3);
    second.spec = DispatchSpec { agent: "codex".parse().unwrap(), ..next };
    let second = step(&second, &Event::Expired, second.deadline_at()).unwrap().next;
    let third = spec().continuing(&second).unwrap().parent.unwrap();
    assert_eq!(
        (third.dispatch_id, third.root, third.session_id),
        (second.id, Some(ended.id), None)
    );
    let other = DispatchSpec { repo: Some("owner/other".into()), ..spec() };
    assert_eq!(other.continuing(&ended).unwrap_err().field.as_deref(), Some("repo"));
}
