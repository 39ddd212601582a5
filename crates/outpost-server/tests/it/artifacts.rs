//! Kept files and their signed addresses.

use std::time::{SystemTime, UNIX_EPOCH};

use outpost_types::TenantId;
use reqwest::Method;
use serde_json::Value;

use crate::harness::{Server, problem, signing_key};

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_signed_address_works_without_a_key_and_only_as_it_is() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    server.memory.keep(id, "a/b é&?#.txt", b"kept");
    server.memory.keep(id, "other.txt", b"secret");
    let list: Value =
        server.get(&format!("/artifacts/{id}?expiresIn=60")).await.json().await.unwrap();
    let item = &list["items"][0];
    assert_eq!(item["name"], "a/b é&?#.txt");
    let url = item["url"].as_str().unwrap();
    let bare = |path: String| server.bare(Method::GET, &path).send();
    let response = bare(url.to_owned()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "kept");

    let foreign = server.memory.add("acme");
    server.memory.keep(foreign, "other.txt", b"secret");
    let sig = url.rsplit_once("sig=").unwrap().1;
    let flipped = if sig.starts_with('A') { "B" } else { "A" };
    for bad in [
        url.replace("a/b%20%C3%A9%26%3F%23.txt", "other.txt"),
        url.replace(&id.to_string(), &foreign.to_string()),
        url.replace("tenant=local", "tenant=acme"),
        url.replace("expires=", "expires=9"),
        url.replace(sig, &format!("{flipped}{}", &sig[1..])),
        url.replace(sig, "AAAA"),
        url.replace("tenant=local&", ""),
        url.replace("tenant=local", "tenant=%2e%2e"),
        url.split("expires=").next().unwrap().to_owned() + "sig=" + sig,
    ] {
        let document = problem(bare(bad.clone()).await.unwrap(), 403, "forbidden").await;
        assert!(document["hint"].as_str().unwrap().contains("GET /artifacts"), "{bad}");
    }
    for (bad, field) in [
        (format!("{url}&x=1"), "x"),
        (url.replace("expires=", "expires=-"), "expires"),
        (url.replace("sig=", "sig=&sig="), "sig"),
    ] {
        let document = problem(bare(bad).await.unwrap(), 400, "invalid_field").await;
        assert_eq!(document["field"], field);
    }
}

#[tokio::test]
async fn a_signed_address_ends() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    server.memory.keep(id, "x.txt", b"kept");
    let tenant = TenantId::local();
    for (expires, status) in [(now_seconds() - 1, 403), (now_seconds() + 600, 200), (0, 403)] {
        let sig = signing_key().sign(&tenant, id, "x.txt", expires);
        let path = format!("/artifacts/{id}/x.txt?tenant=local&expires={expires}&sig={sig}");
        let response = server.bare(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), status, "{expires}");
    }
    let list: Value = server.get(&format!("/artifacts/{id}")).await.json().await.unwrap();
    let end: outpost_types::Timestamp =
        list["items"][0]["expiresAt"].as_str().unwrap().parse().unwrap();
    let life = end.as_millis() / 1000 - now_seconds();
    assert!((3_590..=3_600).contains(&life), "{life}");
}

#[tokio::test]
async fn what_an_agent_made_never_runs_on_our_origin() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    let page = b"<script>alert(1)</script>";
    for name in ["x.html", "x.svg", "x.js", "x", "x.pdf"] {
        server.memory.keep(id, name, page);
        let response = server.get(&format!("/artifacts/{id}/{name}")).await;
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/octet-stream");
        assert!(header("content-disposition").starts_with("attachment; filename=\"x"));
        assert!(header("content-security-policy").contains("sandbox"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(response.bytes().await.unwrap(), &page[..]);
    }
    server.memory.print(id, page);
    server.memory.keep(id, "diff.patch", page);
    for part in ["logs", "diff"] {
        let response = server.get(&format!("/dispatch/{id}/{part}")).await;
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(
            response.headers()["content-security-policy"].to_str().unwrap().contains("sandbox")
        );
        assert_eq!(response.bytes().await.unwrap(), &page[..]);
    }
}

#[tokio::test]
async fn previews_are_there_when_they_are_asked_for_and_never_a_page() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    server.memory.keep(id, "x.html", b"kept");
    for (query, shown) in [("", false), ("?preview=false", false), ("?preview=true", true)] {
        let response = server.get(&format!("/artifacts/{id}{query}")).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let list: Value = response.json().await.unwrap();
        let preview = &list["items"][0]["preview"];
        assert_eq!(preview["text"].as_str().is_some_and(|text| text.contains("<script>")), shown);
        assert_eq!(preview["kind"].as_str(), shown.then_some("text"), "{query}");
    }
    let wrong = server.get(&format!("/artifacts/{id}?preview=maybe")).await;
    assert_eq!(problem(wrong, 400, "invalid_field").await["field"], "preview");
}

#[tokio::test]
async fn names_that_leave_the_directory_do_not_exist() {
    let server = Server::start().await;
    let id = server.memory.add("local");
    server.memory.keep(id, "x.txt", b"kept");
    for name in
        ["%2e%2e/x.txt", "..%2fx.txt", "a%5cx", "%2Fx.txt", "x.txt%00", "x%0a", "a//b", "none"]
    {
        let response = server.get(&format!("/artifacts/{id}/{name}")).await;
        problem(response, 404, "not_found").await;
    }
}
