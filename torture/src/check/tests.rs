//! One forged fault per promise: a checker that cannot fail proves nothing.

use outpost_types::{Failure, Timestamp};

use super::*;

fn id(number: u128) -> DispatchId {
    DispatchId::from_parts(1, number)
}

fn event(seq: u64, data: EventData) -> EventEnvelope {
    let at = Timestamp::default();
    EventEnvelope { seq, at, dispatch_id: id(1), log_offset: None, data }
}

fn line(stream: LogStreamName, text: impl Into<String>) -> EventData {
    EventData::Log { stream, text: text.into() }
}

fn status(status: DispatchStatus) -> EventData {
    EventData::Status { status, reason: None, failure: None }
}

fn view() -> DispatchView {
    let text = serde_json::json!({
        "dispatchId": id(1).to_string(), "status": "COMPLETED", "generation": 5,
        "agent": "counter", "modelId": "", "tier": "fast", "task": "t",
        "contextLevel": "minimal", "workspaceMode": "ephemeral", "timeoutSeconds": 60,
        "attempt": 1, "exitCode": 0, "filesChanged": 1, "timings": {},
        "createdAt": "2026-01-01T00:00:00Z", "deadlineAt": "2026-01-01T00:02:00Z",
    });
    serde_json::from_value(text).unwrap()
}

/// A counter that nothing happened to.
fn good() -> Evidence {
    let mut log = String::from("start 0-1\n");
    let mut data = vec![status(DispatchStatus::Running), line(LogStreamName::Stdout, "start 0-1")];
    for number in 1..=COUNTER_LINES {
        log.push_str(&format!("line {number}\nside {number}\n"));
        data.push(line(LogStreamName::Stdout, format!("line {number}")));
        data.push(line(LogStreamName::Stderr, format!("side {number}")));
    }
    data.push(status(DispatchStatus::Completed));
    let events: Vec<_> = data.into_iter().zip(1..).map(|(data, seq)| event(seq, data)).collect();
    Evidence {
        kind: Kind::Counter,
        view: view(),
        followed: Some(events.clone()),
        events,
        followed_log: Some(log.clone()),
        log,
        diff: "+++ b/starts.txt\n@@ -0,0 +1 @@\n+start 0-1\n".into(),
        artifact: None,
        cancel: Cancel::None,
        launcher_killed: false,
    }
}

/// The same with this change; its followers are changed with it unless the change says otherwise.
fn broken_by(change: impl FnOnce(&mut Evidence)) -> String {
    let mut seen = good();
    seen.followed = None;
    seen.followed_log = None;
    change(&mut seen);
    run(&seen).join("\n")
}

#[track_caller]
fn found(what: &str, change: impl FnOnce(&mut Evidence)) {
    let said = broken_by(change);
    assert!(said.contains(what), "`{what}` is not in: {said}");
}

#[test]
fn a_good_run_passes() {
    assert_eq!(run(&good()), [] as [String; 0]);
    let mut failing = good();
    failing.kind = Kind::Failing;
    failing.view.status = DispatchStatus::Failed;
    failing.view.exit_code = Some(FAILING_CODE);
    failing.view.failure = Some(Failure::new(FailureCode::AgentExit, "x"));
    let end = failing.events.len() - 1;
    failing.events[end].data = status(DispatchStatus::Failed);
    failing.followed = Some(failing.events.clone());
    assert_eq!(run(&failing), [] as [String; 0]);
}

#[test]
fn gaps_and_repeats_of_events_are_found() {
    found("event 4 stands where 3 should", |seen| drop(seen.events.remove(2)));
    found("event 3 stands where 4 should", |seen| {
        let again = seen.events[2].clone();
        seen.events.insert(3, again);
    });
}

#[test]
fn ends_of_events_are_found() {
    found("0 terminal events", |seen| drop(seen.events.pop()));
    found("2 terminal events", |seen| {
        let seq = seen.events.len() as u64 + 1;
        seen.events.push(event(seq, status(DispatchStatus::Completed)));
    });
    found("but not the last", |seen| {
        let seq = seen.events.len() as u64 + 1;
        seen.events.push(event(seq, status(DispatchStatus::Completing)));
    });
    found("the terminal event says", |seen| {
        let end = seen.events.len() - 1;
        seen.events[end].data = status(DispatchStatus::Cancelled);
    });
}

#[test]
fn readers_that_were_told_something_else_are_found() {
    found("a follower got", |seen| {
        let mut followed = seen.events.clone();
        followed.truncate(10);
        seen.followed = Some(followed);
    });
    found("a follower of the log got", |seen| {
        seen.followed_log = Some(seen.log.replacen("line 7\n", "", 1));
    });
}

#[test]
fn wrong_ends_are_found() {
    let lost = |seen: &mut Evidence| {
        seen.view.status = DispatchStatus::Failed;
        seen.view.failure = Some(Failure::new(FailureCode::LostWorker, "x"));
        let end = seen.events.len() - 1;
        seen.events[end].data = status(DispatchStatus::Failed);
    };
    found("it ended as FAILED (Some(LostWorker)", lost);
    // The death of a launcher explains it, but not any other end.
    assert_eq!(
        broken_by(|seen| {
            lost(seen);
            seen.launcher_killed = true;
        }),
        ""
    );
    found("it ended as FAILED (Some(AgentExit)", |seen| {
        lost(seen);
        seen.launcher_killed = true;
        seen.view.failure = Some(Failure::new(FailureCode::AgentExit, "x"));
    });
    found("it ended as COMPLETED", |seen| seen.cancel = Cancel::Acknowledged);
    found("it ended as COMPLETED", |seen| seen.kind = Kind::Stubborn);
    found("2 attempts, 0 of them explained", |seen| seen.view.attempt = 2);
    found("exit code Some(3)", |seen| seen.view.exit_code = Some(3));
}

/// An event of a dispatch that is queued again because its worker could not be made.
fn retried() -> EventData {
    let reason = Some(QueueReason::Retry.message().to_owned());
    EventData::Status { status: DispatchStatus::Queued, reason, failure: None }
}

#[test]
fn attempts_are_explained_bounded_and_none_follows_an_agent_that_began() {
    let with = |at: usize, retries: usize, attempt: u32| {
        broken_by(|seen| {
            for _ in 0..retries {
                seen.events.insert(at, event(0, retried()));
            }
            for (event, seq) in seen.events.iter_mut().zip(1..) {
                event.seq = seq;
            }
            seen.view.attempt = attempt;
        })
    };
    assert_eq!(with(0, 1, 2), "");
    assert!(with(0, 1, 3).contains("3 attempts, 1 of them"), "{}", with(0, 1, 3));
    assert!(with(0, 3, 4).contains("4 attempts, 3 of them"), "{}", with(0, 3, 4));
    assert!(with(2, 1, 2).contains("its agent had begun"), "{}", with(2, 1, 2));
}

#[test]
fn a_second_start_is_found_wherever_it_shows() {
    found("2 starts in its log", |seen| seen.log.push_str("start 0-2\n"));
    found("2 starts in its starts.txt", |seen| seen.diff.push_str("+start 0-2\n"));
    found("2 starts in its events", |seen| {
        let end = seen.events.pop().unwrap();
        let more = event(end.seq, line(LogStreamName::Stdout, "start 0-2"));
        seen.events.push(more);
        seen.events.push(EventEnvelope { seq: end.seq + 1, ..end });
    });
    found("0 starts in its log", |seen| seen.log = seen.log.replace("start", "stop"));
}

#[test]
fn missing_and_doubled_lines_are_found() {
    found("`line 8` stands where `line 7` should in its log", |seen| {
        seen.log = seen.log.replacen("line 7\n", "", 1);
    });
    found("`side 7` stands where `side 8` should in its log", |seen| {
        seen.log = seen.log.replacen("side 7\n", "side 7\nside 7\n", 1);
    });
    found("59 lines of `side` in its log", |seen| {
        seen.log = seen.log.replacen("side 60\n", "", 1);
    });
    found("`line 6` stands where `line 5` should in its events", |seen| {
        seen.events.retain(|event| event.data != line(LogStreamName::Stdout, "line 5"));
    });
}

#[test]
fn lost_results_are_found() {
    found("its changes are not in the diff", |seen| seen.diff.clear());
    found("its changes are not in the diff", |seen| seen.view.files_changed = None);
    found("its artifact is None", |seen| seen.kind = Kind::Artifact);
    found("its artifact is Some(\"\")", |seen| {
        seen.kind = Kind::Artifact;
        seen.artifact = Some(String::new());
    });
}

fn two_known() -> BTreeMap<DispatchId, (DispatchStatus, u64)> {
    let completed = (DispatchStatus::Completed, 3);
    [(id(1), completed), (id(2), completed)].into()
}

#[test]
fn lost_doubled_and_changed_records_are_found() {
    let done = DispatchStatus::Completed;
    let listed = [(id(1), done, 3), (id(2), done, 3)];
    assert_eq!(records(&two_known(), &listed), [] as [String; 0]);
    assert!(records(&two_known(), &listed[..1])[0].contains("is lost"));
    let again = [listed[0], listed[1], listed[1]];
    assert!(records(&two_known(), &again)[0].contains("listed twice"));
    let more = [listed[0], listed[1], (id(3), done, 3)];
    assert!(records(&two_known(), &more)[0].contains("nobody dispatched it"));
    let changed = [listed[0], (id(2), DispatchStatus::Failed, 4)];
    assert!(records(&two_known(), &changed)[0].contains("is FAILED (4) now"));
}

#[test]
fn a_trail_with_too_much_or_too_little_is_found() {
    let entry = |number, action: &str, to| Entry {
        action: action.to_owned(),
        subject: id(number).to_string(),
        to,
    };
    let of = |number| {
        [
            entry(number, "dispatch.accepted", None),
            entry(number, "dispatch.changed", Some(DispatchStatus::Running)),
            entry(number, "dispatch.changed", Some(DispatchStatus::Completed)),
        ]
    };
    let whole: Vec<Entry> = of(1).into_iter().chain(of(2)).collect();
    assert_eq!(trail(&two_known(), &whole), [] as [String; 0]);
    for removed in 0..whole.len() {
        let mut part = whole.clone();
        part.remove(removed);
        assert_eq!(trail(&two_known(), &part).len(), 1, "without row {removed}");
        let mut double = whole.clone();
        double.push(whole[removed].clone());
        assert_eq!(trail(&two_known(), &double).len(), 1, "with row {removed} twice");
    }
    let mut reopened = whole;
    reopened.swap(4, 5);
    assert_eq!(trail(&two_known(), &reopened).len(), 1);
}
