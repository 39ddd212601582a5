//! A webhook from its making to what arrives: the real binary, a real dispatch, a receiver that checks signatures.

use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outpost_types::DispatchStatus;
use ring::hmac;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::failures::CUSTOM;
use crate::harness::{Repo, Server, assert_status, request, within};

/// How often the receiver answers 500 before it takes a delivery.
const FAILURES: usize = 2;

/// One delivery: its head and its body.
type Delivery = (String, String);

/// Fails [`FAILURES`] times, then takes everything.
struct Receiver {
    url: String,
    arrived: watch::Receiver<Vec<Delivery>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (send, arrived) = watch::channel(Vec::new());
        let send = Arc::new(Mutex::new(send));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&send)));
            }
        });
        Self { url, arrived }
    }

    /// Waits for the delivery with this number, from 1.
    async fn until_arrived(&self, number: usize) -> Delivery {
        let mut arrived = self.arrived.clone();
        let all = within(arrived.wait_for(|all| all.len() >= number)).await.unwrap();
        all[number - 1].clone()
    }
}

async fn serve(mut stream: TcpStream, send: Arc<Mutex<watch::Sender<Vec<Delivery>>>>) {
    while let Some(delivery) = read(&mut stream).await {
        let count = {
            let send = send.lock().unwrap();
            send.send_modify(|all| all.push(delivery));
            send.borrow().len()
        };
        let status = if count <= FAILURES { "500 No" } else { "204 Yes" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Delivery> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = header(head, "content-length").parse().unwrap();
            if body.len() >= length {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}

fn header(head: &str, name: &str) -> String {
    let prefix = format!("{name}: ");
    let line = head.lines().find(|line| line.to_lowercase().starts_with(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))[prefix.len()..].to_owned()
}

fn is_signed((head, body): &Delivery, secret: &str) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signed = [header(head, "webhook-id"), header(head, "webhook-timestamp"), body.clone()];
    let tag = hmac::sign(&key, signed.join(".").as_bytes());
    header(head, "webhook-signature") == format!("v1,{}", STANDARD.encode(tag))
}

/// `outpost --json webhooks …`, and what it prints.
async fn webhooks(server: &Server, args: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outpost"));
    command
        .args(["--json", "webhooks"])
        .args(args)
        .env("OUTPOST_URL", server.api_url())
        .env("OUTPOST_API_KEY", &server.key);
    let output = within(tokio::task::spawn_blocking(move || command.output())).await;
    let output = output.unwrap().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the only delivery was answered so.
async fn until_answered(server: &Server, webhook: &str, status: u16, state: &str) -> Value {
    let waiting = async {
        loop {
            let list = webhooks(server, &["deliveries", webhook]).await;
            let newest = list["items"][0].clone();
            if newest["statusCode"] == status && newest["state"] == state {
                return newest;
            }
        }
    };
    within(waiting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_failed_twice_gets_a_signed_delivery_of_a_real_dispatch() {
    let config = format!("[webhooks]\nprivate = [\"127.0.0.0/8\"]\n{CUSTOM}");
    let (server, repo) = (Server::start_with(&[], &config).await, Repo::new());
    let receiver = Receiver::start().await;
    let made = webhooks(&server, &["add", &receiver.url, "--event", "dispatch.ended"]).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let id = made["webhook"]["id"].as_str().unwrap().to_owned();
    let view = server.run(request("shell", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;

    let first = receiver.until_arrived(1).await;
    let failed = until_answered(&server, &id, 500, "waiting").await;
    assert!(failed["dueAt"].is_string() && failed["tries"] == 1, "{failed}");
    // Nobody waits for the next try by timer here: a replay is a try at once.
    let number = failed["id"].to_string();
    webhooks(&server, &["replay", &id, &number]).await;
    let second = receiver.until_arrived(2).await;
    until_answered(&server, &id, 500, "waiting").await;
    webhooks(&server, &["replay", &id, &number]).await;
    let third = receiver.until_arrived(3).await;
    let done = until_answered(&server, &id, 204, "delivered").await;
    assert_eq!(done["type"], "dispatch.ended");
    for delivery in [&first, &second, &third] {
        assert!(is_signed(delivery, &secret), "{delivery:?}");
        assert!(!is_signed(delivery, "whsec_AAAA"));
        assert_eq!(header(&delivery.0, "webhook-id"), header(&first.0, "webhook-id"));
        let body: Value = serde_json::from_str(&delivery.1).unwrap();
        assert_eq!(body["data"]["dispatchId"], view.dispatch_id.to_string());
        assert_eq!(body["data"]["status"], "COMPLETED");
    }
}
