//! What must hold for a store opened after a cut.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use outpost_store::{Audits, SqliteOptions, SqliteStore, StoreError};

use crate::history::{History, State};
use crate::workload::{Picture, Write, check_replay, first_difference, text_of};

/// Most idempotency keys tried on one image.
const REPLAYS_MAX: usize = 3;
const INSTALL_ID: u128 = 7;

/// What an image turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A lawful state, by number.
    Lawful(usize),
    /// A whole state of the past: later writes are lost, acknowledged ones among them. Never lawful;
    /// a disk that lies can make it, and the files alone cannot show it.
    Older(usize),
    /// The store said that it is damaged.
    Refused,
    /// Something no sequence of writes makes. Never lawful.
    Mixed(String),
}

/// Opens the image in `directory` as a server would and looks at all of it.
///
/// # Errors
/// When the store fails otherwise than with a damage it names, or when a check of its own fails.
pub async fn examine(directory: &Path, history: &History, cut: usize) -> anyhow::Result<Verdict> {
    let store = match SqliteStore::open(&SqliteOptions::new(directory, INSTALL_ID)) {
        Ok(store) => store,
        Err(StoreError::Corrupt { .. }) => return Ok(Verdict::Refused),
        Err(error) => return Err(error).context("opening the store after the cut"),
    };
    let picture = match look(&store).await {
        Ok(Some(picture)) => picture,
        Ok(None) | Err(StoreError::Corrupt { .. }) => return Ok(Verdict::Refused),
        Err(error) => return Err(error).context("reading the store after the cut"),
    };
    let verdict = place(&store, picture, history, cut).await?;
    if let Verdict::Lawful(number) | Verdict::Older(number) = verdict {
        check_promises(&store, history, &history.states[number]).await?;
    }
    Ok(verdict)
}

/// `None` when the trail is broken.
async fn look(store: &SqliteStore) -> Result<Option<Picture>, StoreError> {
    store.check().await?;
    if store.verify_audit().await?.is_err() {
        return Ok(None);
    }
    Picture::of(store).await.map(Some)
}

async fn place(
    store: &SqliteStore,
    picture: Picture,
    history: &History,
    cut: usize,
) -> anyhow::Result<Verdict> {
    let mut older = None;
    for (number, state) in history.states.iter().enumerate().rev() {
        if state.picture != picture || state.from > cut {
            continue;
        }
        if cut < state.until {
            return Ok(Verdict::Lawful(number));
        }
        older = older.or(Some(number));
    }
    if let Some(number) = older {
        return Ok(Verdict::Older(number));
    }
    let wanted = text_of(history.now()).await?;
    let found = text_of(store).await?;
    Ok(Verdict::Mixed(first_difference(&found, &wanted)))
}

/// Idempotency keys answer as they did, and the store goes on working.
async fn check_promises(
    store: &SqliteStore,
    history: &History,
    state: &State,
) -> anyhow::Result<()> {
    let claimed = state.writes.iter().rev().filter_map(|number| history.writes[*number].claimed());
    for accept in claimed.take(REPLAYS_MAX) {
        check_replay(store, accept).await?;
    }
    let before = store.verify_audit().await??.count;
    // One that is not in this state is new, with all that belongs to it.
    let gone = (0..history.writes.len()).rev().find(|number| {
        history.writes[*number].claimed().is_some() && !state.writes.contains(number)
    });
    let Some(gone) = gone else {
        return Ok(());
    };
    if let Write::Accept(accept) = &history.writes[gone] {
        let outcome = outpost_store::Dispatches::accept(store, accept.as_ref().clone()).await;
        match outcome.context("accepting after the cut")? {
            outpost_store::Accepted::New => {}
            other => bail!("a write that is not there answered {other:?}"),
        }
        check_replay(store, accept).await?;
        let after = store.verify_audit().await??.count;
        ensure!(after == before + 1, "the trail has {after} rows instead of {}", before + 1);
    }
    Ok(())
}
