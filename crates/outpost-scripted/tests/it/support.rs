//! What these tests and those of the gateway share: a scripted provider and a client.

use std::net::SocketAddr;
use std::time::Duration;

use outpost_scripted::{Script, ScriptedHandle, ScriptedProvider};

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) async fn scripted(script: &str) -> ScriptedHandle {
    let script = Script::parse(script).unwrap();
    ScriptedProvider::new(script).start(loopback()).await.unwrap()
}

/// A plain client: no proxy, and rustls set up as the product does it.
pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}
