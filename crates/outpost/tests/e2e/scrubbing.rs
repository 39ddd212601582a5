//! What an agent was given in confidence is in nothing that is kept or shown of its run.

use outpost_types::{
    Api as _, DispatchId, DispatchStatus, EventData, EventEnvelope, PutSecret, SecretKind,
    SecretValue,
};
use rustix::process::Signal;

use crate::harness::{Repo, Server, assert_status, has_cli, request};

const SECRET: &str = "tr0ub4dor&3-\"quoted\"";
/// What is looked for: it is in no form of a mask.
const PART: &str = "tr0ub4dor";

const CONFIG: &str = r#"
[[agents]]
name = "script"
command = ["/bin/sh", "agent.sh"]
stdin_prompt = true
"#;

/// Prints it in several forms, splits it over two writes, and leaves it everywhere.
const LEAKS: &str = r#"
cat > /dev/null
echo "plain $DB_PASSWORD"
echo "on stderr: $DB_PASSWORD" >&2
echo "encoded $(printf '%s' "$DB_PASSWORD" | base64 -w0)"
printf 'halves: %s' "$(printf '%s' "$DB_PASSWORD" | cut -c1-9)"
printf '%s\n' "$(printf '%s' "$DB_PASSWORD" | cut -c10-)"
echo "$DB_PASSWORD" > config.txt
echo "x" > "../artifacts/$DB_PASSWORD.txt"
echo "$DB_PASSWORD" > ../artifacts/inside.txt
printf 'no end: %s' "$DB_PASSWORD"
"#;

/// Counts on both streams, with the secret in each line.
const COUNTS: &str = r#"
cat > /dev/null
for i in $(seq 1 300); do
    echo "line $i $DB_PASSWORD"
    echo "side $i $DB_PASSWORD" >&2
    sleep 0.01
done
"#;

async fn put(server: &Server) {
    let value = SecretValue::new(SECRET.to_owned());
    let secret = PutSecret { value, kind: Some(SecretKind::Exposed), scope: None };
    server.api.put_secret("DB_PASSWORD".parse().unwrap(), secret).await.unwrap();
}

/// Nothing that a client can read of it has the secret; returns the events.
async fn nothing_shows(server: &Server, id: DispatchId) -> Vec<EventEnvelope> {
    let (events, view) =
        (server.events(id).await, server.api.get_dispatch(id, None, None).await.unwrap());
    let artifacts = server.artifacts(id).await;
    for text in [
        format!("{events:?}"),
        format!("{view:?}"),
        format!("{artifacts:?}"),
        server.log(id).await,
        server.diff(id).await,
    ] {
        assert!(!text.contains(PART), "{text}");
    }
    let kept = server.data().join("dispatches").join(id.to_string());
    for name in ["events.jsonl", "output.log", "result.json", "diff.patch"] {
        let text = std::fs::read_to_string(kept.join(name)).unwrap_or_default();
        assert!(!text.contains(PART), "{name}: {text}");
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exposed_secret_is_masked_in_all_that_is_kept() {
    let (server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(LEAKS));
    put(&server).await;
    let mut wanted = request("script", "x", &repo);
    wanted.secrets = vec!["DB_PASSWORD".to_owned()];
    let view = server.run(wanted).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let events = nothing_shows(&server, view.dispatch_id).await;
    let log = server.log(view.dispatch_id).await;
    assert_eq!(log.matches("[masked:DB_PASSWORD]").count(), 5, "{log}");
    assert!(log.contains("halves: [masked:DB_PASSWORD]\n"), "{log}");
    let told = |code: &str| {
        let told = events.iter().find_map(|event| match &event.data {
            EventData::Attention(attention) if attention.code == code => Some(&attention.message),
            _ => None,
        });
        told.unwrap_or_else(|| panic!("no {code} in {events:?}")).clone()
    };
    assert!(told("secret_masked").contains("DB_PASSWORD in config.txt"));
    assert!(told("secret_found").contains("DB_PASSWORD in artifacts/inside.txt"));
    assert!(server.diff(view.dispatch_id).await.contains("+[masked:DB_PASSWORD]"));
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_server_masks_on_without_a_gap() {
    let (mut server, repo) = (Server::start_with(&[], CONFIG).await, Repo::with_script(COUNTS));
    put(&server).await;
    let mut wanted = request("script", "x", &repo);
    wanted.secrets = vec!["DB_PASSWORD".to_owned()];
    let created = server.api.create_dispatch(wanted, None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    for seen in ["line 20 ", "line 150 "] {
        let has_seen = |event: &EventEnvelope| match &event.data {
            EventData::Log { text, .. } => text.starts_with(seen),
            _ => false,
        };
        server.event(id, has_seen).await;
        server = server.replace(Signal::KILL).await;
    }
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let events = nothing_shows(&server, id).await;
    let log = server.log(id).await;
    for word in ["line", "side"] {
        let expected: Vec<_> =
            (1..=300).map(|number| format!("{word} {number} [masked:DB_PASSWORD]")).collect();
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with(word)).collect();
        assert_eq!(lines, expected);
        let told = events.iter().filter_map(|event| match &event.data {
            EventData::Log { text, .. } if text.starts_with(word) => Some(text.as_str()),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
    // Each offset is where its line ends in the log that is served.
    for event in events.iter().filter(|event| matches!(event.data, EventData::Log { .. })) {
        let (EventData::Log { text, .. }, Some(end)) = (&event.data, event.log_offset) else {
            continue;
        };
        assert!(log[..end as usize].ends_with(&format!("{text}\n")), "{event:?}");
    }
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_claude_prints_is_masked() {
    if !has_cli("claude") {
        return;
    }
    let (server, repo) = (Server::start().await, Repo::new());
    put(&server).await;
    let mut wanted = request("claude", "leak", &repo);
    wanted.secrets = vec!["DB_PASSWORD".to_owned()];
    let view = server.run(wanted).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let events = nothing_shows(&server, view.dispatch_id).await;
    assert!(server.diff(view.dispatch_id).await.contains("+[masked:DB_PASSWORD]"));
    let masked = |event: &EventEnvelope| format!("{event:?}").contains("[masked:DB_PASSWORD]");
    assert!(events.iter().any(masked), "{events:?}");
    server.assert_nothing_left();
}
