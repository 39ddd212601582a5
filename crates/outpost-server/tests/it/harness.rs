//! A server on a loopback port, and a client for it.

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use outpost_server::{ServeEnd, ServerConfig, SigningKey, router, serve};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::memory::{Handle, Memory};

/// Longest wait for anything in a test. Reaching it is a failure, never a pace.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) memory: Arc<Memory>,
    pub(crate) address: SocketAddr,
    pub(crate) http: Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<ServeEnd>,
}

/// A key that signs, known to the tests.
pub(crate) fn signing_key() -> SigningKey {
    SigningKey::new([9; 32])
}

pub(crate) fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another test binary in this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().no_proxy().timeout(DEADLINE).build().unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    pub(crate) async fn configured(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = ServerConfig::new(address, signing_key());
        change(&mut config);
        let memory = Memory::new();
        let router = router(config, Arc::new(Handle(Arc::clone(&memory))));
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serve(listener, router, async {
            let _ = stopped.await;
        }));
        Self { memory, address, http: client(), stop, running }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request without a key.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// A request with the admin key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("X-API-Key", "admin")
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn create(&self, body: &Value) -> Response {
        self.request(Method::POST, "/dispatch").json(body).send().await.unwrap()
    }

    /// Asks the server to stop and waits for it.
    pub(crate) async fn stop(self) -> ServeEnd {
        let _ = self.stop.send(());
        tokio::time::timeout(DEADLINE, self.running).await.unwrap().unwrap()
    }
}

/// Checks that an answer is a whole problem document and returns it.
pub(crate) async fn problem(response: Response, status: u16, code: &str) -> Value {
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (kind, id) = (header("content-type"), header("x-request-id"));
    let at = response.url().clone();
    assert_eq!(response.status(), status, "{at}");
    assert_eq!(kind, "application/problem+json", "{at}");
    let json: Value = response.json().await.unwrap();
    assert_eq!(json["code"], code, "{at}: {json}");
    assert_eq!(json["status"], status, "{at}");
    assert_eq!(json["type"], format!("urn:outpost:error:{code}"), "{at}");
    assert_eq!(json["requestId"], id, "{at}");
    assert!(!id.is_empty() && json["detail"].as_str().unwrap().ends_with('.'), "{at}: {json}");
    json
}
