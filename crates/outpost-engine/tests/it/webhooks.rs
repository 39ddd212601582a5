//! Webhooks over a real receiver on loopback: it verifies signatures, fails, hangs up, redirects and never answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outpost_store::{AuditRange, Audits as _, Store as _};
use outpost_types::{
    ApiError, Caller, CreateWebhook, CreatedWebhook, DeliveryState, DeliveryView, DispatchStatus,
    ErrorCode, KeyId, Scope, Timestamp, WebhookApi as _, WebhookId, WebhookKind,
};
use ring::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Scene, first};

/// Longest wait for anything, seconds: it bounds a hang.
const PATIENCE_SECONDS: u64 = 30;

/// What a receiver does with a delivery.
#[derive(Debug, Clone)]
enum Answer {
    Status(u16),
    /// To this address.
    Redirect(String),
    HangUp,
    /// Nothing, and the connection stays.
    Silence,
}

/// One delivery as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    head: String,
    pub(crate) body: String,
}

impl Arrived {
    fn header(&self, name: &str) -> String {
        let prefix = format!("{name}: ");
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(&prefix));
        line.unwrap()[prefix.len()..].to_owned()
    }

    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signed =
            [self.header("webhook-id"), self.header("webhook-timestamp"), self.body.clone()];
        let wanted = hmac::sign(&key, signed.join(".").as_bytes());
        self.header("webhook-signature") == format!("v1,{}", STANDARD.encode(wanted))
    }
}

/// Takes deliveries and answers as it is told to, 204 when it was told nothing.
pub(crate) struct Receiver {
    pub(crate) url: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (arrived, answers) = (Arc::default(), Arc::default());
        let this = Self { url, arrived: Arc::clone(&arrived), answers: Arc::clone(&answers) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (arrived, answers) = (Arc::clone(&arrived), Arc::clone(&answers));
                tokio::spawn(async move { serve(stream, &arrived, &answers).await });
            }
        });
        this
    }

    fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    /// Waits until so many deliveries arrived.
    pub(crate) async fn until_arrived(&self, count: usize) {
        let waiting = async {
            while self.arrived().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(PATIENCE_SECONDS), waiting).await.unwrap();
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    arrived: &Mutex<Vec<Arrived>>,
    answers: &Mutex<VecDeque<Answer>>,
) {
    while let Some(delivery) = read(&mut stream).await {
        arrived.lock().unwrap().push(delivery);
        let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(204));
        let text = match answer {
            Answer::Status(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"),
            Answer::Redirect(to) => {
                format!("HTTP/1.1 307 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::HangUp => return,
            Answer::Silence => std::future::pending().await,
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Arrived> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let arrived = Arrived { head, body: String::new() };
            let length: usize = arrived.header("content-length").parse().unwrap();
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..end + 4 + length].to_vec();
                return Some(Arrived { body: String::from_utf8(body).unwrap(), ..arrived });
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}

async fn add(scene: &Scene, url: &str) -> Result<CreatedWebhook, ApiError> {
    scene.api.create_webhook(CreateWebhook { url: url.to_owned(), events: None }).await
}

async fn newest(scene: &Scene, id: WebhookId) -> Option<DeliveryView> {
    scene.api.deliveries(id, None, 20).await.unwrap().items.into_iter().next()
}

/// Waits until the newest delivery is as wanted.
async fn until(
    scene: &Scene,
    id: WebhookId,
    wanted: impl Fn(&DeliveryView) -> bool,
) -> DeliveryView {
    let waiting = async {
        loop {
            if let Some(delivery) = newest(scene, id).await.filter(&wanted) {
                return delivery;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(PATIENCE_SECONDS), waiting).await.unwrap()
}

/// Goes to when the newest delivery is due, and wakes whoever delivers.
async fn when_due(scene: &Scene, id: WebhookId) {
    if let Some(due) = newest(scene, id).await.and_then(|delivery| delivery.due_at) {
        scene.clock.set(due);
    }
    // Another event for nobody wakes it.
    scene.engine.wake_deliveries();
}

#[tokio::test]
async fn what_ends_is_delivered_signed_and_names_its_cost() {
    let scene = Scene::new(1).await;
    let receiver = Receiver::start().await;
    let created = add(&scene, &receiver.url).await.unwrap();
    let id = scene.dispatch().await.dispatch_id;
    scene.puppet.release(first(id));
    scene.until(id, DispatchStatus::Completed).await;
    until(&scene, created.webhook.id, |delivery| delivery.state == DeliveryState::Delivered).await;
    receiver.until_arrived(2).await;
    let mut kinds = Vec::new();
    for arrived in receiver.arrived() {
        assert!(arrived.is_signed_with(&created.secret), "{arrived:?}");
        assert!(!arrived.is_signed_with("whsec_AAAA"));
        assert_eq!(arrived.header("content-type"), "application/json");
        let body: serde_json::Value = serde_json::from_str(&arrived.body).unwrap();
        assert_eq!(body["data"]["dispatchId"], id.to_string());
        assert_eq!(body["data"]["tenantId"], "local");
        kinds.push(body["type"].as_str().unwrap().to_owned());
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["cost.recorded", "dispatch.ended"]);
    let rows = scene.store.inner.audit(AuditRange { after: 0, limit: 99 }).await.unwrap();
    let trail = format!("{rows:?}");
    assert!(trail.contains("webhook.created"));
    let secret = created.secret.strip_prefix("whsec_").unwrap();
    assert!(!trail.contains(secret) && !format!("{created:?}").contains(secret));
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_eight_times_and_replayed() {
    let scene = Scene::new(1).await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let id = add(&scene, &receiver.url).await.unwrap().webhook.id;
    receiver.then([
        Answer::Status(500),
        Answer::HangUp,
        Answer::Redirect(elsewhere.url.clone()),
        Answer::Status(404),
    ]);
    receiver.then(vec![Answer::Status(503); 4]);
    let queued = scene.api.test_webhook(id).await.unwrap();
    for tries in 1..8 {
        let failed = until(&scene, id, |delivery| delivery.tries == tries).await;
        assert_eq!(failed.state, DeliveryState::Waiting);
        assert!(failed.problem.is_some() && failed.due_at.unwrap() > scene.engine.now());
        when_due(&scene, id).await;
    }
    let dead = until(&scene, id, |delivery| delivery.state == DeliveryState::Dead).await;
    assert_eq!((dead.tries, dead.status_code, dead.id), (8, Some(503), queued.id));
    assert_eq!(elsewhere.arrived().len(), 0, "a redirect was followed");
    let ids: Vec<_> = receiver.arrived().iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids, vec![queued.event_id.clone(); 8], "each try has the same id");

    scene.api.replay_delivery(id, dead.id).await.unwrap();
    let good = until(&scene, id, |delivery| delivery.state == DeliveryState::Delivered).await;
    assert_eq!((good.tries, good.status_code, good.problem), (1, Some(204), None));
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_not_asked_again() {
    let scene = Scene::new(1).await;
    let receiver = Receiver::start().await;
    let id = add(&scene, &receiver.url).await.unwrap().webhook.id;
    receiver.then([Answer::Status(410)]);
    scene.api.test_webhook(id).await.unwrap();
    let dead = until(&scene, id, |delivery| delivery.state == DeliveryState::Dead).await;
    assert_eq!((dead.tries, dead.kind), (1, WebhookKind::Test));
}

/// Receivers that take deliveries and never answer hold up nobody else: neither many that wait for one of them, nor
/// many of them.
#[tokio::test]
async fn a_receiver_that_is_silent_holds_up_nobody_else() {
    let scene = Scene::new(1).await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        let receiver = Receiver::start().await;
        receiver.then(vec![Answer::Silence; 99]);
        silent.push((add(&scene, &receiver.url).await.unwrap().webhook.id, receiver));
    }
    // Each tells all of them of its end and of its cost.
    run(&scene).await;
    run(&scene).await;
    for (_, receiver) in &silent {
        receiver.until_arrived(2).await;
    }
    let good = Receiver::start().await;
    let id = add(&scene, &good.url).await.unwrap().webhook.id;
    for runs in 1..=3 {
        run(&scene).await;
        good.until_arrived(2 * runs).await;
        until(&scene, id, |delivery| delivery.state == DeliveryState::Delivered).await;
    }
    for (id, receiver) in &silent {
        let tries = scene.api.deliveries(*id, None, 20).await.unwrap().items;
        let untried = tries.iter().filter(|delivery| delivery.tries == 0).count();
        assert_eq!(
            (tries.len(), untried),
            (10, 10),
            "none of these ended before those of the other"
        );
        assert_eq!(receiver.arrived().len(), 2);
    }
}

/// A dispatch from its beginning to its end.
async fn run(scene: &Scene) {
    let id = scene.dispatch().await.dispatch_id;
    scene.puppet.release(first(id));
    scene.until(id, DispatchStatus::Completed).await;
}

#[tokio::test]
async fn what_was_not_delivered_is_delivered_by_the_next_server() {
    let scene = Scene::new(1).await;
    let receiver = Receiver::start().await;
    let created = add(&scene, &receiver.url).await.unwrap();
    let id = created.webhook.id;
    receiver.then([Answer::Status(500)]);
    scene.api.test_webhook(id).await.unwrap();
    let failed = until(&scene, id, |delivery| delivery.tries == 1).await;
    let scene = scene.next().await;
    scene.clock.set(failed.due_at.unwrap());
    scene.engine.wake_deliveries();
    until(&scene, id, |delivery| delivery.state == DeliveryState::Delivered).await;
    assert!(receiver.arrived().iter().all(|one| one.is_signed_with(&created.secret)));
}

#[tokio::test]
async fn addresses_events_and_strangers_are_refused() {
    let scene = Scene::new(1).await;
    for url in ["https://10.0.0.1/", "http://169.254.169.254/", "ftp://example.com", "x", ""] {
        let refused = add(&scene, url).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.field.as_deref()),
            (ErrorCode::InvalidField, Some("url"))
        );
    }
    for events in [vec![], vec![WebhookKind::Test]] {
        let request = CreateWebhook { url: "https://example.com".into(), events: Some(events) };
        let refused = scene.api.create_webhook(request).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("events"));
    }
    let id = add(&scene, "https://example.com").await.unwrap().webhook.id;
    let stranger = Caller {
        tenant: "acme".parse().unwrap(),
        key: KeyId::from_parts(1, 2),
        scopes: [Scope::Admin].into(),
    };
    let stranger = scene.engine.api(Arc::new(stranger));
    assert!(stranger.list_webhooks().await.unwrap().is_empty());
    for refused in [
        stranger.delete_webhook(id).await.map(drop),
        stranger.test_webhook(id).await.map(drop),
        stranger.deliveries(id, None, 9).await.map(drop),
        stranger.replay_delivery(id, 1).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code, ErrorCode::NotFound);
    }
    assert_eq!(scene.api.delete_webhook(id).await.unwrap().id, id);
    assert!(scene.api.list_webhooks().await.unwrap().is_empty());
    assert_eq!(scene.engine.now(), Timestamp::from_millis(1_000_000));
    assert_eq!(scene.store.metrics().queue_depth, 0);
}
