//! Promoting over HTTP: status codes, headers, waiting, and whose dispatches.

use outpost_types::{PromotionStatus, PromotionView};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Server, problem};
use crate::memory_promote::PROMOTED;

#[tokio::test]
async fn a_promotion_is_begun_once_and_can_be_waited_for() {
    let server = Server::start().await;
    let post = |path: &str| server.request(Method::POST, path);
    let body = json!({"dispatchId": PROMOTED, "branch": "b", "draft": false});
    let begun = post("/promote").json(&body).send().await.unwrap();
    assert_eq!(begun.status(), 201);
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.ends_with(&format!("/promote/{PROMOTED}")), "{location}");
    let begun: PromotionView = begun.json().await.unwrap();
    assert_eq!((begun.branch.as_str(), begun.status), ("b", PromotionStatus::Requested));
    let again = json!({"dispatchId": PROMOTED, "title": "again"});
    let again = post("/promote?wait=5").json(&again).send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<PromotionView>().await.unwrap().status, PromotionStatus::Done);
    for (path, status) in [
        (format!("/promote/{PROMOTED}"), PromotionStatus::Requested),
        (format!("/promote/{PROMOTED}?wait=1"), PromotionStatus::Done),
    ] {
        let view = server.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(view.json::<PromotionView>().await.unwrap().status, status);
    }
}

#[tokio::test]
async fn only_ones_own_dispatches_can_be_promoted() {
    let server = Server::start().await;
    let foreign = server.memory.add("acme").to_string();
    for id in [foreign.as_str(), "01J9Z3NDEKTSV4RRFFQ69G5FAV"] {
        let post = server.request(Method::POST, "/promote").json(&json!({"dispatchId": id}));
        problem(post.send().await.unwrap(), 404, "not_found").await;
    }
    let post = server.request(Method::POST, "/promote").json(&json!({"dispatchId": "nonsense"}));
    let document = problem(post.send().await.unwrap(), 400, "invalid_field").await;
    assert_eq!(document["field"], "dispatchId");
    let often = json!({"dispatchId": PROMOTED, "feedback": {"rounds": 6}});
    let post = server.request(Method::POST, "/promote").json(&often);
    let document = problem(post.send().await.unwrap(), 400, "invalid_field").await;
    assert_eq!(document["field"], "feedback.rounds");
}
