//! Follows one pull request: asks the code host for feedback, dispatches what the core makes of it, pushes what came of
//! that. The driver of its promotion goes on with this when branch and pull request are there.
//!
//! A look that finds nothing new leaves nothing behind. Bounded: steps, looks of an hour, failures in a row. What needs
//! somebody's consent is never pushed here: it ends, and says which dispatch to promote.

use std::sync::Arc;
use std::time::Duration;

use outpost_core::{
    Dispatch, FollowEvent, FollowState, FollowStep, FollowUp, Promotion, PromotionEvent, PullState,
};
use outpost_promote::{LookAsk, LookCache, PromoteError};
use outpost_types::limits::{TAG_BYTES_MAX, TAGS_COUNT_MAX};
use outpost_types::{
    ApiError, Caller, DispatchId, DispatchRequest, DispatchStatus, ErrorCode, FollowUpEnd,
    PromotionFailure, Scope,
};
use tracing::{error, info};

use super::drive::{Driver, broken, pause};
use super::plan::BUNDLE_FILE;
use crate::engine::Engine;

/// Most steps of one driver: a look every minute of the longest time, and some.
const STEPS_MAX: u32 = 40_000;
/// Failures in a row before it is given up.
const FAILURES_MAX: u32 = 20;
/// Longest pause after a failure, milliseconds.
const BACKOFF_MILLIS_MAX: u64 = 3_600_000;
/// Time without news after which looks are rarer, milliseconds, and by how much.
const QUIET_MILLIS: u64 = 3_600_000;
/// See [`QUIET_MILLIS`].
const QUIET_FACTOR: u64 = 5;
/// Longest wait for a dispatch before the record is read again, milliseconds.
const WAIT_MILLIS_MAX: u64 = 60_000;
/// What the tag of a dispatch begins with that feedback made; the promotion's id follows.
const TAG: &str = "follow-up-of:";

/// What a step came to.
enum Next {
    /// This happened.
    Event(PromotionEvent),
    /// Nothing yet: look again in a while.
    Later,
    /// Nothing yet: look again now.
    Again,
}

impl Next {
    const fn of(event: FollowEvent) -> Self {
        Self::Event(PromotionEvent::Follow(event))
    }
}

/// Follows until it is over, or somebody else's.
pub(super) async fn run(driver: &mut Driver, id: DispatchId) {
    let (mut cache, mut failures) = (LookCache::default(), 0);
    let poll = driver.promoter.poll_millis();
    for _ in 0..STEPS_MAX {
        let promotion = match driver.engine.inner.store.promotion(id).await {
            Ok(Some(promotion)) => promotion,
            Ok(None) => return,
            Err(error) => {
                error!(%id, ?error, "a pull request that is followed cannot be read; trying again");
                pause(poll).await;
                continue;
            }
        };
        if promotion.epoch != driver.epoch || !promotion.is_followed() {
            info!(%id, "a driver that follows a pull request ends");
            return;
        }
        let quiet =
            driver.engine.now().as_millis().saturating_sub(promotion.updated_at.as_millis());
        let nap = if quiet > QUIET_MILLIS { poll * QUIET_FACTOR } else { poll };
        match Box::pin(driver.follow(&promotion, &mut cache)).await {
            Ok(Next::Event(event)) => {
                failures = 0;
                driver.report(&promotion, event).await;
            }
            Ok(Next::Later) => {
                failures = 0;
                pause(nap).await;
            }
            Ok(Next::Again) => {}
            Err(PromoteError::Hindered { failure, pause_millis }) if failures < FAILURES_MAX => {
                failures += 1;
                // The token may have been replaced.
                driver.access = None;
                info!(%id, failures, why = failure.message, "a pull request cannot be followed now");
                let doubled = poll.saturating_mul(1 << failures.min(10));
                let asked = pause_millis.unwrap_or(0).max(doubled);
                pause(asked.min(BACKOFF_MILLIS_MAX)).await;
            }
            Err(PromoteError::Hindered { failure, .. } | PromoteError::Refused(failure)) => {
                driver.report(&promotion, ended(failure)).await
            }
        }
    }
    error!(%id, "a driver that follows a pull request gave up; the next server goes on");
}

/// Ends to follow the pull request of a dispatch that is not kept any more.
pub(super) async fn give_up(engine: &Engine, id: DispatchId, epoch: u32) {
    error!(%id, "a promotion has no dispatch any more");
    let Ok(Some(promotion)) = engine.inner.store.promotion(id).await else { return };
    let gone = PromotionFailure::new(ErrorCode::Expired, "The dispatch is not kept any more.");
    if let Err(error) = engine.change(&promotion, ended(gone), Some(epoch), None).await {
        error!(%id, ?error, "the end of a promotion cannot be recorded");
    }
}

/// The end that a refusal is.
fn ended(failure: PromotionFailure) -> PromotionEvent {
    let why = match failure.code {
        ErrorCode::ProtectedPaths | ErrorCode::SecretsFound => FollowUpEnd::NeedsConsent,
        ErrorCode::BranchExists => FollowUpEnd::Moved,
        _ => FollowUpEnd::Failed,
    };
    let message = Some(failure.message);
    PromotionEvent::Follow(FollowEvent::Ended { why, message })
}

impl Driver {
    async fn follow(
        &mut self,
        promotion: &Promotion,
        cache: &mut LookCache,
    ) -> Result<Next, PromoteError> {
        let Some(follow) = &promotion.follow else { return Err(broken("nothing to follow")) };
        if self.access.is_none() {
            let (access, source) = self.access(promotion).await?;
            self.access = Some(access);
            // What is on record already is not written again each time the host was out of reach.
            if promotion.facts.credential.as_ref() != Some(&source) {
                return Ok(Next::Event(PromotionEvent::Credential { source }));
            }
        }
        match (follow.next_step(), &follow.state) {
            (FollowStep::Look, _) => self.look(promotion, follow, cache).await,
            (FollowStep::Dispatch, FollowState::Telling { dispatch, task }) => {
                self.dispatch(promotion, follow, *dispatch, task).await
            }
            (FollowStep::Wait, FollowState::Working { dispatch }) => {
                self.wait(promotion, follow, *dispatch).await
            }
            (FollowStep::Push, FollowState::Pushing { dispatch, commit }) => {
                self.push_round(promotion, follow, (*dispatch, commit)).await
            }
            _ => Err(broken("a pull request is followed in no known state")),
        }
    }

    async fn look(
        &self,
        promotion: &Promotion,
        follow: &FollowUp,
        cache: &mut LookCache,
    ) -> Result<Next, PromoteError> {
        let Some(pull) = &promotion.facts.pull_request else {
            return Err(broken("no pull request"));
        };
        let ask = LookAsk {
            number: pull.number,
            plan: Some(follow.plan),
            told_checks: &follow.told_checks,
            since: promotion.created_at,
        };
        let (bundle, name) = (self.bundle(), self.clone_name(promotion));
        let work = self.work(promotion, &bundle, &name)?;
        let seen = Box::pin(self.promoter.look(work, ask, cache)).await?;
        let now = self.engine.now();
        let fresh = DispatchId::from_parts(now.as_millis(), self.engine.random_u128());
        Ok(follow.judge(&seen, fresh, now).map_or(Next::Later, Next::of))
    }

    /// Dispatches for the key that asked for the promotion, as far as that key still may.
    async fn dispatch(
        &self,
        promotion: &Promotion,
        follow: &FollowUp,
        id: DispatchId,
        task: &str,
    ) -> Result<Next, PromoteError> {
        let store = &self.engine.inner.store;
        let unread = |error| PromoteError::Hindered {
            failure: PromotionFailure::new(ErrorCode::Unavailable, format!("{error}")),
            pause_millis: None,
        };
        if store.get(id).await.map_err(unread)?.is_some() {
            return Ok(Next::of(FollowEvent::Dispatched));
        }
        let Some(parent) = store.get(follow.last).await.map_err(unread)? else {
            let message = "The dispatch to go on from is not kept any more.";
            return Err(refused(ErrorCode::Expired, message));
        };
        let caller = self.caller(promotion)?;
        let request = request(&parent, promotion.dispatch, task);
        let accepted = self.engine.api(caller).accept(Some(id), request, None).await;
        match accepted {
            Ok(_) => Ok(Next::of(FollowEvent::Dispatched)),
            Err(error) => Err(explained(error)),
        }
    }

    fn caller(&self, promotion: &Promotion) -> Result<Arc<Caller>, PromoteError> {
        let found = self.engine.inner.access.working(promotion.requested_by, self.engine.now());
        let may = |caller: &Arc<Caller>| {
            caller.tenant == promotion.tenant
                && caller.may(Scope::Dispatch)
                && caller.may(Scope::Promote)
        };
        found.filter(may).ok_or_else(|| {
            let message = "The key that asked for it does not work any more, or may not dispatch.";
            refused(ErrorCode::Forbidden, message)
        })
    }

    /// Waits for the end of a round's dispatch, and looks at what it left.
    async fn wait(
        &mut self,
        promotion: &Promotion,
        follow: &FollowUp,
        id: DispatchId,
    ) -> Result<Next, PromoteError> {
        let found = self.engine.inner.store.get(id).await;
        let record = match found {
            Ok(Some(record)) => record,
            Ok(None) => return Err(refused(ErrorCode::Expired, "The dispatch is gone.")),
            Err(_) => return Ok(Next::Later),
        };
        if !record.status().is_terminal() {
            let Ok(Some(live)) = self.engine.live(id).await else { return Ok(Next::Later) };
            let mut changes = live.record.subscribe();
            let ended = changes.wait_for(|record| record.status().is_terminal());
            // The end of the time is no error: the record is read again.
            let _ = tokio::time::timeout(Duration::from_millis(WAIT_MILLIS_MAX), ended).await;
            return Ok(Next::Again);
        }
        let bundle = self.engine.kept_dir(id).join(BUNDLE_FILE);
        if record.status() != DispatchStatus::Completed || !bundle.is_file() {
            return Ok(Next::of(FollowEvent::Ran { commit: None }));
        }
        let turn = self.engine.inner.promotions.at_once.acquire().await;
        let staged = self.stage_round(promotion, follow, id).await;
        drop(turn);
        match staged {
            Err(PromoteError::Refused(failure)) if failure.code == ErrorCode::NothingToPromote => {
                Ok(Next::of(FollowEvent::Ran { commit: None }))
            }
            Err(error) => Err(error),
            Ok(staged) => {
                let commit = staged.checked.commit.clone();
                self.staged = Some(staged);
                let commit = (commit != follow.commit).then_some(commit);
                Ok(Next::of(FollowEvent::Ran { commit }))
            }
        }
    }

    async fn stage_round(
        &self,
        promotion: &Promotion,
        follow: &FollowUp,
        id: DispatchId,
    ) -> Result<outpost_promote::Staged, PromoteError> {
        let bundle = self.engine.kept_dir(id).join(BUNDLE_FILE);
        let name = self.clone_name(promotion);
        let work = self.work(promotion, &bundle, &name)?.after(&follow.commit);
        Box::pin(self.promoter.stage(work)).await
    }

    async fn push_round(
        &mut self,
        promotion: &Promotion,
        follow: &FollowUp,
        (id, commit): (DispatchId, &str),
    ) -> Result<Next, PromoteError> {
        let Some(pull) = &promotion.facts.pull_request else {
            return Err(broken("no pull request"));
        };
        let bundle = self.engine.kept_dir(id).join(BUNDLE_FILE);
        let name = self.clone_name(promotion);
        let work = self.work(promotion, &bundle, &name)?.after(&follow.commit);
        if self.promoter.is_pushed(work, commit).await? {
            return Ok(Next::of(FollowEvent::Pushed));
        }
        let since = promotion.created_at;
        let ask = LookAsk { number: pull.number, plan: None, told_checks: &[], since };
        let seen = Box::pin(self.promoter.look(work, ask, &mut LookCache::default())).await?;
        let over = match seen.state {
            PullState::Open => None,
            PullState::Merged => Some(FollowUpEnd::Merged),
            PullState::Closed => Some(FollowUpEnd::Closed),
        };
        if let Some(why) = over {
            return Ok(Next::of(FollowEvent::Ended { why, message: None }));
        }
        let turn = self.engine.inner.promotions.at_once.acquire().await;
        let staged = match self.staged.take() {
            Some(staged) if staged.checked.commit == commit => staged,
            _ => self.stage_round(promotion, follow, id).await?,
        };
        if staged.checked.commit != commit {
            return Err(broken("the kept changes are others than were checked"));
        }
        let work = self.work(promotion, &bundle, &name)?.after(&follow.commit);
        self.promoter.push(work, &staged, Some(&follow.commit)).await?;
        drop(turn);
        Ok(Next::of(FollowEvent::Pushed))
    }
}

/// What a round asks for: as the dispatch it goes on from, with the feedback as its task.
fn request(parent: &Dispatch, promotion: DispatchId, task: &str) -> DispatchRequest {
    let spec = &parent.spec;
    let mut tags: Vec<String> =
        spec.tags.iter().filter(|tag| !tag.starts_with(TAG)).cloned().collect();
    tags.truncate(TAGS_COUNT_MAX - 1);
    let tag = format!("{TAG}{promotion}");
    debug_assert!(tag.len() <= TAG_BYTES_MAX);
    tags.push(tag);
    DispatchRequest {
        agent: spec.agent.to_string(),
        task: task.to_owned(),
        model_id: Some(spec.model_id.clone()),
        context_level: Some(spec.context_level),
        timeout_seconds: Some(spec.timeout_seconds),
        priority: Some(spec.priority),
        deadline_seconds: Some(spec.deadline_seconds),
        user_id: spec.user_id.clone(),
        tags,
        checks: spec.checks.clone(),
        setup: spec.setup.clone(),
        network: Some(spec.network),
        tier: Some(spec.tier),
        budget_usd: spec.budget.map(outpost_core::Nanodollars::to_usd),
        secrets: spec.secrets.iter().map(ToString::to_string).collect(),
        allow_hosts: spec.allow_hosts.clone(),
        continue_from: Some(parent.id.to_string()),
        ..DispatchRequest::default()
    }
}

fn refused(code: ErrorCode, message: &str) -> PromoteError {
    PromoteError::Refused(PromotionFailure::new(code, message))
}

fn explained(error: ApiError) -> PromoteError {
    let failure = PromotionFailure::new(error.code, error.message);
    match error.code {
        ErrorCode::Unavailable | ErrorCode::RateLimited | ErrorCode::SecretsUnavailable => {
            let pause_millis = error.retry_after_seconds.map(|seconds| seconds * 1_000);
            PromoteError::Hindered { failure, pause_millis }
        }
        _ => PromoteError::Refused(failure),
    }
}
