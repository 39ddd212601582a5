//! Launchers and clients of different versions. The other side is spoken by hand, as it is on the socket.

use std::os::fd::OwnedFd;
use std::path::Path;

use outpost_sandbox::{Sandbox as _, SandboxError, SandboxSpec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use serde_json::{Value, json};

use crate::{Bed, eventually};

/// Longest message spoken here, bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

fn socket() -> OwnedFd {
    rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap()
}

fn say(socket: &OwnedFd, message: &Value) {
    rustix::io::write(socket, format!("i{message}").as_bytes()).unwrap();
}

/// The next message; `None` at the end of the connection.
fn hear(socket: &OwnedFd) -> Option<Value> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let count = rustix::io::read(socket, &mut bytes).unwrap();
    (count > 0).then(|| serde_json::from_slice(&bytes[1..count]).unwrap())
}

/// A client by hand.
fn connect(path: &Path) -> impl FnMut(Value) -> Value + use<> {
    let socket = socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    let mut seq = 0;
    move |ask| {
        seq += 1;
        say(&socket, &json!({"seq": seq, "ask": ask}));
        let said = hear(&socket).unwrap()["answer"].take();
        assert_eq!(said["seq"], seq);
        said["answer"].clone()
    }
}

/// A launcher by hand, for one client: answers its first request with `answer`, others with an empty inventory.
fn launcher(path: &Path, answer: Value) -> tokio::task::JoinHandle<Value> {
    let listener = socket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    tokio::task::spawn_blocking(move || {
        let client = rustix::net::accept(&listener).unwrap();
        let hello = hear(&client).unwrap();
        say(&client, &json!({"answer": {"seq": hello["seq"], "answer": answer}}));
        while let Some(request) = hear(&client) {
            let answer = json!({"Ok": {"inventory": {"ids": []}}});
            say(&client, &json!({"answer": {"seq": request["seq"], "answer": answer}}));
        }
        hello["ask"].clone()
    })
}

fn greeting(version: u32) -> Value {
    let isolation = json!({"level": "limits", "enforced": [], "missing": []});
    let host = json!({"launcher_pid": 4711, "rootless": false, "isolation": isolation,
        "payload_owner": {"uid": 1, "gid": 1}});
    json!({"Ok": {"hello": {"version": version, "host": host}}})
}

#[tokio::test]
async fn a_launcher_speaks_the_older_version_with_any_client_that_is_not_too_old() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let launcher = sandbox.host().await.unwrap().launcher_pid;
    let fds = || std::fs::read_dir(format!("/proc/{launcher}/fd")).unwrap().count();
    let connected = fds();
    sandbox.disconnect().await;
    for (theirs, agreed) in [(1, 1), (2, 2), (u32::MAX, 2)] {
        eventually("the last client's leave", || fds() == connected - 1).await;
        let mut ask = connect(&bed.socket());
        let answer = ask(json!({"hello": {"version": theirs}}));
        assert_eq!(answer["Ok"]["hello"]["version"], agreed, "{answer}");
        assert_eq!(ask(json!("inventory")), json!({"Ok": {"inventory": {"ids": []}}}));
    }
    eventually("the last client's leave", || fds() == connected - 1).await;
    let mut ask = connect(&bed.socket());
    let refusal = ask(json!({"hello": {"version": 0}}));
    let message = refusal["Err"]["protocol"]["message"].as_str().unwrap();
    assert_eq!(message, "it speaks versions 1 to 2, this program version 0");
    assert!(ask(json!("inventory"))["Err"]["protocol"].is_object(), "not greeted is not served");
    drop(ask);
    sandbox.shut_down().await.unwrap();
}

#[tokio::test]
async fn a_client_takes_a_launcher_whose_version_it_speaks() {
    let bed = Bed::new();
    let launcher = launcher(&bed.socket(), greeting(1));
    let sandbox = bed.sandbox();
    assert_eq!(sandbox.host().await.unwrap().launcher_pid, 4711);
    assert!(sandbox.reattach().await.unwrap().is_empty());
    drop(sandbox);
    assert_eq!(launcher.await.unwrap(), json!({"hello": {"version": 2}}));
}

#[tokio::test]
async fn a_client_refuses_any_other_launcher_and_says_what_to_do() {
    let refusal = "it speaks versions 3 to 4, this program version 2";
    let cases = [
        (greeting(0), "it speaks version 0, this program versions 1 to 2"),
        (greeting(3), "it speaks version 3, this program versions 1 to 2"),
        (json!({"Err": {"protocol": {"message": refusal}}}), refusal),
        (json!({"Ok": {"greeting": {"version": 9}}}), "does not understand its answer"),
    ];
    for (answer, what) in cases {
        let bed = Bed::new();
        let launcher = launcher(&bed.socket(), answer);
        let error = bed.sandbox().host().await.unwrap_err();
        launcher.await.unwrap();
        let SandboxError::Version { launcher_pid, .. } = error else { panic!("{error}") };
        assert_eq!(launcher_pid, std::process::id(), "whoever listens is the launcher");
        let text = error.to_string();
        let kill = format!("`kill {launcher_pid}`");
        for part in [what, "start that version again", "`outpost ls`", kill.as_str()] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

/// It would pass over an overlay, which is a field to it, and would not understand a claim.
#[tokio::test]
async fn an_older_launcher_is_not_asked_for_what_it_does_not_know() {
    let bed = Bed::new();
    let launcher = launcher(&bed.socket(), greeting(1));
    let sandbox = bed.sandbox();
    assert!(!sandbox.host().await.unwrap().overlay);
    let spec = SandboxSpec::new("a").overlay("/u", None, vec!["/l".into()], "/w");
    let error = sandbox.create(spec).await.unwrap_err();
    let SandboxError::Version { launcher_pid: 4711, message } = &error else { panic!("{error}") };
    assert_eq!(message, "it speaks version 1, an overlay needs version 2");
    drop(sandbox);
    launcher.await.unwrap();
}
