//! The events of each API's stream and plain answer, held against files in `golden/`.
//!
//! After a wanted change: `OUTPOST_BLESS=1 cargo test -p outpost-scripted golden`, then read the diff.

use std::path::Path;

use outpost_scripted::SCRIPTED_KEY;
use serde_json::{Value, json};

use crate::shapes::Shape;
use crate::support::{client, scripted};

const SCRIPT: &str = r#"
[[rule]]
when = { task_contains = "golden" }
steps = [
  { think = "Let me see what there is.", say = "I look first: ünï ✓", run = "echo \"a 'b'\"" },
  { write = { path = "docs/new.txt", content = "one\n\"two\"\n" } },
  { say = "That is all." },
]
usage = { input_tokens = 1200, cached_input_tokens = 200, output_tokens = 34 }
stream = { chunk_chars = 10 }
"#;

/// The time and the ids made from the request change from run to run.
fn steady(text: &str) -> String {
    let time = regex::Regex::new(r#""created(_at)?":\d+"#).unwrap();
    let id = regex::Regex::new("[0-9a-f]{16}").unwrap();
    let text = time.replace_all(text, r#""created$1":0"#);
    id.replace_all(&text, "ID").into_owned()
}

/// A line as it is meant: the order of fields does not matter, not even in arguments that are JSON in a
/// text.
fn meaning(line: &str) -> Value {
    let json = line.strip_prefix("data: ").unwrap_or(line);
    let Ok(mut value) = serde_json::from_str(json) else {
        return Value::from(line);
    };
    unfold(&mut value);
    value
}

fn unfold(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with('{') => {
            if let Ok(inner) = serde_json::from_str(text) {
                *value = inner;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unfold),
        Value::Object(fields) => fields.values_mut().for_each(unfold),
        _ => {}
    }
}

fn hold(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    let actual = steady(actual);
    if std::env::var_os("OUTPOST_BLESS").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(meaning).collect::<Vec<_>>();
    assert_eq!(lines(&actual), lines(&expected), "differs from {}", path.display());
}

#[tokio::test]
async fn streams_and_plain_answers_are_as_recorded() {
    let provider = scripted(SCRIPT).await;
    let client = client();
    let shapes = [
        (Shape::Claude, "claude"),
        (Shape::CodexClassic, "codex"),
        (Shape::CodexCodeMode, "codex-code-mode"),
        (Shape::GrokChat, "grok-chat"),
        (Shape::Gemini, "gemini"),
    ];
    for (shape, name) in shapes {
        for rounds in 0..3 {
            let results = vec!["ok"; rounds];
            let url = format!("{}{}", provider.url(), shape.path());
            let call = client.post(url).json(&shape.request("golden", &results));
            let answer = shape.with_key(call, SCRIPTED_KEY).send().await.unwrap();
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
            hold(&format!("{name}-{rounds}.sse"), &answer.text().await.unwrap());
        }
        let path = shape.path().replace("streamGenerateContent?alt=sse", "generateContent");
        let mut request = shape.request("golden", &[]);
        if shape != Shape::Gemini {
            request["stream"] = json!(false);
        }
        let call = client.post(format!("{}{path}", provider.url())).json(&request);
        let answer = shape.with_key(call, SCRIPTED_KEY).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json");
        hold(&format!("{name}.json"), &answer.text().await.unwrap());
    }
}
