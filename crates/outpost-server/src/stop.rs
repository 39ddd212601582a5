//! How a stopping server tells its long answers to end.

use std::future::Future;
use std::pin::Pin;

use http::Extensions;
use tokio::sync::watch;

/// Travels with every request that came through [`crate::serve`].
#[derive(Debug, Clone)]
pub(crate) struct StopSignal(watch::Receiver<bool>);

/// Completes once the server is stopping.
pub(crate) type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

impl StopSignal {
    /// `sender` says `true` once.
    pub(crate) const fn new(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Completes once the server is stopping.
    pub(crate) async fn stopped(mut self) {
        // An error means the sender is gone: the server is stopping as well.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

/// Completes once the server of this request is stopping; never under a bare router.
pub(crate) fn stopped(extensions: &Extensions) -> Stopped {
    match extensions.get::<StopSignal>() {
        Some(signal) => Box::pin(signal.clone().stopped()),
        None => Box::pin(std::future::pending()),
    }
}
