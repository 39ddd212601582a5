//! Waiting: what is told meanwhile, and how it ends.

use outpost_types::DispatchStatus;
use rmcp::model::{CallToolRequest, ClientRequest};
use rmcp::service::PeerRequestOptions;
use serde_json::json;

use crate::client::{Client, DEADLINE, request};
use crate::fake::{Fake, id};

fn wait(seconds: u64) -> ClientRequest {
    let arguments = json!({"dispatchId": id().to_string(), "waitSeconds": seconds});
    ClientRequest::CallToolRequest(CallToolRequest::new(request("wait_run", arguments)))
}

#[tokio::test]
async fn a_wait_tells_how_far_the_run_is_and_ends_with_it() {
    let fake = Fake::new();
    let mut client = Client::of(fake.clone()).await;
    let options = PeerRequestOptions::no_options();
    let handle = client.running.send_cancellable_request(wait(600), options).await.unwrap();
    let first = tokio::time::timeout(DEADLINE, client.progress.recv()).await.unwrap().unwrap();
    assert!(first.message.as_ref().unwrap().starts_with("RUNNING"), "{first:?}");
    fake.reach(DispatchStatus::Running, |view| view.output = Some("one\ntwo\u{7}\n\n".into()));
    let second = tokio::time::timeout(DEADLINE, client.progress.recv()).await.unwrap().unwrap();
    assert!(second.progress > first.progress);
    assert!(second.message.as_ref().unwrap().starts_with("RUNNING: two ("), "{second:?}");
    fake.reach(DispatchStatus::Failed, |_| {});
    let answer = tokio::time::timeout(DEADLINE, handle.await_response()).await.unwrap().unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(answer["structuredContent"]["status"], "FAILED", "{answer}");
}

#[tokio::test]
async fn a_wait_that_is_over_says_that_the_run_is_not() {
    let client = Client::of(Fake::new()).await;
    let run =
        client.ask("wait_run", json!({"dispatchId": id().to_string(), "waitSeconds": 1})).await;
    assert_eq!((&run["status"], &run["finished"]), (&json!("RUNNING"), &json!(false)));
}

#[tokio::test]
async fn a_cancelled_wait_leaves_run_and_server_alone() {
    let fake = Fake::new();
    let mut client = Client::of(fake.clone()).await;
    let options = PeerRequestOptions::no_options();
    let handle = client.running.send_cancellable_request(wait(600), options).await.unwrap();
    tokio::time::timeout(DEADLINE, client.progress.recv()).await.unwrap().unwrap();
    handle.cancel(Some("not interested".into())).await.unwrap();
    // The wait is over once nobody looks for changes any more.
    tokio::time::timeout(DEADLINE, fake.view.closed()).await.unwrap();
    assert_eq!(fake.calls(), []);
    let run = client.ask("get_run", json!({"dispatchId": id().to_string()})).await;
    assert_eq!(run["status"], "RUNNING");
}
