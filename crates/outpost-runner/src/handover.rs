//! What an agent is told of the dispatch it goes on from, when it cannot read that one's session.
//!
//! Read from the kept files of the parent, which hold what an agent said: it goes to another agent as text, between
//! lines that say so, and nowhere else. Bounded as a whole and in each part. What cannot be read is left out.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use outpost_types::{CheckResult, DispatchView, EventData, EventEnvelope};

/// Most of a parent's record and of the end of its events that is read, bytes.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;
const EVENTS_BYTES_MAX: u64 = 256 * 1024;
/// Most of its task, and of its agent's last words, characters.
const TASK_CHARACTERS_MAX: usize = 2_000;
const SUMMARY_CHARACTERS_MAX: usize = 2_000;
/// How many earlier messages are told, and most of each, characters.
const MESSAGES_COUNT_MAX: usize = 8;
const MESSAGE_CHARACTERS_MAX: usize = 400;

/// The task with what there is to know of the dispatch whose files are in `kept` before it.
pub(crate) fn handover(kept: &Path, task: &str) -> String {
    let record = read_end(&kept.join("result.json"), RECORD_BYTES_MAX);
    let record = record.ok().and_then(|text| serde_json::from_str::<DispatchView>(&text).ok());
    let Some(record) = record else { return task.to_owned() };
    let events = read_end(&kept.join("events.jsonl"), EVENTS_BYTES_MAX).unwrap_or_default();
    tell(&record, &messages(&events), task)
}

fn read_end(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last messages of the agent, the oldest first. A line that was cut is none.
fn messages(events: &str) -> Vec<String> {
    let said = |line: &str| match serde_json::from_str::<EventEnvelope>(line).ok()?.data {
        EventData::Message { text, .. } => Some(text),
        _ => None,
    };
    let mut last: Vec<_> = events.lines().rev().filter_map(said).take(MESSAGES_COUNT_MAX).collect();
    last.reverse();
    last
}

fn tell(record: &DispatchView, messages: &[String], task: &str) -> String {
    let mut text = format!(
        "This goes on from an earlier piece of work by {}. Its changes are in the repository already.\n\n\
         --- what was asked then ---\n{}\n--- how it ended: {} ---\n",
        plain(&record.agent, TASK_CHARACTERS_MAX),
        plain(&record.task, TASK_CHARACTERS_MAX),
        record.status,
    );
    let summary = record.summary.as_deref().unwrap_or_default();
    // The last message often is the summary once more.
    let earlier = messages.iter().filter(|message| message.trim() != summary.trim());
    for message in earlier {
        let _ =
            writeln!(text, "- {}", plain(message, MESSAGE_CHARACTERS_MAX).replace('\n', "\n  "));
    }
    if !summary.trim().is_empty() {
        let _ = writeln!(text, "{}", plain(summary, SUMMARY_CHARACTERS_MAX));
    }
    for CheckResult { command, passed, .. } in &record.checks {
        let verdict = if *passed { "passed" } else { "failed" };
        let _ = writeln!(text, "Check `{}` {verdict}.", plain(command, MESSAGE_CHARACTERS_MAX));
    }
    if let Some(failure) = &record.failure {
        let _ = writeln!(text, "{}", plain(&failure.message, MESSAGE_CHARACTERS_MAX));
    }
    text.push_str("--- the task now ---\n");
    text.push_str(task);
    text
}

/// Without control characters but line breaks and tabs, and cut with a sign that it was.
fn plain(text: &str, characters_max: usize) -> String {
    let harmless = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut characters = text.trim().chars().filter(harmless);
    let mut kept: String = characters.by_ref().take(characters_max).collect();
    if characters.next().is_some() {
        kept.push_str(" …");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> serde_json::Value {
        serde_json::json!({
            "dispatchId": "01M818ZQ82VK9RHZT31TPQXNF6", "status": "COMPLETED", "generation": 5,
            "agent": "codex", "modelId": "m", "tier": "fast", "task": "Fix it\u{1b}[2J", "contextLevel": "standard",
            "workspaceMode": "ephemeral", "timeoutSeconds": 600, "attempt": 1, "timings": {},
            "deadlineAt": "2026-01-01T00:00:00Z", "createdAt": "2026-01-01T00:00:00Z",
            "summary": "All done.", "checks": [
                {"command": "make test", "passed": false, "exitCode": 1, "millis": 1, "output": ""}
            ],
        })
    }

    fn message(seq: u64, text: &str) -> String {
        let event = serde_json::json!({
            "seq": seq, "at": "2026-01-01T00:00:00Z", "dispatchId": "01M818ZQ82VK9RHZT31TPQXNF6",
            "type": "agent.message", "data": {"text": text},
        });
        format!("{event}\n")
    }

    #[test]
    fn the_next_agent_hears_what_was_asked_said_and_found() {
        let kept = tempfile::tempdir().unwrap();
        std::fs::write(kept.path().join("result.json"), record().to_string()).unwrap();
        let events = format!("cut off\n{}{}", message(1, "I look."), message(2, "All done."));
        std::fs::write(kept.path().join("events.jsonl"), events).unwrap();
        assert_eq!(
            handover(kept.path(), "Now test it."),
            "This goes on from an earlier piece of work by codex. Its changes are in the repository already.\n\n\
             --- what was asked then ---\nFix it[2J\n--- how it ended: COMPLETED ---\n- I look.\nAll done.\n\
             Check `make test` failed.\n--- the task now ---\nNow test it."
        );
    }

    #[test]
    fn it_is_bounded_and_needs_nothing() {
        let kept = tempfile::tempdir().unwrap();
        assert_eq!(handover(kept.path(), "task"), "task");
        let mut long = record();
        (long["task"], long["summary"]) = ("ü".repeat(50_000).into(), "x".repeat(100_000).into());
        std::fs::write(kept.path().join("result.json"), long.to_string()).unwrap();
        let events: String = (0..500).map(|seq| message(seq, &"y".repeat(5_000))).collect();
        std::fs::write(kept.path().join("events.jsonl"), events).unwrap();
        let told = handover(kept.path(), "task");
        assert!(told.ends_with("task") && told.chars().count() < 8_500, "{}", told.len());
    }
}
