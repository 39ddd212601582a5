//! One driver of one promotion: does what the core says is next, until it is over or taken from it.

use std::time::Duration;

use outpost_core::{Dispatch, Promotion, PromotionEvent, PromotionStep};
use outpost_promote::{ForgeKind, PromoteError, Promoter, Staged, Target, Work};
use outpost_store::StoreError;
use outpost_types::{DispatchId, ErrorCode, PromotionFailure, SecretError, SecretScope};
use outpost_workspace::Secret;
use tracing::{error, info};

use super::plan::BUNDLE_FILE;
use super::told::run_facts;
use crate::engine::Engine;

/// Most steps and tries of one driver: every step with all its tries, and some.
const STEPS_MAX: u32 = 64;
/// Longest pause before a store that fails is asked again, milliseconds.
const BACKOFF_MILLIS_MAX: u64 = 5_000;

/// What a driver holds.
pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) promoter: Promoter,
    pub(super) epoch: u32,
    record: Dispatch,
    /// The clone, once there is one.
    pub(super) staged: Option<Staged>,
    /// Where to and with what, once its use is on record.
    pub(super) access: Option<(Target, Secret)>,
}

/// Drives until it is over, or somebody else's.
pub(super) async fn run(engine: Engine, promoter: Promoter, id: DispatchId, epoch: u32) {
    let record = match engine.inner.store.get(id).await {
        Ok(Some(record)) => record,
        // It had its time while its pull request was followed.
        Ok(None) => return super::follow::give_up(&engine, id, epoch).await,
        other => return error!(%id, ?other, "a promotion has no dispatch that can be read"),
    };
    let mut driver =
        Driver { engine: engine.clone(), promoter, epoch, record, staged: None, access: None };
    for _ in 0..STEPS_MAX {
        let promotion = match driver.engine.inner.store.promotion(id).await {
            Ok(Some(promotion)) => promotion,
            Ok(None) => return,
            Err(error) => {
                error!(%id, ?error, "a promotion cannot be read; trying again");
                pause(BACKOFF_MILLIS_MAX).await;
                continue;
            }
        };
        if promotion.epoch == epoch && promotion.is_followed() {
            return super::follow::run(&mut driver, id).await;
        }
        if promotion.epoch != epoch || promotion.status().is_over() {
            info!(%id, status = promotion.status().as_str(), "a driver of a promotion ends");
            return;
        }
        let now = driver.engine.now().as_millis();
        let left = promotion.not_before.map_or(0, |at| at.as_millis().saturating_sub(now));
        if left > 0 {
            pause(left).await;
        }
        // A driver that pauses holds up nobody.
        let Ok(turn) = engine.inner.promotions.at_once.acquire().await else { return };
        let event = Box::pin(driver.step(&promotion)).await.unwrap_or_else(|error| match error {
            PromoteError::Refused(failure) => PromotionEvent::Failed(failure),
            PromoteError::Hindered { failure, pause_millis } => {
                PromotionEvent::Hindered { failure, pause_millis }
            }
        });
        drop(turn);
        driver.report(&promotion, event).await;
    }
    error!(%id, "a driver of a promotion gave up; the next server goes on");
}

pub(super) async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

impl Driver {
    /// Makes what happened durable; a store that fails is asked again when the next step begins.
    pub(super) async fn report(&self, promotion: &Promotion, event: PromotionEvent) {
        match self.engine.change(promotion, event, Some(self.epoch), None).await {
            Ok(_) | Err(StoreError::Stale { .. }) => {}
            Err(error) => {
                error!(id = %promotion.dispatch, ?error, "a promotion cannot be recorded");
                pause(BACKOFF_MILLIS_MAX.min(500)).await;
            }
        }
    }

    /// Does what is next and says what happened. The first thing is the token: its use is on record before
    /// anything is done with it.
    async fn step(&mut self, promotion: &Promotion) -> Result<PromotionEvent, PromoteError> {
        if self.access.is_none() {
            let (access, source) = self.access(promotion).await?;
            self.access = Some(access);
            return Ok(PromotionEvent::Credential { source });
        }
        match promotion.next_step() {
            PromotionStep::Prepare => self.prepare(promotion).await,
            PromotionStep::BeginPush => Ok(PromotionEvent::PushBegan),
            PromotionStep::Push => self.push(promotion).await,
            PromotionStep::BeginOpen => Ok(match self.kind() {
                Some(ForgeKind::None) | None => PromotionEvent::BranchOnly,
                Some(_) => PromotionEvent::OpenBegan,
            }),
            PromotionStep::Open => self.open(promotion).await,
            PromotionStep::Nothing => Err(broken("it is over")),
        }
    }

    fn kind(&self) -> Option<ForgeKind> {
        self.access.as_ref().map(|(target, _)| target.forge.kind)
    }

    /// Where it goes, and the token of that place: the tenant's own, the platform's, or the operator's.
    pub(super) async fn access(
        &self,
        promotion: &Promotion,
    ) -> Result<((Target, Secret), String), PromoteError> {
        let target = self.promoter.target(&promotion.plan.repo)?;
        let name = &target.forge.token_secret;
        let secrets = &self.engine.inner.config.secrets;
        let given = secrets.forge_token(&promotion.tenant, promotion.dispatch, name).await;
        if let Some(given) = given.map_err(unavailable)? {
            let source = match given.scope {
                SecretScope::Tenant => "tenant",
                SecretScope::Platform => "platform",
            };
            let token = Secret::new(given.value.expose());
            return Ok(((target, token), source.to_owned()));
        }
        let token = self.promoter.operator_token(name.as_str()).ok_or_else(|| {
            let message = format!("There is no token for {}.", target.forge.host);
            let failure = PromotionFailure::new(ErrorCode::ForgeCredentials, message)
                .with_hint(format!("Store one: `outpost secrets set {name}`."));
            PromoteError::Refused(failure)
        })?;
        Ok(((target, token), "environment".to_owned()))
    }

    async fn prepare(&mut self, promotion: &Promotion) -> Result<PromotionEvent, PromoteError> {
        let staged = self.stage(promotion).await?;
        let checked = staged.checked.clone();
        self.staged = Some(staged);
        Ok(PromotionEvent::Prepared(checked))
    }

    async fn stage(&self, promotion: &Promotion) -> Result<Staged, PromoteError> {
        let (bundle, name) = (self.bundle(), self.clone_name(promotion));
        let work = self.work(promotion, &bundle, &name)?;
        Box::pin(self.promoter.stage(work)).await
    }

    async fn push(&mut self, promotion: &Promotion) -> Result<PromotionEvent, PromoteError> {
        let (bundle, name) = (self.bundle(), self.clone_name(promotion));
        let commit = promotion.facts.commit.as_deref().ok_or_else(|| broken("no commit"))?;
        let staged = match self.staged.take() {
            Some(staged) => staged,
            None => {
                // An earlier server may have come as far as this, and further.
                let work = self.work(promotion, &bundle, &name)?;
                if self.promoter.is_pushed(work, commit).await? {
                    return Ok(PromotionEvent::Pushed);
                }
                self.stage(promotion).await?
            }
        };
        if staged.checked.commit != commit {
            return Err(broken("the kept changes are others than were checked"));
        }
        let work = self.work(promotion, &bundle, &name)?;
        let pushed = self.promoter.push(work, &staged, promotion.facts.expected.as_deref()).await;
        if matches!(pushed, Err(PromoteError::Hindered { .. })) {
            self.staged = Some(staged);
        }
        pushed.map(|()| PromotionEvent::Pushed)
    }

    async fn open(&mut self, promotion: &Promotion) -> Result<PromotionEvent, PromoteError> {
        self.staged = None;
        let facts = &promotion.facts;
        let (Some(target), Some(commit)) = (&facts.target_branch, &facts.commit) else {
            return Err(broken("no commit"));
        };
        let (record, kept) = (self.record.clone(), self.engine.kept_dir(promotion.dispatch));
        let told = tokio::task::spawn_blocking(move || run_facts(&record, &kept)).await;
        let told = told.map_err(|_| broken("what is known of the run"))?;
        let body = outpost_promote::compose(promotion, &told);
        let (bundle, name) = (self.bundle(), self.clone_name(promotion));
        let work = self.work(promotion, &bundle, &name)?;
        let opened = Box::pin(self.promoter.open(work, target, commit, &body)).await;
        opened.map(|(pull_request, note)| PromotionEvent::Opened(pull_request, note))
    }

    pub(super) fn work<'a>(
        &'a self,
        promotion: &'a Promotion,
        bundle: &'a std::path::Path,
        name: &'a str,
    ) -> Result<Work<'a>, PromoteError> {
        let (target, token) = self.access.as_ref().ok_or_else(|| broken("no token"))?;
        Ok(Work { target, token, plan: &promotion.plan, bundle, name, since: None })
    }

    pub(super) fn bundle(&self) -> std::path::PathBuf {
        self.engine.kept_dir(self.record.id).join(BUNDLE_FILE)
    }

    pub(super) fn clone_name(&self, promotion: &Promotion) -> String {
        format!("{}-{}", promotion.dispatch, self.epoch)
    }
}

/// What cannot be, said to nobody but the log.
pub(super) fn broken(what: &str) -> PromoteError {
    error!(what, "a promotion is not as it must be");
    let message = "The promotion's record is not as it must be.";
    let failure = PromotionFailure::new(ErrorCode::Internal, message);
    PromoteError::Refused(failure.with_hint("The server's log says more."))
}

fn unavailable(error: SecretError) -> PromoteError {
    let failure = PromotionFailure::new(
        ErrorCode::SecretsUnavailable,
        format!("The token cannot be had: {error}."),
    );
    match error {
        SecretError::Unavailable { .. } => PromoteError::Hindered { failure, pause_millis: None },
        _ => PromoteError::Refused(failure),
    }
}
