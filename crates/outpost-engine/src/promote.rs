//! Promotions of dispatches: accepted for one caller, on record before anything happens, carried out by a
//! driver each, taken up again by the next server.
//!
//! Bounded: drivers that work at once, steps of a driver, tries of a step (by the core), what is read of the
//! events of a run. Absent: git and the code host, which are `outpost-promote`'s.

mod asked;
mod drive;
mod follow;
mod plan;
mod told;

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use outpost_core::{
    Dispatch, Promotion, PromotionEvent, PromotionState, notices_of_promotion, promote_step,
};
use outpost_promote::{PromoteError, Promoter};
use outpost_store::{PROMOTION_ROWS_MAX, StoreError};
use outpost_types::{
    ApiError, DispatchId, ErrorCode, KeyId, PromoteApi, PromoteRequest, Promoted, PromotionView,
    SecretError,
};
use tokio::sync::{Semaphore, watch};
use tracing::{error, info};

use crate::api::store_error;
use crate::engine::Engine;
use crate::{EngineApi, audit};

/// Most promotions that clone and push at once; others wait.
const AT_ONCE_MAX: usize = 2;
/// How often a request is decided anew when others come before it.
const REQUEST_TRIES_MAX: u32 = 8;

/// What an engine has for promotions.
#[derive(Debug)]
pub(crate) struct Promotions {
    promoter: OnceLock<Promoter>,
    /// Counts changes, for those who wait for one.
    changed: watch::Sender<u64>,
    at_once: Semaphore,
}

impl Default for Promotions {
    fn default() -> Self {
        Self {
            promoter: OnceLock::new(),
            changed: watch::Sender::new(0),
            at_once: Semaphore::new(AT_ONCE_MAX),
        }
    }
}

impl Engine {
    /// Promotes with this from now on, and goes on with what an earlier server began. For the start of a
    /// server, once.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn promote_with(&self, promoter: Promoter) -> Result<(), StoreError> {
        if self.inner.promotions.promoter.set(promoter).is_err() {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = self.inner.store.open_promotions(after, PROMOTION_ROWS_MAX).await?;
            after = page.last().map(|promotion| promotion.dispatch);
            let is_last = page.len() < PROMOTION_ROWS_MAX as usize;
            for promotion in page {
                let id = promotion.dispatch;
                info!(%id, status = promotion.status().as_str(), "taking up a promotion");
                let taken = self.change(&promotion, PromotionEvent::TakenUp, None, None).await;
                match taken {
                    Ok(taken) => self.start_promotion(&taken),
                    Err(error) => error!(%id, ?error, "a promotion could not be taken up"),
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn start_promotion(&self, promotion: &Promotion) {
        let Some(promoter) = self.inner.promotions.promoter.get().cloned() else { return };
        let (id, epoch) = (promotion.dispatch, promotion.epoch);
        let work = drive::run(self.clone(), promoter, id, epoch);
        self.inner.tasks.spawn(crate::TaskKind::Promotion, id, work);
    }

    /// Applies an event and makes it durable, with its audit entry.
    pub(crate) async fn change(
        &self,
        before: &Promotion,
        event: PromotionEvent,
        epoch: Option<u32>,
        actor: Option<KeyId>,
    ) -> Result<Promotion, StoreError> {
        let now = self.now();
        let next = promote_step(before, event, epoch, now)
            .map_err(|_| StoreError::Stale { found: before.generation })?;
        self.put_promotion(&next, before, actor).await?;
        Ok(next)
    }

    async fn put_promotion(
        &self,
        next: &Promotion,
        before: &Promotion,
        actor: Option<KeyId>,
    ) -> Result<(), StoreError> {
        let is_new = next.generation == 1;
        let expected = if is_new { 0 } else { before.generation };
        let before = (!is_new).then_some(before);
        let entry = audit::of_promotion(before, next, actor);
        let told = notices_of_promotion(before, next);
        let written = self.inner.store.put_promotion(next, expected, entry, &told).await;
        if let Err(error) = written {
            // A store that fails may have written it all the same: then it counts.
            let found = self.inner.store.promotion(next.dispatch).await;
            if !matches!(&found, Ok(Some(found)) if found == next) {
                return Err(error);
            }
        }
        if !told.is_empty() {
            self.inner.told.notify_one();
        }
        self.inner.promotions.changed.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }
}

#[async_trait]
impl PromoteApi for EngineApi {
    async fn promote(
        &self,
        request: PromoteRequest,
        wait: Option<Duration>,
    ) -> Result<Promoted, ApiError> {
        let (api, id) = (self.clone(), request.dispatch_id);
        let work = async move { api.begin_promotion(request).await };
        let begun = self.engine().inner.tasks.finish(id, Box::pin(work)).await;
        let mut promoted = begun.unwrap_or_else(|| Err(crate::api::panicked()))?;
        if wait.is_some() && !promoted.promotion.status.is_over() {
            promoted.promotion = self.promotion(id, wait).await?;
        }
        Ok(promoted)
    }

    async fn promotion(
        &self,
        dispatch: DispatchId,
        wait: Option<Duration>,
    ) -> Result<PromotionView, ApiError> {
        self.find(dispatch).await?;
        let mut changes = self.engine().inner.promotions.changed.subscribe();
        let read = async || {
            let found = self.engine().inner.store.promotion(dispatch).await.map_err(store_error)?;
            found.map(|promotion| promotion.view()).ok_or_else(ApiError::not_found)
        };
        let mut view = read().await?;
        let Some(wait) = wait else { return Ok(view) };
        let until_over = async {
            while !view.status.is_over() && changes.changed().await.is_ok() {
                view = read().await?;
            }
            Ok::<_, ApiError>(())
        };
        // The end of the time is no error: it is answered as it is.
        match tokio::time::timeout(wait, until_over).await {
            Ok(Err(error)) => Err(error),
            _ => Ok(view),
        }
    }
}

impl EngineApi {
    async fn begin_promotion(&self, request: PromoteRequest) -> Result<Promoted, ApiError> {
        let record = self.find(request.dispatch_id).await?;
        let engine = self.engine();
        let promoter = engine.inner.promotions.promoter.get().ok_or_else(no_promoter)?;
        if !record.status().is_terminal() {
            let message = format!("The dispatch is {}.", record.status());
            return Err(ApiError::new(ErrorCode::NotFinished, message)
                .with_hint("Wait until it has ended, or cancel it: its changes are kept."));
        }
        for _ in 0..REQUEST_TRIES_MAX {
            let found = engine.inner.store.promotion(record.id).await.map_err(store_error)?;
            if let Some(found) = &found {
                plan::same_branch(found, &request)?;
                if !matches!(found.state, PromotionState::Failed { .. }) {
                    let Some(found) = self.watch(promoter, &record, found, &request).await? else {
                        continue;
                    };
                    return Ok(Promoted { promotion: found.view(), replayed: true });
                }
            }
            let begun = self.begin_over(promoter, &record, found.as_ref(), &request).await?;
            if let Some(begun) = begun {
                engine.start_promotion(&begun);
                return Ok(Promoted { promotion: begun.view(), replayed: false });
            }
        }
        let message = "Others promote this dispatch all the time.";
        Err(ApiError::new(ErrorCode::Unavailable, message).with_hint("Try again in a moment."))
    }

    /// Writes a new promotion down, or one that failed as begun again; `None` when somebody was first.
    async fn begin_over(
        &self,
        promoter: &Promoter,
        record: &Dispatch,
        found: Option<&Promotion>,
        request: &PromoteRequest,
    ) -> Result<Option<Promotion>, ApiError> {
        let engine = self.engine();
        let kept_dir = engine.kept_dir(record.id);
        let plan = plan::of(record, found, request, &kept_dir)?;
        let target = promoter.locate(&plan.repo).await.map_err(refusal)?;
        let plan = outpost_core::PromotionPlan { repo: target.url.to_string(), ..plan };
        if let Some(feedback) = &request.feedback {
            asked::check(self.caller(), record, &target, feedback)?;
        }
        let name = &target.forge.token_secret;
        let secrets = &engine.inner.config.secrets;
        let has_secret = secrets.has_forge_token(&record.tenant, name).await;
        if !has_secret.map_err(|error| secret_refusal(&error))?
            && promoter.operator_token(name.as_str()).is_none()
        {
            let message = format!("There is no token for {}.", target.forge.host);
            return Err(ApiError::new(ErrorCode::ForgeCredentials, message)
                .with_hint(format!("Store one: `outpost secrets set {name}`.")));
        }
        let key = self.caller().key;
        let written = match found {
            Some(found) => {
                let event = PromotionEvent::Again { plan, by: key };
                engine.change(found, event, None, Some(key)).await
            }
            None => {
                let tenant = record.tenant.clone();
                let new = Promotion::new(record.id, tenant, key, plan, engine.now());
                engine.put_promotion(&new, &new, Some(key)).await.map(|()| new)
            }
        };
        match written {
            Ok(begun) => Ok(Some(begun)),
            Err(StoreError::Stale { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }
}

fn no_promoter() -> ApiError {
    ApiError::new(ErrorCode::NotSupported, "This server does not push to code hosts.")
}

fn refusal(error: PromoteError) -> ApiError {
    match error {
        PromoteError::Refused(failure) | PromoteError::Hindered { failure, .. } => failure.into(),
    }
}

fn secret_refusal(error: &SecretError) -> ApiError {
    let message = format!("The token cannot be had: {error}.");
    ApiError::new(ErrorCode::SecretsUnavailable, message)
}
