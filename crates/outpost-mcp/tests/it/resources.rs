//! Resources and prompts.

use rmcp::model::{GetPromptRequestParams, ReadResourceRequestParams};
use serde_json::{Value, json};

use crate::client::Client;
use crate::fake::{Fake, id};

async fn read(client: &Client, what: &str) -> Result<Value, String> {
    let request = ReadResourceRequestParams::new(format!("outpost://runs/{what}"));
    let read = client.running.read_resource(request).await.map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(&read.contents[0]).unwrap())
}

#[tokio::test]
async fn resources_of_runs_are_listed_and_read() {
    let client = Client::of(Fake::holding(b"out\x1b[1mput\n", b"diff --git a/x b/x\n")).await;
    let listed = client.running.list_all_resources().await.unwrap();
    assert_eq!(listed[0].uri, format!("outpost://runs/{}/log", id()));
    let templates = client.running.list_all_resource_templates().await.unwrap();
    assert_eq!(templates.len(), 3);
    let id = id();
    assert_eq!(read(&client, &format!("{id}/log")).await.unwrap()["text"], "output\n");
    let diff = read(&client, &format!("{id}/diff")).await.unwrap();
    assert_eq!(
        (&diff["text"], &diff["mimeType"]),
        (&json!("diff --git a/x b/x\n"), &json!("text/x-diff"))
    );
    let artifact = |name: &'static str| format!("{id}/artifacts/{name}");
    assert_eq!(read(&client, &artifact("a/b.txt")).await.unwrap()["text"], "kept");
    assert_eq!(read(&client, &artifact("image.png")).await.unwrap()["blob"], "iVBOR/8=");
    let large = read(&client, &artifact("large")).await.unwrap_err();
    assert!(large.contains("larger than"), "{large}");
}

#[tokio::test]
async fn long_resources_say_what_is_missing() {
    let log = "0123456789abcde\n".repeat(20_000);
    let client = Client::of(Fake::holding(log.as_bytes(), log.as_bytes())).await;
    let text = |value: Value| value["text"].as_str().unwrap().to_owned();
    let end = text(read(&client, &format!("{}/log", id())).await.unwrap());
    assert!(end.starts_with('(') && end.contains("get_logs") && end.ends_with("abcde\n"));
    let beginning = text(read(&client, &format!("{}/diff", id())).await.unwrap());
    assert!(beginning.starts_with("0123") && beginning.contains("get_diff"));
}

#[tokio::test]
async fn unknown_resources_are_refused_alike() {
    let client = Client::of(Fake::new()).await;
    let foreign = "01J9Z3NDEKTSV4RRFFQ69G5FAV";
    for what in ["x/log", &format!("{foreign}/log"), &format!("{foreign}/artifacts/a"), ""] {
        let error = read(&client, what).await.unwrap_err();
        assert!(error.contains("There is no resource"), "{what}: {error}");
    }
}

#[tokio::test]
async fn prompts_are_listed_and_filled_in() {
    let client = Client::of(Fake::new()).await;
    let prompts = client.running.list_all_prompts().await.unwrap();
    let names: Vec<_> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
    assert_eq!(names, ["delegate_task", "review_run", "retry_run"]);
    let arguments = json!({"task": "Fix it"}).as_object().unwrap().clone();
    let request = GetPromptRequestParams::new("delegate_task").with_arguments(arguments);
    let prompt = client.running.get_prompt(request).await.unwrap();
    assert!(serde_json::to_string(&prompt).unwrap().contains("Fix it"));
    let missing = GetPromptRequestParams::new("delegate_task");
    let error = client.running.get_prompt(missing).await.unwrap_err();
    assert!(error.to_string().contains("`task`"), "{error}");
}
