//! The examples of the OpenAPI document: there for every body and answer, right, and sent.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::contract::{prepared, row};
use crate::harness::Server;
use crate::schemas::{Judge, Shape};

#[test]
fn every_body_and_every_answer_has_an_example_that_its_schema_allows() {
    let judge = Judge::new();
    for shape in &judge.shapes {
        let Shape { operation, status, media, examples, .. } = shape;
        let what = status.map_or("body".to_owned(), |status| format!("answer {status}"));
        assert!(
            !examples.is_empty(),
            "{operation}: its {what} ({media}) has no example: add an entry with the name of its schema to \
             crates/outpost-server/src/examples.json, and run `cargo xtask openapi`"
        );
        for example in examples {
            judge.check(shape, example);
        }
    }
    assert!(judge.shapes.len() >= 60, "the document lost its bodies: {}", judge.shapes.len());
}

/// An unknown field and a wrong type are noticed: otherwise the tests here would prove nothing.
#[test]
fn the_judge_refuses_what_is_not_documented() {
    let judge = Judge::new();
    let right = judge.answer("getDispatch", 200, "application/json").unwrap().examples[0].clone();
    let page = judge.answer("listRuns", 200, "application/json").unwrap();
    let refused = |value: Value| {
        let check = std::panic::AssertUnwindSafe(|| judge.check(page, &value));
        std::panic::catch_unwind(check).is_err()
    };
    assert!(!refused(json!({ "items": [right] })));
    for (field, value) in [("more", json!(1)), ("status", json!("DONE")), ("createdAt", json!("x"))]
    {
        let mut wrong = right.clone();
        wrong[field] = value;
        assert!(refused(json!({ "items": [wrong] })), "{field}");
    }
    assert!(refused(json!({})));
}

/// Every operation, with each example of its body, answers with a status and a body that the document names.
#[tokio::test]
async fn every_example_of_a_body_is_taken() {
    let (server, judge) = (Server::start().await, Judge::new());
    let mut sent = 0;
    for shape in judge.shapes.iter().filter(|shape| shape.status.is_none()) {
        for example in &shape.examples {
            sent += 1;
            let id = prepared(&server).await;
            let mut example = example.clone();
            if let Some(dispatch) = example.get_mut("dispatchId") {
                *dispatch = json!(id);
            }
            let body = match shape.media.as_str() {
                "application/json" => example.to_string(),
                "application/x-www-form-urlencoded" => form(&example),
                other => panic!("{other}: say how an example of it is sent"),
            };
            let answer = ask(&server, shape, &id, Some(body)).await;
            check(&judge, &shape.operation, answer).await;
        }
    }
    assert!(sent >= 13, "the document lost its examples: {sent}");
}

#[tokio::test]
async fn every_answer_is_what_the_document_says() {
    let (server, judge) = (Server::start().await, Judge::new());
    let mut checked = 0;
    for shape in judge.shapes.iter().filter(|shape| shape.status.is_some()) {
        let id = prepared(&server).await;
        let body = row(&shape.operation, &id).body.map(|body| body.to_string());
        let answer = ask(&server, shape, &id, body).await;
        checked += usize::from(check(&judge, &shape.operation, answer).await);
    }
    assert!(checked >= 40, "too few answers were JSON: {checked}");
}

async fn ask(server: &Server, shape: &Shape, id: &str, body: Option<String>) -> reqwest::Response {
    let method: Method = shape.method.parse().unwrap();
    let path = row(&shape.operation, id).path;
    let start = shape.path.split('{').next().unwrap();
    assert!(path.starts_with(start), "{}: {path} is not {}", shape.operation, shape.path);
    let request = server.request(method, &path);
    let media = if shape.status.is_none() { shape.media.as_str() } else { "application/json" };
    let request = request.header("Accept", "application/json, text/event-stream");
    let request = match body {
        Some(body) => request.header(CONTENT_TYPE, media).body(body),
        None => request,
    };
    request.send().await.unwrap()
}

/// Fails unless the document names the answer; says whether it was JSON, and so was held against a schema.
async fn check(judge: &Judge, operation: &str, answer: reqwest::Response) -> bool {
    let status = answer.status().as_u16();
    let media = answer.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    let media = media.unwrap_or_default();
    if !answer.status().is_success() {
        panic!("{operation} {status}: {}", answer.text().await.unwrap());
    }
    if operation == "readArtifact" {
        // It has the type of its file, whatever that is.
        return false;
    }
    let Some(shape) = judge.answer(operation, status, &media) else {
        panic!("{operation} answers {status} {media}, which is not in the document");
    };
    if !media.starts_with("application/json") {
        return false;
    }
    judge.check(shape, &answer.json().await.unwrap());
    true
}

/// A body as a form: lists by the same name again.
fn form(example: &Value) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in example.as_object().unwrap() {
        let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            pairs.append_pair(
                name,
                &value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            );
        }
    }
    pairs.finish()
}
