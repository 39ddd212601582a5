//! A server that can be stopped and started on its port, and a proxy that cuts connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outpost_client::{ApiKey, ClientConfig, HttpApi, RetryPolicy};
use outpost_server::{ServeEnd, ServerConfig, SigningKey, router, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::memory::{Handle, Memory};

/// Longest wait for anything in a test. Reaching it is a failure, never a pace.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<ServeEnd>,
}

impl Server {
    /// Starts on `address`, which may have port 0.
    pub(crate) fn start(memory: &Arc<Memory>, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(128).unwrap();
        let address = listener.local_addr().unwrap();
        let config = ServerConfig::new(address, SigningKey::new([1; 32]));
        let router = router(config, Arc::new(Handle(Arc::clone(memory))));
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serve(listener, router, async {
            let _ = stopped.await;
        }));
        Self { address, stop, running }
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(DEADLINE, self.running).await.unwrap().unwrap();
    }

    /// Cuts everything at once, as a crash does.
    pub(crate) async fn crash(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

pub(crate) fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A client that tries again quickly.
pub(crate) fn client(address: SocketAddr, key: &str) -> HttpApi {
    let mut config = ClientConfig::new(format!("http://{address}"), Some(ApiKey::new(key)));
    config.retry = RetryPolicy {
        tries_max: 50,
        pause_first: Duration::from_millis(5),
        pause_max: Duration::from_millis(200),
    };
    HttpApi::new(config).unwrap()
}

/// A proxy in front of `target` that cuts each connection once the server has sent `bytes_max`.
pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    pub(crate) cuts: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Cutter {
    pub(crate) async fn start(target: SocketAddr, bytes_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&cuts);
        let running = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(target).await.unwrap();
                tokio::spawn(forward(near, far, bytes_max, Arc::clone(&counter)));
            }
        });
        Self { address, cuts, running }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn forward(near: TcpStream, far: TcpStream, bytes_max: usize, cuts: Arc<AtomicUsize>) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
    });
    let mut left = bytes_max;
    let mut buffer = vec![0; 4096];
    while left > 0 {
        let room = left.min(buffer.len());
        match far_read.read(&mut buffer[..room]).await {
            Ok(count) if count > 0 => {
                if near_write.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
                left -= count;
            }
            _ => break,
        }
    }
    if left == 0 {
        cuts.fetch_add(1, Ordering::Relaxed);
    }
    up.abort();
}
