//! Runs a router on a listener until told to stop.
//!
//! Stopping: no new connections, idle ones close, running requests finish, event streams end cleanly,
//! followed logs break off (so that readers resume), and what is left after [`STOP_SECONDS_MAX`] is cut.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::stop::StopSignal;

/// Most connections at once; more wait in the listener's backlog.
pub const CONNECTIONS_COUNT_MAX: usize = 16_384;
/// Longest time a client may take for a request's head, and a connection may idle, seconds.
pub const HEADER_READ_SECONDS_MAX: u64 = 60;
/// Longest graceful stop, seconds.
pub const STOP_SECONDS_MAX: u64 = 10;
/// Buffer of one connection in each direction, and so the largest request head, bytes.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// Most header fields of a request.
const HEADERS_COUNT_MAX: usize = 100;
/// Pause after a failed accept: out of descriptors, most likely, milliseconds.
const ACCEPT_PAUSE_MILLIS: u64 = 20;

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeEnd {
    /// Connections that did not finish within [`STOP_SECONDS_MAX`].
    pub connections_cut: usize,
}

/// Serves `router` on `listener` until `shutdown` completes, then stops within [`STOP_SECONDS_MAX`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> ServeEnd {
    let (stop, stopping) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_COUNT_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        while connections.join_next().now_or_never().flatten().is_some() {}
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => {
                let Some((stream, slot)) = accepted else { continue };
                let signal = StopSignal::new(stopping.clone());
                connections.spawn(connection(stream, slot, router.clone(), signal));
            }
        }
    }
    drop(listener);
    // No receiver means no connection is left.
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let limit = Duration::from_secs(STOP_SECONDS_MAX);
    let connections_cut = match tokio::time::timeout(limit, all).await {
        Ok(()) => 0,
        Err(_) => connections.len(),
    };
    connections.shutdown().await;
    ServeEnd { connections_cut }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    router: Router,
    signal: StopSignal,
) {
    // Small events must leave at once; without it they would wait for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let in_request = signal.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(in_request.clone());
        let request = request.map(axum::body::Body::new);
        tower_call(router.clone(), request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_READ_SECONDS_MAX))
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .max_headers(HEADERS_COUNT_MAX);
    let mut running = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = running.as_mut() => ended,
        () = signal.stopped() => {
            running.as_mut().graceful_shutdown();
            running.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(slot);
}

async fn tower_call(
    mut router: Router,
    request: Request<axum::body::Body>,
) -> Result<axum::response::Response, std::convert::Infallible> {
    // A `Router` is always ready: asking would only cost.
    tower::Service::call(&mut router, request).await
}
