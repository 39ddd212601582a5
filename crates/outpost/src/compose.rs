//! Composition root: from a configuration to a running server. The only place that knows which store,
//! fleet and sandbox are used; everything else of this program talks to `dyn Api`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use outpost_types::Api;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::activity::Activity;
use crate::engine::{Agents, Assembly, assemble};
use outpost_config::Config;
use outpost_config::Secret;

/// A server in this process.
pub(crate) struct Running {
    /// Where it listens, without a slash at the end.
    pub(crate) url: String,
    /// Its admin key.
    pub(crate) key: Secret,
    /// Its operations as the admin, without HTTP.
    pub(crate) api: Arc<dyn Api>,
    /// When it was last asked for something.
    pub(crate) activity: Activity,
    stop: oneshot::Sender<()>,
    server: JoinHandle<outpost_server::ServeEnd>,
    assembly: Assembly,
}

/// Starts a server. When this returns it accepts requests.
pub(crate) async fn start(config: &Config) -> anyhow::Result<Running> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("{} cannot be listened on; choose another with --listen", config.listen)
    })?;
    let bound = listener.local_addr()?;
    let assembly = assemble(config).await?;
    let mut server_config = outpost_server::ServerConfig::new(bound, assembly.signing_key.clone());
    server_config.public_url.clone_from(&config.public_url);
    server_config.allowed_hosts.clone_from(&config.allowed_hosts);
    server_config.rate_limit_per_minute = config.rate_limit_per_minute;
    let activity = Activity::new();
    let router = outpost_server::router(server_config, Arc::clone(&assembly.backend));
    let router = activity.watch(router);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(outpost_server::serve(listener, router, async move {
        // A dropped sender stops it too.
        let _ = stopped.await;
    }));
    Ok(Running {
        url: url(bound),
        key: assembly.key.clone(),
        api: Arc::clone(&assembly.api),
        activity,
        stop,
        server,
        assembly,
    })
}

impl Running {
    /// Stops accepting, then ends the engine.
    pub(crate) async fn shutdown(self, agents: Agents) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        let end = self.server.await.context("the HTTP server failed")?;
        if end.connections_cut > 0 {
            tracing::warn!(count = end.connections_cut, "connections were cut");
        }
        self.assembly.close(agents).await
    }
}

/// Address that a client on this host can use.
fn url(bound: SocketAddr) -> String {
    if !bound.ip().is_unspecified() {
        return format!("http://{bound}");
    }
    let loopback = if bound.is_ipv4() { "127.0.0.1" } else { "[::1]" };
    format!("http://{loopback}:{}", bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_can_be_used_by_a_client() {
        for (bound, expected) in [
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("[::1]:80", "http://[::1]:80"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
        ] {
            assert_eq!(url(bound.parse().unwrap()), expected);
        }
    }
}
