//! Faults of a script: errors, cuts, hangs, and how often they strike.

use outpost_scripted::{SCRIPTED_KEY, ScriptedHandle};
use serde_json::Value;

use crate::shapes::Shape;
use crate::support::{SOON, client, scripted};

async fn send(provider: &ScriptedHandle, shape: Shape, request: &Value) -> reqwest::Response {
    let call = client().post(format!("{}{}", provider.url(), shape.path())).json(request);
    shape.with_key(call, SCRIPTED_KEY).send().await.unwrap()
}

#[tokio::test]
async fn an_error_strikes_as_often_as_it_says_in_each_conversation() {
    let provider = scripted(
        "[[rule]]\nfault = { status = 429, times = 2, retry_after_seconds = 7, message = 'slow down' }\nsteps = [{ say = 'fine' }]",
    )
    .await;
    for shape in Shape::ALL {
        let request = shape.request(&format!("task of {shape:?}"), &[]);
        for _ in 0..2 {
            let limited = send(&provider, shape, &request).await;
            assert_eq!(limited.status(), 429);
            assert_eq!(limited.headers()["retry-after"], "7");
            let body: Value = limited.json().await.unwrap();
            assert_eq!(body["error"]["message"], "slow down");
        }
        let fine = send(&provider, shape, &request).await;
        assert_eq!(shape.text_in(&fine.text().await.unwrap()), "fine");
    }
}

#[tokio::test]
async fn a_rule_with_only_a_fault_is_passed_over_when_it_is_used_up() {
    let provider = scripted(
        "[[rule]]\nfault = { status = 529, times = 1 }\n[[rule]]\nwhen = { task_contains = 'always' }\nfault = { status = 401 }\n[[rule]]\nsteps = [{ say = 'next rule' }]",
    )
    .await;
    let request = Shape::Claude.request("sometimes", &[]);
    assert_eq!(send(&provider, Shape::Claude, &request).await.status(), 529);
    let text = send(&provider, Shape::Claude, &request).await.text().await.unwrap();
    assert_eq!(Shape::Claude.text_in(&text), "next rule");
    let always = Shape::Claude.request("always", &[]);
    assert_eq!(send(&provider, Shape::Claude, &always).await.status(), 529);
    for _ in 0..3 {
        assert_eq!(send(&provider, Shape::Claude, &always).await.status(), 401);
    }
}

#[tokio::test]
async fn a_fault_can_wait_for_its_step_and_spares_side_calls() {
    let provider = scripted(
        "[[rule]]\nfault = { status = 500, at_step = 1 }\nsteps = [{ run = 'ls' }, { say = 'done' }]",
    )
    .await;
    let shape = Shape::Grok;
    assert_eq!(send(&provider, shape, &shape.request("x", &[])).await.status(), 200);
    assert_eq!(send(&provider, shape, &shape.request("x", &["ok"])).await.status(), 500);
    let mut title = shape.request("x", &["ok"]);
    title["tool_choice"] = serde_json::json!({"type": "function", "name": "write"});
    assert_eq!(send(&provider, shape, &title).await.status(), 200);
}

#[tokio::test]
async fn a_cut_ends_the_stream_without_its_end() {
    let provider = scripted(
        "[[rule]]\nfault = { cut_after_events = 3, times = 1 }\nsteps = [{ say = 'a long enough text' }]\nstream = { chunk_chars = 4 }",
    )
    .await;
    for shape in [Shape::Claude, Shape::Grok, Shape::GrokChat, Shape::Gemini] {
        let request = shape.request("cut", &[]);
        let mut response = send(&provider, shape, &request).await;
        let mut received = Vec::new();
        let error = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => received.extend_from_slice(&chunk),
                Ok(None) => panic!("{shape:?}: the stream ended in order"),
                Err(error) => break error,
            }
        };
        assert!(error.is_body() || error.is_decode(), "{error:?}");
        let text = String::from_utf8(received).unwrap();
        assert_eq!(text.matches("data: ").count(), 3, "{shape:?}: {text}");
        let whole = send(&provider, shape, &request).await.text().await.unwrap();
        assert_eq!(shape.text_in(&whole), "a long enough text");
        // Asked again, nothing is left of the fault. An answer without streaming can be cut as well.
    }
    let mut plain = Shape::Claude.request("cut without stream", &[]);
    plain["stream"] = serde_json::json!(false);
    let provider =
        scripted("[[rule]]\nfault = { cut_after_events = 1 }\nsteps = [{ say = 'text' }]").await;
    assert!(send(&provider, Shape::Claude, &plain).await.bytes().await.is_err());
}

#[tokio::test]
async fn a_hang_lasts_until_it_is_released() {
    let provider = scripted(
        "[[rule]]\nwhen = { task_contains = 'middle' }\nfault = { hang_after_events = 2 }\nsteps = [{ say = 'text' }]\n[[rule]]\nfault = { hang = true }\nsteps = [{ say = 'text' }]",
    )
    .await;
    let shape = Shape::Claude;
    let request = shape.request("start", &[]);
    let hanging = send(&provider, shape, &request);
    tokio::pin!(hanging);
    let seen = provider.journal_until(SOON, |entries| entries.len() == 1);
    tokio::select! {
        _ = &mut hanging => panic!("it answered"),
        entries = seen => assert_eq!(entries.unwrap()[0].status, 0),
    }
    provider.release_hangs();
    assert_eq!(shape.text_in(&hanging.await.text().await.unwrap()), "text");

    let mut response = send(&provider, shape, &shape.request("middle", &[])).await;
    let mut received = String::new();
    while received.matches("data: ").count() < 2 {
        received.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(received.matches("data: ").count(), 2);
    provider.release_hangs();
    while let Some(chunk) = response.chunk().await.unwrap() {
        received.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert_eq!(shape.text_in(&received), "text");
}

#[tokio::test]
async fn conversations_do_not_disturb_each_other() {
    let provider = scripted(
        "[[rule]]\nfault = { status = 500, times = 1 }\nsteps = [{ run = 'one' }, { run = 'two' }, { say = 'end' }]",
    )
    .await;
    let shape = Shape::Gemini;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let url = format!("{}{}", provider.url(), shape.path());
        tasks.spawn(async move {
            let client = client();
            let task = format!("task {number}");
            let mut statuses = Vec::new();
            for rounds in [0, 0, 1, 2] {
                let request = shape.request(&task, &vec!["ok"; rounds]);
                let call = shape.with_key(client.post(&url).json(&request), SCRIPTED_KEY);
                statuses.push(call.send().await.unwrap().status().as_u16());
            }
            statuses
        });
    }
    while let Some(statuses) = tasks.join_next().await {
        assert_eq!(statuses.unwrap(), [500, 200, 200, 200]);
    }
}
