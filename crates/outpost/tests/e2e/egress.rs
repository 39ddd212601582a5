//! What a sandbox may reach beside its models, from inside a real one with a real client.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outpost_types::{Api as _, DispatchStatus, EventData, NetworkLevel, NetworkRequest};
use rustix::process::Signal;

use crate::harness::{Repo, Server, assert_status, request};

/// An agent without a model, and loopback as the operator's own network.
const CONFIG: &str = "[[agents]]\nname = \"script\"\ncommand = [\"/bin/bash\", \"agent.sh\"]\n\
                      stdin_prompt = true\n[network]\nprivate = [\"127.0.0.0/8\"]\n";

/// An agent that is told by what it reaches: nothing, then the host, over a restart too, then nothing again.
fn follower(port: u16) -> String {
    let get = |path: &str| format!("curl -sS -m 10 http://127.0.0.2:{port}/{path} 2>&1");
    let (before, after) = (get("before"), get("after"));
    format!(
        "until {before} | grep -q reached; do sleep 0.1; done; echo it opened\n\
         until {after} | grep -q reached; do sleep 0.1; done; echo it is open\n\
         curl -sSN -m 200 --proxytunnel http://127.0.0.2:{port}/hold; echo it was cut\n\
         while {before} | grep -q reached; do sleep 0.1; done; echo it closed\n"
    )
}

/// A web server on another address of loopback, so that no client goes past its proxy to it; its port.
fn web_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.2", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut head = [0; 4096];
            // One read has the head of a request this small.
            let Ok(count) = socket.read(&mut head) else { continue };
            let told = String::from_utf8_lossy(&head[..count]).to_lowercase().contains("otph_");
            let body = if told { "a handle leaked" } else { "reached the registry" };
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    port
}

/// Answers as [`web_server`] does, but `/after` only once it may, and `/hold` without an end.
fn following_server() -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind(("127.0.0.2", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let may = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&may);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut head = [0; 4096];
            let Ok(count) = socket.read(&mut head) else { continue };
            let asked = String::from_utf8_lossy(&head[..count]).into_owned();
            let answer: &[u8] = if asked.starts_with("GET /hold") {
                b"HTTP/1.1 200 OK\r\n\r\nit holds\n"
            } else if asked.starts_with("GET /after") && !told.load(Ordering::Relaxed) {
                b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nnot yet"
            } else {
                b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nreached"
            };
            let _ = socket.write_all(answer);
            if asked.starts_with("GET /hold") {
                held.push(socket);
            }
        }
    });
    (port, may)
}

fn says(event: &outpost_types::EventEnvelope, line: &str) -> bool {
    matches!(&event.data, EventData::Log { text, .. } if text == line)
}

fn denied(events: &[outpost_types::EventEnvelope]) -> Vec<(String, String, Option<String>)> {
    let of = |event: &outpost_types::EventEnvelope| match &event.data {
        EventData::PolicyDenied { target, reason, suggestion } => {
            Some((target.clone(), reason.clone(), suggestion.clone()))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_dispatch_names_is_reached() {
    let (server, port) = (Server::start_with(&[], CONFIG).await, web_server());
    let repo = Repo::with_script(&format!(
        "for host in 127.0.0.2 127.0.0.3; do curl -sS -m 10 http://$host:{port}/; echo; done\n\
         curl -sS -m 10 http://169.254.169.254/latest/meta-data/; echo\n\
         curl -sS -m 10 --proxytunnel http://127.0.0.1:22/ 2>&1; echo ended"
    ));
    let mut custom = request("script", "x", &repo);
    custom.network = Some(NetworkLevel::Custom);
    custom.allow_hosts = vec![format!("127.0.0.2:{port}")];
    let view = server.run(custom.clone()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let log = server.log(view.dispatch_id).await;
    assert!(log.contains("reached the registry") && log.contains("ended"), "{log}");
    let events = server.events(view.dispatch_id).await;
    let denied = denied(&events);
    let of = |target: &str| denied.iter().find(|(denied, ..)| denied == target).cloned();
    let neighbour = of(&format!("127.0.0.3:{port}")).unwrap();
    assert_eq!(neighbour.1, "not_allowed");
    assert_eq!(neighbour.2, Some(format!("127.0.0.3:{port}")), "what a person could allow");
    assert_eq!(
        of("169.254.169.254:80").map(|(_, reason, rule)| (reason, rule)),
        Some(("metadata".to_owned(), None))
    );

    // Without a network there is no proxy, and nothing else either.
    custom.network = None;
    custom.allow_hosts = Vec::new();
    let view = server.run(custom.clone()).await;
    let log = server.log(view.dispatch_id).await;
    assert!(!log.contains("reached") && log.contains("ended"), "{log}");

    custom.network = Some(NetworkLevel::Custom);
    custom.allow_hosts = vec!["http://example.com/".to_owned()];
    let error = server.api.create_dispatch(custom, None).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("allowHosts"), "{error:?}");
}

/// A dispatch that began with nothing is opened and closed while its agent runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_changed_while_the_agent_runs() {
    let (port, may_go_on) = following_server();
    let server = Server::start_with(&[], CONFIG).await;
    let repo = Repo::with_script(&follower(port));
    let created = server.api.create_dispatch(request("script", "x", &repo), None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    assert_eq!(created.dispatch.network, NetworkLevel::None);
    let host = format!("127.0.0.2:{port}");
    let refused =
        server.event(id, |event| matches!(event.data, EventData::PolicyDenied { .. })).await;
    let EventData::PolicyDenied { suggestion, .. } = refused.data else { unreachable!() };
    assert_eq!(suggestion.as_ref(), Some(&host));

    let allow_hosts = Some(vec![suggestion.unwrap()]);
    let open = NetworkRequest { network: Some(NetworkLevel::Custom), allow_hosts };
    let view = server.api.change_network(id, open).await.unwrap();
    assert_eq!(view.allow_hosts, [host]);
    server.event(id, |event| says(event, "it opened")).await;

    let server = server.replace(Signal::KILL).await;
    may_go_on.store(true, Ordering::Relaxed);
    server.event(id, |event| says(event, "it is open")).await;
    // It holds a connection when the host is taken away.
    server.event(id, |event| says(event, "it holds")).await;
    let close = NetworkRequest { network: Some(NetworkLevel::None), allow_hosts: None };
    server.api.change_network(id, close).await.unwrap();
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    assert_eq!((view.network, view.allow_hosts.len()), (NetworkLevel::None, 0));
    let log = server.log(id).await;
    assert!(log.contains("it was cut") && log.contains("it closed"), "{log}");
    let events = server.events(id).await;
    let changes = events.iter().filter(|event| matches!(event.data, EventData::Network { .. }));
    assert_eq!(changes.count(), 2);
}

/// The operator's word stands above a dispatch's.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_can_only_be_tightened() {
    let port = web_server();
    let config = format!("{CONFIG}deny = [\"127.0.0.2:{port}\"]\n");
    let server = Server::start_with(&[], &config).await;
    let repo = Repo::with_script(&format!("curl -sS -m 10 http://127.0.0.2:{port}/; echo ended"));
    let mut custom = request("script", "x", &repo);
    custom.network = Some(NetworkLevel::Custom);
    custom.allow_hosts = vec![format!("127.0.0.2:{port}")];
    let view = server.run(custom).await;
    let log = server.log(view.dispatch_id).await;
    assert!(!log.contains("reached") && log.contains("ended"), "{log}");
    let denied = denied(&server.events(view.dispatch_id).await);
    assert!(
        denied.iter().any(|(_, reason, rule)| reason == "operator_denied" && rule.is_none()),
        "{denied:?}"
    );
}
