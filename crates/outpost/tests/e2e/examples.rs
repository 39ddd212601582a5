//! The examples of the OpenAPI document, each sent to the real server: it does what they say, and answers what the
//! document says.

use outpost_types::{
    Api as _, DispatchId, DispatchRequest, DispatchStatus, PutSecret, SecretValue,
};
use serde_json::{Value, json};

use crate::harness::{Server, assert_status, has_cli};
use crate::promote;
use crate::schemas::{Judge, Shape};
use crate::standin::{Standin, TOKEN, git};

/// An agent that goes on until it is ended.
const PATIENT: &str = r#"
[[agents]]
name = "patient"
command = ["/bin/sh", "-c", "echo waiting; tail -f /dev/null"]
stdin_prompt = true
"#;

async fn ask(server: &Server, shape: &Shape, path: &str, body: &Value) -> (u16, String, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request =
        client.request(shape.method.parse().unwrap(), format!("{}{path}", server.api_url()));
    let request = request
        .header("X-API-Key", &server.key)
        .header("Content-Type", &shape.media)
        .header("Accept", "application/json, text/event-stream");
    let answer = request.body(encoded(&shape.media, body)).send().await.unwrap();
    let media = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), media, answer.text().await.unwrap())
}

fn encoded(media: &str, body: &Value) -> String {
    if media == "application/json" {
        return body.to_string();
    }
    assert_eq!(media, "application/x-www-form-urlencoded");
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in body.as_object().unwrap() {
        let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            form.append_pair(name, &text);
        }
    }
    form.finish()
}

/// A dispatch that runs until it is cancelled.
async fn lively(server: &Server) -> DispatchId {
    let (agent, task) = ("patient".to_owned(), "wait".to_owned());
    let request = DispatchRequest { agent, task, ..DispatchRequest::default() };
    server.api.create_dispatch(request, None).await.unwrap().dispatch.dispatch_id
}

/// A dispatch that is over and can be promoted.
async fn promotable(server: &Server, host: &Standin) -> DispatchId {
    let work = host.work();
    git(&work, &["remote", "set-url", "origin", &host.repo()]);
    let request = DispatchRequest {
        agent: "script".into(),
        task: "Make it four".into(),
        repo: Some(work.display().to_string()),
        ..DispatchRequest::default()
    };
    let view = server.run(request).await;
    assert_status(server, &view, DispatchStatus::Completed).await;
    view.dispatch_id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_a_body_does_what_it_says() {
    if !has_cli("claude") {
        return;
    }
    let host = Standin::start();
    host.move_on("agent.sh", promote::SCRIPT);
    let config = format!("{}{PATIENT}", promote::config(&host));
    let server = Server::start_with(&[], &config).await;
    let value = SecretValue::new(TOKEN.into());
    let put = PutSecret { value, kind: None, scope: None };
    server.api.put_secret("WORK_TOKEN".parse().unwrap(), put).await.unwrap();
    let (judge, over) = (Judge::new(), promotable(&server, &host).await);
    let (mut key, mut sent) = (String::new(), 0);
    // What is made must be there before it is changed.
    let rank =
        |shape: &&Shape| (shape.method != "POST" || shape.path.contains('{'), shape.path.len());
    let mut bodies: Vec<_> = judge.shapes.iter().filter(|shape| shape.status.is_none()).collect();
    bodies.sort_by_key(rank);
    for shape in bodies {
        for example in &shape.examples {
            sent += 1;
            let mut body = example.clone();
            if let Some(dispatch) = body.get_mut("dispatchId") {
                *dispatch = json!(over);
            }
            let id = match shape.operation.as_str() {
                "cancelDispatch" | "changeNetwork" => lively(&server).await.to_string(),
                "rotateKey" => key.clone(),
                "updateTenant" => "acme".to_owned(),
                _ => "EXAMPLE_1".to_owned(),
            };
            let path = shape.path.replace("{id}", &id).replace("{name}", &id);
            let (status, media, text) = ask(&server, shape, &path, &body).await;
            let what = format!("{} {}: {status} {text}", shape.operation, shape.media);
            let answer = judge.answer(&shape.operation, status, &media);
            let answer = answer.unwrap_or_else(|| panic!("{what}"));
            if !media.starts_with("application/json") {
                continue;
            }
            let value: Value = serde_json::from_str(&text).unwrap();
            judge.check(answer, &value);
            if shape.operation == "createKey" {
                key = value["apiKey"]["id"].as_str().unwrap().to_owned();
            }
        }
    }
    assert!(sent >= 13, "the document lost its examples: {sent}");
}
