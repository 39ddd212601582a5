//! Whatever an agent prints, reading it neither panics nor grows without bound, and no terminal control
//! sequence gets out of `raw`.

use outpost_agents::parse::{
    ERROR_BYTES_MAX, EVENTS_PER_LINE_MAX, NAME_BYTES_MAX, RAW_BYTES_MAX, SUMMARY_BYTES_MAX,
    TEXT_BYTES_MAX,
};
use outpost_agents::{OutputParser, Registry};
use outpost_types::limits::LINE_BYTES_MAX;
use outpost_types::{EventData, LogStreamName};
use proptest::prelude::*;

fn parsers() -> Vec<(String, Box<dyn OutputParser>)> {
    Registry::new(Vec::new())
        .unwrap()
        .iter()
        .map(|agent| (agent.profile().id.to_string(), agent.parser()))
        .collect()
}

fn is_clean(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() && !"\n\t".contains(character))
}

fn check_text(text: &str, bytes_max: usize) {
    assert!(text.len() <= bytes_max, "{} bytes", text.len());
    assert!(is_clean(text), "{text:?}");
}

fn check(event: &EventData) {
    let raw = match event {
        EventData::Log { text, .. } => {
            check_text(text, TEXT_BYTES_MAX);
            &None
        }
        EventData::Message { text, raw } | EventData::Thought { text, raw } => {
            check_text(text, TEXT_BYTES_MAX);
            raw
        }
        EventData::Tool { name, call_id, summary, raw, .. } => {
            check_text(name, NAME_BYTES_MAX);
            assert!(!name.is_empty());
            check_text(call_id.as_deref().unwrap_or_default(), NAME_BYTES_MAX);
            check_text(summary.as_deref().unwrap_or_default(), SUMMARY_BYTES_MAX);
            raw
        }
        EventData::Usage { usage, raw } => {
            let model = usage.model_id.as_deref().unwrap_or_default();
            check_text(model, NAME_BYTES_MAX);
            raw
        }
        EventData::Attention(attention) => {
            check_text(&attention.message, SUMMARY_BYTES_MAX + 200);
            &None
        }
        other => panic!("a parser made {other:?}"),
    };
    assert!(raw.as_ref().is_none_or(|raw| raw.len() <= RAW_BYTES_MAX));
}

fn feed(lines: &[String]) {
    for (name, mut parser) in parsers() {
        for line in lines {
            for stream in [LogStreamName::Stdout, LogStreamName::Stderr] {
                let events = parser.line(stream, line);
                assert!(events.len() <= EVENTS_PER_LINE_MAX, "{name}");
                events.iter().for_each(check);
            }
        }
        parser.flush().iter().for_each(check);
        let report = parser.finish();
        check_text(report.summary.as_deref().unwrap_or_default(), TEXT_BYTES_MAX);
        check_text(report.session_id.as_deref().unwrap_or_default(), NAME_BYTES_MAX);
        check_text(report.model_id.as_deref().unwrap_or_default(), NAME_BYTES_MAX);
        if let Some((_, message)) = &report.error {
            check_text(message, ERROR_BYTES_MAX);
            assert!(!message.is_empty(), "{name}");
        }
    }
}

/// Real lines, to be damaged.
fn real_lines() -> Vec<String> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut lines: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "txt") {
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

/// Words the parsers branch on.
const WORDS: &str = "system init assistant user result text thinking tool_use tool_result success error \
    item.completed item.started turn.completed turn.failed agent_message command_execution \
    file_change message permission_denied api_retry cancelled \u{1b}[31m \u{1b}]0;x";
/// Fields the parsers look at.
const FIELDS: &str = "type subtype message content usage modelUsage is_error item id name input text \
    result errors stats models status input_tokens output_tokens session_id command changes role \
    delta tool_name tool_id parameters total_cost_usd error stop_reason";

fn one_of(words: &'static str) -> impl Strategy<Value = String> + Clone {
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    prop::sample::select(words)
}

/// JSON of any shape under the fields the parsers look at.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,40}".prop_map(Into::into),
        one_of(WORDS).prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::vec((one_of(FIELDS), inner), 0..10)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
        let lines: Vec<String> = bytes.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        feed(&lines);
    }

    #[test]
    fn any_json(values in prop::collection::vec(json(), 0..12)) {
        let lines: Vec<String> = values.iter().map(ToString::to_string).collect();
        feed(&lines);
    }

    #[test]
    fn damaged_real_output(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<char>()), 0..16)
    ) {
        let real = real_lines();
        let lines: Vec<String> = picks.iter().map(|(line, place, character)| {
            let mut line = line.get(&real).clone();
            let at = line.floor_char_boundary(place.index(line.len() + 1));
            line.insert(at, *character);
            line
        }).collect();
        feed(&lines);
    }

    #[test]
    fn amounts_in_text(text in "Tokens: [0-9kM.,e+-]{0,20} sent, [0-9kM.]{0,20} received\\. Cost: \\$[0-9.,e]{0,20} message, \\$[0-9.,e]{0,20} session\\.") {
        feed(&["Aider v1".to_owned(), String::new(), text]);
    }
}

#[test]
fn huge_and_deep_lines() {
    let deep = format!("{{\"type\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let blocks = "{\"type\":\"text\",\"text\":\"x\"},".repeat(5_000);
    let blocks = blocks.trim_end_matches(',');
    feed(&[
        deep,
        format!("{{\"type\":\"assistant\",\"message\":{{\"content\":[{blocks}]}}}}"),
        format!("{{\"type\":\"message\",\"delta\":true,\"content\":\"{}\"}}", "é".repeat(100_000)),
        format!("{{\"type\":\"result\",\"is_error\":true,\"result\":\"{}\"}}", "é".repeat(90_000)),
        "\u{1b}]".repeat(LINE_BYTES_MAX),
        format!("Aider v{}", "x".repeat(LINE_BYTES_MAX * 2)),
        format!("Model: {}", "y".repeat(LINE_BYTES_MAX)),
        format!("litellm.{}Error: x", "Z".repeat(LINE_BYTES_MAX)),
    ]);
}

#[test]
fn endless_calls_and_text_are_forgotten() {
    let registry = Registry::new(Vec::new()).unwrap();
    for agent in registry.iter() {
        let mut parser = agent.parser();
        for number in 0..20_000 {
            for line in [
                format!("{{\"type\":\"tool_use\",\"tool_name\":\"a\",\"tool_id\":\"{number}\"}}"),
                format!(
                    "{{\"type\":\"item.started\",\"item\":{{\"type\":\"file_change\",\"id\":\"{number}\"}}}}"
                ),
                "a line of text that never ends in anything".to_owned(),
            ] {
                let events = parser.line(LogStreamName::Stdout, &line);
                events.iter().for_each(check);
            }
        }
        parser.flush().iter().for_each(check);
    }
}

#[test]
fn names_of_models_are_single_lines() {
    let claude = r#"{"type":"result","is_error":false,"modelUsage":{"a\nb":{"outputTokens":9},"good":{"outputTokens":2}}}"#;
    let gemini = r#"{"type":"result","status":"success","stats":{"output_tokens":3,"models":{"a\nb":{"output_tokens":9}}}}"#;
    let registry = Registry::new(Vec::new()).unwrap();
    for (agent, line, model) in [("claude", claude, Some("good")), ("gemini", gemini, None)] {
        let mut parser = registry.get(&agent.parse().unwrap()).unwrap().parser();
        let events = parser.line(LogStreamName::Stdout, line);
        assert!(
            matches!(events.as_slice(), [EventData::Usage { usage, .. }] if usage.model_id.as_deref() == model)
        );
        assert_eq!(parser.finish().model_id.as_deref(), model);
    }
}
