//! One client: dispatches, cancels some, follows some, and judges each run when it is over.
//!
//! A client never gives up because the server is away: it asks again until its patience ends, as the
//! idempotency of every call allows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use outpost_client::HttpApi;
use outpost_types::{
    Api, ApiError, CancelRequest, DispatchId, DispatchRequest, DispatchStatus, DispatchView,
    ErrorCode, EventData, EventEnvelope, LogQuery,
};

use crate::check::{self, Cancel, Evidence};
use crate::host::Host;
use crate::ledger::Ledger;
use crate::plan::{ARTIFACT, Kind};
use crate::rng::Rng;

/// Longest wait for anything, seconds: a server that comes back, a run that ends.
pub const PATIENCE_SECONDS: u64 = 120;
/// Pause before a server that was away is asked again, milliseconds.
const AWAY_MILLIS: u64 = 20;
/// Longest random wait before a run is cancelled, milliseconds.
const CANCEL_MILLIS_MAX: u64 = 700;
/// Longest single long poll, seconds.
const POLL_SECONDS: u64 = 10;
/// Timeout of the runs, seconds; none comes near it.
const RUN_SECONDS: u64 = 600;

/// What all clients share.
#[derive(Debug, Clone)]
pub struct Client {
    /// The server, wherever it is at the moment.
    pub api: HttpApi,
    /// Where the runs' processes are.
    pub host: Host,
    /// What is known of all runs.
    pub ledger: Arc<Ledger>,
    /// A repository of this machine.
    pub repo: String,
    /// Tells the keys of this storm from those of others.
    pub seed: u64,
}

impl Client {
    /// Dispatches one run after the other until the ledger says that it is enough.
    ///
    /// # Errors
    /// When the server does something no server may do; broken promises go to the ledger.
    pub async fn work(self, number: u64) -> anyhow::Result<()> {
        let mut rng = Rng::new(self.seed, number + 1);
        let mut count = 0;
        while !self.ledger.is_over() {
            count += 1;
            let key = format!("torture-{}-{number}-{count}", self.seed);
            let one = self.one(&mut rng, &key);
            one.await.with_context(|| format!("client {number}, run {count}"))?;
        }
        Ok(())
    }

    /// One run from its dispatch to the judgement.
    async fn one(&self, rng: &mut Rng, key: &str) -> anyhow::Result<()> {
        let kind = Kind::choose(rng);
        let request = DispatchRequest {
            agent: kind.agent().to_owned(),
            task: format!("{kind:?} for {key}"),
            repo: rng.chance(50).then(|| self.repo.clone()),
            timeout_seconds: Some(RUN_SECONDS),
            ..DispatchRequest::default()
        };
        let launcher_kills = self.ledger.launcher_kills();
        let id = self.create(&request, key, rng.chance(20)).await?;
        self.ledger.accepted(id);
        let followed = rng.chance(50).then(|| tokio::spawn(follow(self.api.clone(), id)));
        let followed_log = rng.chance(30).then(|| tokio::spawn(follow_log(self.api.clone(), id)));
        let cancel = if kind == Kind::Stubborn {
            self.until_it_speaks(id).await?;
            self.cancel(id).await?
        } else if rng.chance(15) {
            tokio::time::sleep(Duration::from_millis(rng.below(CANCEL_MILLIS_MAX))).await;
            self.cancel(id).await?
        } else {
            Cancel::None
        };
        let view = self.until_over(id).await?;
        if matches!(kind, Kind::Daemon | Kind::Stubborn) {
            self.ledger.note(self.host.survivors(id));
        }
        let launcher_killed = self.ledger.launcher_kills() != launcher_kills;
        let followed = match followed {
            Some(task) => Some(within("a follower", task).await???),
            None => None,
        };
        let followed_log = match followed_log {
            Some(task) => Some(within("a follower of a log", task).await???),
            None => None,
        };
        let seen = Evidence {
            kind,
            followed,
            followed_log,
            events: self.events(id).await?,
            log: self.log(id).await?,
            diff: self.diff(id).await?,
            artifact: self.artifact(kind, id).await?,
            cancel,
            launcher_killed,
            view,
        };
        self.ledger.judged(&seen, check::run(&seen));
        Ok(())
    }

    /// Dispatches, asking with the same key until there is an answer; `again` asks once more after it.
    async fn create(
        &self,
        request: &DispatchRequest,
        key: &str,
        again: bool,
    ) -> anyhow::Result<DispatchId> {
        let ask = || self.api.create_dispatch(request.clone(), Some(key.to_owned()));
        let created = patiently("create", ask).await?;
        let id = created.dispatch.dispatch_id;
        if again {
            let second = patiently("create again", ask).await?;
            if second.dispatch.dispatch_id != id || !second.replayed {
                bail!("the key {key} made {id} and {}", second.dispatch.dispatch_id);
            }
        }
        Ok(id)
    }

    async fn cancel(&self, id: DispatchId) -> anyhow::Result<Cancel> {
        let ask = || async {
            match self.api.cancel_dispatch(id, CancelRequest::default()).await {
                Ok(view)
                    if view.status.is_terminal() && view.status != DispatchStatus::Cancelled =>
                {
                    Ok(Cancel::TooLate)
                }
                Ok(_) => Ok(Cancel::Acknowledged),
                Err(error) if error.code == ErrorCode::AlreadyFinished => Ok(Cancel::TooLate),
                Err(error) => Err(error),
            }
        };
        patiently("cancel", ask).await
    }

    /// Waits until the agent has printed something; or the run is over, which is judged later.
    async fn until_it_speaks(&self, id: DispatchId) -> anyhow::Result<()> {
        let read = || async {
            let mut events = self.api.events(id, 0).await?;
            while let Some(event) = events.try_next().await? {
                if matches!(event.data, EventData::Log { .. }) {
                    break;
                }
            }
            Ok(())
        };
        patiently("the first line", read).await
    }

    async fn until_over(&self, id: DispatchId) -> anyhow::Result<DispatchView> {
        let over = async {
            let mut generation = 0;
            loop {
                let wait = Some(Duration::from_secs(POLL_SECONDS));
                let ask = || self.api.get_dispatch(id, wait, Some(generation));
                let view = patiently("get", ask).await?;
                if view.status.is_terminal() {
                    return Ok::<_, anyhow::Error>(view);
                }
                generation = view.generation;
            }
        };
        within("the end of a run", over).await.with_context(|| format!("{id}"))?
    }

    async fn events(&self, id: DispatchId) -> anyhow::Result<Vec<EventEnvelope>> {
        let read = || async { self.api.events(id, 0).await?.try_collect().await };
        patiently("events", read).await
    }

    async fn log(&self, id: DispatchId) -> anyhow::Result<String> {
        let read = || async { text(self.api.logs(id, LogQuery::default()).await?).await };
        patiently("log", read).await
    }

    async fn diff(&self, id: DispatchId) -> anyhow::Result<String> {
        let read = || async { text(self.api.diff(id).await?).await };
        patiently("diff", read).await
    }

    async fn artifact(&self, kind: Kind, id: DispatchId) -> anyhow::Result<Option<String>> {
        if kind != Kind::Artifact {
            return Ok(None);
        }
        let name = format!("artifacts/{}", ARTIFACT.0);
        let read = || async {
            match self.api.artifact(id, &name).await {
                Ok(stream) => text(stream).await.map(Some),
                Err(error) if error.code == ErrorCode::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        patiently("artifact", read).await
    }
}

async fn follow(api: HttpApi, id: DispatchId) -> anyhow::Result<Vec<EventEnvelope>> {
    // Only the head is asked for again here; what breaks later is resumed by the client library.
    let stream = patiently("follow", || api.events(id, 0)).await?;
    stream.try_collect().await.with_context(|| format!("events of {id} while they are written"))
}

async fn follow_log(api: HttpApi, id: DispatchId) -> anyhow::Result<String> {
    let query = LogQuery { after: 0, follow: true };
    let stream = patiently("follow the log", || api.logs(id, query)).await?;
    text(stream).await.with_context(|| format!("log of {id} while it is written"))
}

async fn text(stream: outpost_types::ByteStream) -> Result<String, ApiError> {
    let pieces: Vec<_> = stream.try_collect().await?;
    Ok(String::from_utf8_lossy(&pieces.concat()).into_owned())
}

/// Asks until there is an answer that is not "the server is away".
pub async fn patiently<T, F>(what: &str, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.code == ErrorCode::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(AWAY_MILLIS)).await;
                }
                Err(error) => return Err(error),
            }
        }
    };
    within(what, asking)
        .await?
        .map_err(|error| anyhow::anyhow!("{what}: {:?}: {}", error.code, error.message))
}

/// Fails instead of hanging.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> anyhow::Result<T> {
    let limit = Duration::from_secs(PATIENCE_SECONDS);
    let done = tokio::time::timeout(limit, work).await;
    done.with_context(|| format!("{what} did not come within {PATIENCE_SECONDS} s"))
}
