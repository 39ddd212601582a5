//! The scripted provider does the right step for every CLI, from the request alone.

use std::time::Duration;

use outpost_scripted::{
    Dialect, KeySeen, SCRIPTED_KEY, Script, ScriptedError, ScriptedHandle, ScriptedProvider,
};
use serde_json::{Value, json};

use crate::shapes::{DIRECTORY, Shape};
use crate::support::{SOON, client, scripted};

const SCRIPT: &str = r#"
[[rule]]
name = "work"
when = { task_contains = "do the work" }
steps = [
  { say = "First.", run = "ls" },
  { write = { path = "new.txt", content = "x\n" } },
  { edit = { path = "new.txt", old = "x", new = "y" } },
  { read = "new.txt" },
  { say = "Finished: ünï ✓ at last." },
]
"#;

async fn ask(provider: &ScriptedHandle, shape: Shape, request: &Value) -> String {
    let call = client().post(format!("{}{}", provider.url(), shape.path())).json(request);
    let answer = shape.with_key(call, SCRIPTED_KEY).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

fn names(shape: Shape) -> [&'static str; 4] {
    match shape {
        Shape::Claude => ["Bash", "Write", "Edit", "Read"],
        Shape::CodexClassic => ["exec_command", "apply_patch", "exec_command", "exec_command"],
        Shape::CodexCodeMode => ["exec"; 4],
        Shape::Grok | Shape::GrokChat => {
            ["run_terminal_command", "write", "search_replace", "read_file"]
        }
        Shape::Gemini => ["run_shell_command", "write_file", "replace", "read_file"],
    }
}

#[tokio::test]
async fn every_cli_gets_its_own_tools_step_by_step() {
    let provider = scripted(SCRIPT).await;
    for shape in Shape::ALL {
        for (step, expected) in names(shape).into_iter().enumerate() {
            let request = shape.request("please do the work", &vec!["ok"; step]);
            let stream = ask(&provider, shape, &request).await;
            let (name, input) = shape.call_in(&stream).unwrap();
            assert_eq!(name, expected, "{shape:?} step {step}");
            let native = !matches!(shape, Shape::CodexClassic | Shape::CodexCodeMode);
            if native && step > 0 {
                assert!(input.contains(&format!("{DIRECTORY}/new.txt")), "{shape:?}: {input}");
            }
        }
        let last = ask(&provider, shape, &shape.request("please do the work", &["ok"; 4])).await;
        assert_eq!(shape.call_in(&last), None, "{shape:?}");
        assert_eq!(shape.text_in(&last), "Finished: ünï ✓ at last.", "{shape:?}");
        // Asked once more, it says the same again.
        let more = ask(&provider, shape, &shape.request("please do the work", &["ok"; 6])).await;
        assert_eq!(shape.text_in(&more), "Finished: ünï ✓ at last.", "{shape:?}");
    }
    let journal = provider.journal();
    assert_eq!(journal.len(), Shape::ALL.len() * 6);
    assert!(
        journal
            .iter()
            .all(|entry| entry.key == KeySeen::Ok && entry.rule.as_deref() == Some("work"))
    );
    assert_eq!(journal[2].step, Some(2));
    assert_eq!(journal[0].dialect, Some(Dialect::Anthropic));
    assert_eq!(journal[0].model.as_deref(), Some("claude-opus-4-5"));
}

#[tokio::test]
async fn a_write_that_claude_code_refuses_is_made_again_after_reading() {
    let provider = scripted(SCRIPT).await;
    let refused = "<tool_use_error>File has not been read yet. Read it first before writing to it.</tool_use_error>";
    let rounds: [(&[&str], &str); 4] = [
        (&["ok"], "Write"),
        (&["ok", refused], "Read"),
        (&["ok", refused, "content"], "Write"),
        (&["ok", refused, "content", "written"], "Edit"),
    ];
    for (results, expected) in rounds {
        let request = Shape::Claude.request("do the work", results);
        let stream = ask(&provider, Shape::Claude, &request).await;
        assert_eq!(Shape::Claude.call_in(&stream).unwrap().0, expected, "{results:?}");
    }
}

#[tokio::test]
async fn without_a_directory_paths_are_left_to_the_shell() {
    let provider = scripted(SCRIPT).await;
    let mut request = Shape::Claude.request("do the work", &["ok"]);
    request["messages"].as_array_mut().unwrap().remove(1);
    let stream = ask(&provider, Shape::Claude, &request).await;
    let (name, input) = Shape::Claude.call_in(&stream).unwrap();
    assert_eq!(name, "Bash");
    assert!(input.contains("> 'new.txt'"), "{input}");
}

#[tokio::test]
async fn side_calls_are_answered_in_the_form_they_ask_for() {
    let provider = scripted(SCRIPT).await;
    // Grok's title: one tool that must be called.
    let title = json!({
        "model": "grok-4.1", "stream": true,
        "input": [{"type": "message", "role": "user", "content": "<user_query>\ndo the work\n</user_query>"}],
        "tools": [{"type": "function", "name": "session_title", "parameters": {
            "type": "object", "properties": {"session_title": {"type": "string"}}, "required": ["session_title"]
        }}],
        "tool_choice": {"type": "function", "name": "session_title"}
    });
    let stream = ask(&provider, Shape::Grok, &title).await;
    let (name, input) = Shape::Grok.call_in(&stream).unwrap();
    assert_eq!(
        (name.as_str(), input.as_str()),
        ("session_title", r#"{"session_title":"do the work"}"#)
    );
    // Gemini's classifier: JSON of a schema.
    let classify = json!({
        "contents": [{"role": "user", "parts": [{"text": "do the work"}]}],
        "generationConfig": {"responseJsonSchema": {
            "type": "object", "properties": {"next_speaker": {"enum": ["model", "user"]}}
        }}
    });
    let stream = ask(&provider, Shape::Gemini, &classify).await;
    assert_eq!(Shape::Gemini.text_in(&stream), r#"{"next_speaker":"user"}"#);
    // Aider's commit message: no tools, and told what it is.
    let commit = json!({"model": "m", "stream": true, "messages": [
        {"role": "system", "content": "You generate concise, one-line Git commit messages"},
        {"role": "user", "content": "do the work"}
    ]});
    let stream = ask(&provider, Shape::GrokChat, &commit).await;
    assert_eq!(Shape::GrokChat.text_in(&stream), "Scripted work");
    assert!(provider.journal().iter().all(|entry| entry.aside && entry.rule.is_none()));
}

#[tokio::test]
async fn other_paths_are_answered_so_that_every_cli_goes_on() {
    let provider = scripted(SCRIPT).await;
    let client = client();
    let url = |path: &str| format!("{}{path}", provider.url());
    let count = client.post(url("/v1/messages/count_tokens")).header("x-api-key", SCRIPTED_KEY);
    let counted: Value = count
        .json(&Shape::Claude.request("do the work", &[]))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(counted["input_tokens"].as_u64().unwrap() > 10);
    assert_eq!(client.head(url("/api/hello")).send().await.unwrap().status(), 200);
    for path in ["/", "/v1/models", "/v1/api-key", "/v1/files"] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 404, "{path}");
    }
    let broken = client.post(url("/v1/responses")).bearer_auth(SCRIPTED_KEY).body("{not json");
    assert_eq!(broken.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn aider_gets_all_edits_in_one_text() {
    let provider = scripted(SCRIPT).await;
    let request = |system: &str| {
        json!({"model": "m", "stream": true, "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": "do the work"}
        ]})
    };
    // The DeepSeek client leaves out /v1.
    let call =
        client().post(format!("{}/chat/completions", provider.url())).bearer_auth(SCRIPTED_KEY);
    let blocks = call.json(&request("Use a *SEARCH/REPLACE block*.")).send().await.unwrap();
    let blocks = Shape::GrokChat.text_in(&blocks.text().await.unwrap());
    assert!(
        blocks.contains("new.txt\n```\n<<<<<<< SEARCH\n=======\nx\n>>>>>>> REPLACE\n```"),
        "{blocks}"
    );
    assert!(blocks.contains("<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE"), "{blocks}");
    let stream = ask(&provider, Shape::GrokChat, &request("Use the *file listing* format.")).await;
    let whole = Shape::GrokChat.text_in(&stream);
    assert!(
        whole.contains("new.txt\n```\nx\n```") && whole.contains("new.txt\n```\ny\n```"),
        "{whole}"
    );
    let stream = ask(&provider, Shape::GrokChat, &request("You are helpful.")).await;
    assert!(Shape::GrokChat.text_in(&stream).contains("offers no tools"));
}

#[tokio::test]
async fn an_unknown_task_is_answered_politely() {
    let provider = scripted(SCRIPT).await;
    for shape in Shape::ALL {
        let stream = ask(&provider, shape, &shape.request("something else", &[])).await;
        assert_eq!(shape.call_in(&stream), None);
        assert!(shape.text_in(&stream).contains("No rule of my script matches"), "{shape:?}");
    }
    assert!(provider.journal().iter().all(|entry| entry.rule.is_none() && entry.step.is_none()));
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_the_dialects_own_401() {
    let provider = scripted(SCRIPT).await;
    for shape in Shape::ALL {
        let url = format!("{}{}", provider.url(), shape.path());
        let request = shape.request("do the work", &[]);
        let wrong = shape.with_key(client().post(&url).json(&request), "another-key").send().await;
        let wrong = wrong.unwrap();
        assert_eq!(wrong.status(), 401);
        let body: Value = wrong.json().await.unwrap();
        let kind = match shape {
            Shape::Claude => &body["error"]["type"],
            Shape::Gemini => &body["error"]["status"],
            _ => &body["error"]["code"],
        };
        let expected = match shape {
            Shape::Claude => "authentication_error",
            Shape::Gemini => "UNAUTHENTICATED",
            _ => "invalid_api_key",
        };
        assert_eq!(kind, expected, "{shape:?}");
        assert_eq!(client().post(&url).json(&request).send().await.unwrap().status(), 401);
    }
    let journal = provider.journal();
    assert_eq!(journal[0].key, KeySeen::Wrong);
    assert_eq!(journal[1].key, KeySeen::Missing);
    assert!(journal.iter().all(|entry| entry.status == 401 && entry.rule.is_none()));
}

#[tokio::test]
async fn it_listens_on_loopback_only_and_frees_its_port() {
    let script = || Script::demo().unwrap();
    let public = "0.0.0.0:0".parse().unwrap();
    let refused = ScriptedProvider::new(script()).start(public).await;
    assert!(matches!(refused, Err(ScriptedError::NotLoopback(_))));
    let first = ScriptedProvider::new(script())
        .with_key("k")
        .start(crate::support::loopback())
        .await
        .unwrap();
    let addr = first.addr();
    let taken = ScriptedProvider::new(script()).start(addr).await;
    assert!(matches!(taken, Err(ScriptedError::Listen { .. })));
    first.shutdown().await;
    assert!(ScriptedProvider::new(script()).start(addr).await.is_ok());
}

#[tokio::test]
async fn the_journal_can_be_waited_for() {
    let provider = scripted(SCRIPT).await;
    let two = provider.journal_until(SOON, |entries| entries.len() == 2);
    let asking = async {
        for _ in 0..2 {
            ask(&provider, Shape::Claude, &Shape::Claude.request("do the work", &[])).await;
        }
    };
    let (entries, ()) = tokio::join!(two, asking);
    assert_eq!(entries.unwrap().len(), 2);
    let never = provider.journal_until(Duration::from_millis(1), |_| false).await;
    assert!(never.is_none());
}
