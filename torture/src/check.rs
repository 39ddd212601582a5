//! What must be true of every run, and of all of them together: pure functions of what was seen.
//!
//! Each answers with a list of sentences, one per broken promise; an empty list is a pass. The tests
//! below forge one fault per promise and show that it is found.

use std::collections::{BTreeMap, BTreeSet};

use outpost_core::QueueReason;
use outpost_types::limits::PROVISION_TRIES_MAX;
use outpost_types::{
    DispatchId, DispatchStatus, DispatchView, EventData, EventEnvelope, FailureCode, LogStreamName,
};

use crate::plan::{ARTIFACT, COUNTER_LINES, FAILING_CODE, Kind, START_FILE, START_WORD};

/// What became of the wish to cancel a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cancel {
    /// Nobody asked.
    #[default]
    None,
    /// Asked and acknowledged.
    Acknowledged,
    /// Asked, and the answer was that it is over already.
    TooLate,
}

/// Everything that was seen of one run by the time it was over.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// What ran.
    pub kind: Kind,
    /// The record after the end.
    pub view: DispatchView,
    /// Events as a reader got them who followed from the start, over all deaths of the server.
    pub followed: Option<Vec<EventEnvelope>>,
    /// Events as read after the end.
    pub events: Vec<EventEnvelope>,
    /// The log as a reader got it who followed from the start.
    pub followed_log: Option<String>,
    /// The log as read after the end.
    pub log: String,
    /// The diff.
    pub diff: String,
    /// The artifact of [`Kind::Artifact`], if it is there.
    pub artifact: Option<String>,
    /// What became of the wish to cancel it.
    pub cancel: Cancel,
    /// A launcher was killed between its acceptance and its end.
    pub launcher_killed: bool,
}

/// All promises about one run.
#[must_use]
pub fn run(seen: &Evidence) -> Vec<String> {
    let mut broken = Vec::new();
    broken.extend(events_are_contiguous(&seen.events));
    broken.extend(one_terminal_event(&seen.events, seen.view.status));
    broken.extend(readers_agree(seen));
    broken.extend(outcome(seen));
    broken.extend(one_start(seen));
    broken.extend(numbered_lines(seen));
    broken.extend(results(seen));
    let id = seen.view.dispatch_id;
    broken.into_iter().map(|what| format!("{id} ({:?}): {what}", seen.kind)).collect()
}

/// Sequence numbers begin at 1 and leave none out.
fn events_are_contiguous(events: &[EventEnvelope]) -> Option<String> {
    let wrong = events.iter().zip(1u64..).find(|(event, wanted)| event.seq != *wanted);
    wrong.map(|(event, wanted)| format!("event {} stands where {wanted} should", event.seq))
}

/// Exactly one terminal event, the last one, and it says what the record says.
fn one_terminal_event(events: &[EventEnvelope], status: DispatchStatus) -> Option<String> {
    let terminal: Vec<_> = events.iter().filter(|event| event.data.is_terminal()).collect();
    let says = |event: &EventEnvelope| match &event.data {
        EventData::Status { status, .. } => Some(*status),
        _ => None,
    };
    match terminal.as_slice() {
        [one] if events.last().is_some_and(|last| last.seq != one.seq) => {
            Some(format!("the terminal event is {}, but not the last", one.seq))
        }
        [one] if says(one) != Some(status) => {
            Some(format!("the terminal event says {:?}, the record {status}", says(one)))
        }
        [_] => None,
        several => Some(format!("there are {} terminal events", several.len())),
    }
}

/// Whoever followed over restarts got what is read afterwards.
fn readers_agree(seen: &Evidence) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(followed) = &seen.followed
        && *followed != seen.events
    {
        let same = followed.iter().zip(&seen.events).take_while(|(a, b)| a == b).count();
        broken.push(format!(
            "a follower got {} events, of which the first {same} are right, not {}",
            followed.len(),
            seen.events.len()
        ));
    }
    if let Some(followed) = &seen.followed_log
        && *followed != seen.log
    {
        broken.push(format!(
            "a follower of the log got {} bytes that are not the log's {}",
            followed.len(),
            seen.log.len()
        ));
    }
    broken
}

/// The end it must come to.
fn outcome(seen: &Evidence) -> Vec<String> {
    let view = &seen.view;
    let mut broken = Vec::new();
    let code = view.failure.as_ref().map(|failure| failure.code);
    let natural = match seen.kind {
        Kind::Failing => {
            view.status == DispatchStatus::Failed
                && code == Some(FailureCode::AgentExit)
                && view.exit_code == Some(FAILING_CODE)
        }
        Kind::Stubborn => false,
        _ => view.status == DispatchStatus::Completed && view.exit_code == Some(0),
    };
    let lost = seen.launcher_killed
        && view.status == DispatchStatus::Failed
        && matches!(
            code,
            Some(FailureCode::LostWorker | FailureCode::Provisioning | FailureCode::Collect)
        );
    let cancelled = view.status == DispatchStatus::Cancelled;
    let fine = match seen.cancel {
        // An acknowledged cancel is on disk: only it can be the end.
        Cancel::Acknowledged => cancelled,
        Cancel::TooLate => natural || lost || cancelled,
        Cancel::None => natural || lost,
    };
    if !fine {
        broken.push(format!(
            "it ended as {} ({code:?}, exit code {:?}), cancel {:?}, launcher killed: {}",
            view.status, view.exit_code, seen.cancel, seen.launcher_killed
        ));
    }
    broken.extend(attempts(seen));
    broken
}

/// Every attempt but the first follows one that says why it could not be provisioned, within the bound; once an
/// agent began there is no other.
fn attempts(seen: &Evidence) -> Vec<String> {
    let view = &seen.view;
    let (mut retries, mut began, mut broken) = (0, false, Vec::new());
    for event in &seen.events {
        let EventData::Status { status, reason, .. } = &event.data else { continue };
        match status {
            DispatchStatus::Running => began = true,
            DispatchStatus::Queued if reason.as_deref() == Some(QueueReason::Retry.message()) => {
                retries += 1;
                if began {
                    broken.push("another attempt was made though its agent had begun".to_owned());
                }
            }
            _ => {}
        }
    }
    if view.attempt > 1 + retries || view.attempt > PROVISION_TRIES_MAX {
        broken.push(format!("it took {} attempts, {retries} of them explained", view.attempt));
    }
    broken
}

fn count_starts<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    lines.filter(|line| line.split(' ').next() == Some(START_WORD)).count()
}

/// It was started once; of one that was ended early, at most once.
fn one_start(seen: &Evidence) -> Vec<String> {
    let in_log = count_starts(seen.log.lines());
    let in_events = count_starts(log_lines(&seen.events, LogStreamName::Stdout));
    let added = seen.diff.lines().filter_map(|line| line.strip_prefix('+'));
    let in_diff = count_starts(added);
    let whole = seen.view.status == DispatchStatus::Completed;
    let mut broken = Vec::new();
    for (place, count) in [("log", in_log), ("events", in_events), (START_FILE, in_diff)] {
        if count > 1 || (whole && count == 0) {
            broken.push(format!("{count} starts in its {place}"));
        }
    }
    broken
}

fn log_lines(events: &[EventEnvelope], wanted: LogStreamName) -> impl Iterator<Item = &str> {
    events.iter().filter_map(move |event| match &event.data {
        EventData::Log { stream, text } if *stream == wanted => Some(text.as_str()),
        _ => None,
    })
}

/// A counter's lines are there without gap and repeat; all of them if it came to its end.
fn numbered_lines(seen: &Evidence) -> Vec<String> {
    if seen.kind != Kind::Counter {
        return Vec::new();
    }
    let whole = seen.view.status == DispatchStatus::Completed;
    let mut broken = Vec::new();
    for (word, stream) in [("line", LogStreamName::Stdout), ("side", LogStreamName::Stderr)] {
        let of_word = |line: &&str| line.split(' ').next() == Some(word);
        let logged: Vec<&str> = seen.log.lines().filter(of_word).collect();
        let told: Vec<&str> = log_lines(&seen.events, stream).filter(of_word).collect();
        for (place, lines) in [("log", logged), ("events", told)] {
            let wanted = (1..).map(|number| format!("{word} {number}"));
            if let Some((line, wanted)) = lines.iter().zip(wanted).find(|(a, b)| *a != b) {
                broken.push(format!("`{line}` stands where `{wanted}` should in its {place}"));
            }
            if whole && lines.len() as u64 != COUNTER_LINES {
                broken.push(format!("{} lines of `{word}` in its {place}", lines.len()));
            }
        }
    }
    broken
}

/// What it left is kept.
fn results(seen: &Evidence) -> Vec<String> {
    let mut broken = Vec::new();
    if seen.view.status != DispatchStatus::Completed {
        return broken;
    }
    if seen.view.files_changed.unwrap_or(0) == 0 || !seen.diff.contains(START_FILE) {
        broken.push("its changes are not in the diff".to_owned());
    }
    if seen.kind == Kind::Artifact && seen.artifact.as_deref() != Some(ARTIFACT.1) {
        broken.push(format!("its artifact is {:?}", seen.artifact));
    }
    broken
}

/// What the clients hold against what the server lists: nothing lost, nothing double, nothing changed.
#[must_use]
pub fn records(
    known: &BTreeMap<DispatchId, (DispatchStatus, u64)>,
    listed: &[(DispatchId, DispatchStatus, u64)],
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for (id, status, generation) in listed {
        if !seen.insert(*id) {
            broken.push(format!("{id} is listed twice"));
        }
        match known.get(id) {
            None => broken.push(format!("{id} is there, but nobody dispatched it")),
            Some(before) if *before != (*status, *generation) => broken.push(format!(
                "{id} was {} ({}) when it ended and is {status} ({generation}) now",
                before.0, before.1
            )),
            Some(_) => {}
        }
    }
    let lost = known.keys().filter(|id| !seen.contains(id));
    broken.extend(lost.map(|id| format!("{id} was acknowledged and is lost")));
    broken
}

/// One row of the audit trail, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// The state it led to, if it was a change of state.
    pub to: Option<DispatchStatus>,
}

/// One entry per change of each record, one of them its acceptance, and exactly one into a terminal
/// state: the last.
#[must_use]
pub fn trail(
    known: &BTreeMap<DispatchId, (DispatchStatus, u64)>,
    entries: &[Entry],
) -> Vec<String> {
    let mut by_subject: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.action.starts_with("dispatch.")) {
        by_subject.entry(&entry.subject).or_default().push(entry);
    }
    let mut broken = Vec::new();
    for (id, (status, generation)) in known {
        let of_it = by_subject.get(id.to_string().as_str()).cloned().unwrap_or_default();
        let accepted = of_it.iter().filter(|entry| entry.action == "dispatch.accepted").count();
        let ends = of_it.iter().filter(|entry| entry.to.is_some_and(|to| to.is_terminal()));
        let ends = ends.count();
        let last = of_it.last().and_then(|entry| entry.to);
        if of_it.len() as u64 != *generation || accepted != 1 || ends != 1 || last != Some(*status)
        {
            broken.push(format!(
                "{id} changed {generation} times and is {status}; its trail has {} entries, \
                 {accepted} acceptances and {ends} ends, the last is {last:?}",
                of_it.len()
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests;
