//! A server that is upgraded past its launcher: while that would cost agents it does not start, and they go on.

use std::path::Path;

use outpost_types::{Api as _, CancelRequest, DispatchStatus, EventData};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, accept, bind, listen, socket};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Repo, Server, assert_status, request};

const PATIENT: &str = r#"
[[agents]]
name = "patient"
command = ["/bin/sh", "-c", "echo waiting; while :; do sleep 0.2; done"]
stdin_prompt = true
"#;
/// Longest message spoken here, bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Listens in place of a launcher and answers every greeting so. It goes with the test.
fn pose_as_launcher(path: &Path, answer: Value) {
    let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&listener, 16).unwrap();
    std::thread::spawn(move || {
        while let Ok(client) = accept(&listener) {
            let mut bytes = [0; MESSAGE_BYTES_MAX];
            let count = rustix::io::read(&client, &mut bytes).unwrap();
            let hello: Value = serde_json::from_slice(&bytes[1..count]).unwrap();
            let said = json!({"answer": {"seq": hello["seq"], "answer": answer}});
            rustix::io::write(&client, format!("i{said}").as_bytes()).unwrap();
        }
    });
}

fn greeting(version: u32) -> Value {
    let isolation = json!({"level": "limits", "enforced": [], "missing": []});
    let host = json!({"launcher_pid": 4711, "rootless": false, "isolation": isolation,
        "payload_owner": {"uid": 1, "gid": 1}});
    json!({"Ok": {"hello": {"version": version, "host": host}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_of_another_version_costs_no_agent() {
    let (mut server, repo) = (Server::start_with(&[], PATIENT).await, Repo::new());
    let created = server.api.create_dispatch(request("patient", "x", &repo), None).await.unwrap();
    let id = created.dispatch.dispatch_id;
    server.event(id, |event| matches!(event.data, EventData::Log { .. })).await;

    let real = server.data().join("launcher/socket");
    let aside = server.data().join("launcher/aside");
    std::fs::rename(&real, &aside).unwrap();
    let too_new = "it speaks versions 3 to 4, this program versions 1 to 2";
    for (answer, what) in [
        (greeting(0), "it speaks version 0, this program versions 1 to 2"),
        (greeting(3), "it speaks version 3, this program versions 1 to 2"),
        (json!({"Err": {"protocol": {"message": too_new}}}), too_new),
    ] {
        pose_as_launcher(&real, answer);
        let said = server.refused_next(Signal::TERM).await;
        for part in [what, "the server cannot start", "start that version again", "`kill "] {
            assert!(said.contains(part), "{part}: {said}");
        }
        std::fs::remove_file(&real).unwrap();
    }

    std::fs::rename(&aside, &real).unwrap();
    let server = server.replace(Signal::TERM).await;
    let view = server.until(id, |view| view.status == DispatchStatus::Running).await;
    assert_eq!(view.attempt, 1);
    server.api.cancel_dispatch(id, CancelRequest::default()).await.unwrap();
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Cancelled).await;
    server.assert_nothing_left();
}
