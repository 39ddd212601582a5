//! Accepts HTTP/1.1 connections for the gateway and for the scripted provider, a crate of its own; for no
//! other, so it is hidden.
//!
//! Bounded: connections at once, header bytes, time to send a header (or to sit idle between two
//! requests). When the token is cancelled the listener is closed and every connection is dropped
//! in the middle of whatever it does. Absent: HTTP/2 and TLS; both sides are on one machine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Largest request head, bytes. It is checked after each read, so up to twice as much can pass.
pub(crate) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Longest time a connection may take to send a request head, or stay idle before the next one, seconds.
const HEADER_WAIT_SECONDS_MAX: u64 = 120;
/// Pause after a failed accept (usually: out of file descriptors), milliseconds.
const ACCEPT_RETRY_MS: u64 = 50;

/// How much of a refused request's body is still read, bytes: a client that is cut off while it writes may
/// never see the answer.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take, seconds.
const DRAIN_SECONDS_MAX: u64 = 5;

/// Any failure of a body; hyper answers it by cutting the connection.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// What both servers answer with.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Serves `listener` until `stop` is cancelled. Connections beyond `connections_max` wait in the kernel's
/// backlog: nothing is refused, nothing grows.
pub async fn run<S, F>(
    listener: TcpListener,
    connections_max: usize,
    stop: CancellationToken,
    answer: S,
) where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            // Finished tasks are taken out here, so the set holds at most `connections_max` of them.
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((socket, _)) => {
                    let _ = socket.set_nodelay(true);
                    let connection = connection(socket, answer.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accept failed, trying again");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
    }
    drop(listener);
    connections.shutdown().await;
}

/// Reads what is left of a request that is refused, within bounds.
pub async fn drain(body: Incoming) {
    let rest = Limited::new(body, DRAIN_BYTES_MAX);
    let reading = std::pin::pin!(rest);
    let read = async {
        let mut reading = reading;
        while let Some(Ok(_)) = reading.frame().await {}
    };
    // Whatever happens, the answer follows.
    let _ = tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS_MAX), read).await;
}

async fn connection<S, F>(socket: tokio::net::TcpStream, answer: S)
where
    S: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_WAIT_SECONDS_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended early");
    }
}
