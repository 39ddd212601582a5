//! Secrets over HTTP: a value goes in and never comes out, whatever is wrong with the request.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{Server, problem};

/// Looked for wherever it must not be.
const CANARY: &str = "canary-4711";

async fn put(server: &Server, name: &str, body: &Value) -> Response {
    server.request(Method::PUT, &format!("/secrets/{name}")).json(body).send().await.unwrap()
}

/// The whole answer as text, which must not have the canary.
async fn clean(response: Response) -> (u16, String) {
    let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
    let text = response.text().await.unwrap();
    assert!(!headers.contains(CANARY) && !text.contains(CANARY), "{status}: {headers} {text}");
    (status, text)
}

#[tokio::test]
async fn a_value_arrives_whole_and_is_never_answered() {
    let server = Server::start().await;
    let values = [
        CANARY.to_owned(),
        format!("{CANARY} \"\\\n\r\t é \u{1F600} \u{1}"),
        format!("{CANARY}{}", "\u{1}".repeat(65_536 - CANARY.len())),
    ];
    for value in values {
        let body = json!({"value": value, "kind": "exposed"});
        let (status, text) = clean(put(&server, "DATABASE_URL", &body).await).await;
        assert_eq!(status, 200, "{text}");
        let arrived = server.memory.secret("local", "DATABASE_URL").unwrap();
        assert!(arrived.expose() == value);
    }
    let (_, text) = clean(server.get("/secrets").await).await;
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(listed["items"][0]["version"], 3);
    assert_eq!(listed["items"][0]["kind"], "exposed");
    let fields: Vec<_> = listed["items"][0].as_object().unwrap().keys().collect();
    assert!(!fields.iter().any(|field| field.contains("value")), "{fields:?}");
    let delete = server.request(Method::DELETE, "/secrets/DATABASE_URL").send().await.unwrap();
    assert_eq!(clean(delete).await.0, 200);
    assert!(server.memory.secret("local", "DATABASE_URL").is_none());
}

#[tokio::test]
async fn nothing_that_is_wrong_with_a_request_repeats_the_value() {
    let server = Server::start().await;
    let send = async |path: &str, kind: &str, body: String| {
        let request = server.request(Method::PUT, path).header("content-type", kind).body(body);
        clean(request.send().await.unwrap()).await
    };
    let json = "application/json";
    for (body, code) in [
        (format!(r#"{{"value":"{CANARY}""#), "malformed_body"),
        (format!(r#"{{"value":"{CANARY}"#), "malformed_body"),
        (format!(r#"{{"value":"{CANARY}\q"}}"#), "malformed_body"),
        (format!(r#"{{"value":{CANARY}}}"#), "malformed_body"),
        (format!(r#""{CANARY}""#), "malformed_body"),
        (format!(r#"["{CANARY}"]"#), "malformed_body"),
        (CANARY.to_owned(), "malformed_body"),
        (String::new(), "malformed_body"),
        (format!(r#"{{"value":["{CANARY}"]}}"#), "invalid_field"),
        (format!(r#"{{"value":{{"a":"{CANARY}"}}}}"#), "invalid_field"),
        (format!(r#"{{"value":"{CANARY}","value":"{CANARY}"}}"#), "invalid_field"),
        (format!(r#"{{"value":"{CANARY}","kind":"{CANARY}"}}"#), "invalid_field"),
        (format!(r#"{{"value":"{CANARY}","scope":"{CANARY}"}}"#), "invalid_field"),
        (format!(r#"{{"value":"{CANARY}","secret":"{CANARY}"}}"#), "invalid_field"),
        (format!(r#"{{"secret":"{CANARY}"}}"#), "invalid_field"),
        (format!(r#"{{"value":"{CANARY} x","kind":"injected"}}"#), "invalid_field"),
        (format!(r#"{{"value":"{CANARY}\u0000"}}"#), "invalid_field"),
        (format!(r#"{{"value":"{}"}}"#, CANARY.repeat(6_000)), "invalid_field"),
        (format!(r#"{{"value":"{}"}}"#, CANARY.repeat(40_000)), "payload_too_large"),
        (format!(r#"{{"value":"{}"}}"#, CANARY.repeat(1_000_000)), "payload_too_large"),
    ] {
        let (status, text) = send("/secrets/A", json, body).await;
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (document["status"].as_u64(), &document["code"]),
            (Some(status.into()), &json!(code)),
            "{text}"
        );
    }
    let form = "application/x-www-form-urlencoded";
    for (kind, body) in
        [(form, format!("value={CANARY}&{CANARY}")), ("text/plain", CANARY.to_owned())]
    {
        assert_eq!(send("/secrets/A", kind, body).await.0, 415);
    }
    let good = format!(r#"{{"value":"{CANARY}"}}"#);
    for path in [format!("/secrets/A={CANARY}"), format!("/secrets/{CANARY}")] {
        assert_eq!(send(&path, json, good.clone()).await.0, 400);
    }
    assert_eq!(send(&format!("/secrets/A/{CANARY}"), json, good).await.0, 404);
    assert!(server.memory.secret("local", "A").is_none());
}

#[tokio::test]
async fn unknown_malformed_and_foreign_names_look_alike() {
    let server = Server::start().await;
    let foreign = server.bare(Method::PUT, "/secrets/THEIRS").header("x-api-key", "other");
    let foreign = foreign.json(&json!({"value": CANARY})).send().await.unwrap();
    assert_eq!(clean(foreign).await.0, 200);
    let long = "A".repeat(2_000);
    let mut seen = Vec::new();
    for name in ["THEIRS", "NONE", "lower", "%00", "%FF", "A%2FB", "1", &long] {
        let path = format!("/secrets/{name}");
        let response = server.request(Method::DELETE, &path).send().await.unwrap();
        let mut document = problem(response, 404, "not_found").await;
        document["requestId"] = Value::Null;
        seen.push(document);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    let (_, text) = clean(server.get("/secrets").await).await;
    assert_eq!(text, r#"{"items":[]}"#);
    assert!(server.memory.secret("acme", "THEIRS").is_some());
}
