//! What is known of a run, for the body of its pull request.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use outpost_core::Dispatch;
use outpost_promote::RunFacts;
use outpost_types::{EventData, EventEnvelope};

use crate::journal::EVENTS_FILE;

/// Most of a run's events that is read, bytes.
const EVENTS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Most denials that are kept.
const DENIALS_COUNT_MAX: usize = 100;
/// What every line of a denial has.
const DENIED: &[u8] = b"policy.denied";

/// Gathers it. Blocks on the disk.
pub(super) fn run_facts(record: &Dispatch, kept_dir: &Path) -> RunFacts {
    let facts = &record.facts;
    RunFacts {
        dispatch: record.id.to_string(),
        status: record.status().to_string(),
        agent: record.spec.agent.to_string(),
        model: record.spec.model_id.clone(),
        task: record.spec.task.clone(),
        summary: facts.summary.clone(),
        checks: facts.checks.clone(),
        cost_usd: facts.spend.as_ref().map(|spend| spend.cost.0 as f64 / 1e9),
        agent_seconds: facts.timings.agent_millis.map(|millis| millis / 1000),
        denials: denials(&kept_dir.join(EVENTS_FILE)),
    }
}

/// What was asked for and denied, each once; what cannot be read is left out.
fn denials(events: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(file) = std::fs::File::open(events) else { return found };
    let mut reader = BufReader::new(file.take(EVENTS_BYTES_MAX));
    let mut line = Vec::new();
    while found.len() < DENIALS_COUNT_MAX {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(bytes) if bytes > 0 => {}
            _ => break,
        }
        if !line.windows(DENIED.len()).any(|part| part == DENIED) {
            continue;
        }
        let event = serde_json::from_slice::<EventEnvelope>(&line);
        if let Ok(EventEnvelope { data: EventData::PolicyDenied { target, .. }, .. }) = event
            && !found.contains(&target)
        {
            found.push(target);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_told_once_and_only_those() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EVENTS_FILE);
        assert!(denials(&path).is_empty());
        let id = outpost_types::DispatchId::from_parts(1, 1);
        let event = |kind: &str, data: &str| {
            format!(
                "{{\"seq\":1,\"at\":\"2026-01-01T00:00:00Z\",\"dispatchId\":\"{id}\",\"type\":\"{kind}\",\"data\":{data}}}\n"
            )
        };
        let denied = event("policy.denied", r#"{"target":"evil.example:443","reason":"x"}"#);
        let says = event("agent.message", r#"{"text":"policy.denied evil"}"#);
        std::fs::write(&path, format!("{says}{denied}{denied}policy.denied\n\u{0}")).unwrap();
        assert_eq!(denials(&path), ["evil.example:443"]);
    }
}
