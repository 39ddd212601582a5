//! The machine of a promotion: from the wish to branch and pull request, over crashes at any point.
//!
//! Each step that changes something at the code host is on record before it is taken, and each can be
//! taken again: a push names what it expects to find, and a pull request is looked for before it is
//! opened. Whoever drives a promotion holds its epoch; a new server, and a client that asks again, raise
//! it, so that what an older driver reports changes nothing. Bounded: tries of a step.

mod follow;

use outpost_types::limits::{PROMOTE_BRANCH_BYTES_MAX, PROTECTED_PATHS_COUNT_MAX};
use outpost_types::{
    DispatchId, FollowUpEnd, KeyId, PromotionFailure, PromotionStatus, PromotionView,
    PullRequestView, TenantId, Timestamp,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use follow::follow_step;
pub use follow::{
    CommentKind, FEEDBACK_BYTES_MAX, FEEDBACK_COUNT_MAX, FailedCheck, FeedbackPlan, FollowEvent,
    FollowState, FollowStep, FollowUp, PullComment, PullLook, PullState, Seen,
};

/// Tries of one step before the promotion fails.
pub const PROMOTE_TRIES_MAX: u32 = 6;
/// First pause after a step that failed, milliseconds; it doubles.
const BACKOFF_MILLIS: u64 = 1_000;
/// Longest pause after a step that failed, milliseconds.
const BACKOFF_MILLIS_MAX: u64 = 60_000;
/// Longest words of a task in the name of a branch, bytes.
const SLUG_BYTES_MAX: usize = 40;
/// Most of its last characters that make a dispatch's id short.
const SHORT_ID_CHARS: usize = 8;
/// Most notes.
const NOTES_COUNT_MAX: usize = 8;

/// A promotion as it is stored. Only [`promote_step`] makes a changed one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// The dispatch, which is its id too.
    pub dispatch: DispatchId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The key that last asked for it.
    pub requested_by: KeyId,
    /// Grows by one with every change; a write states the generation it saw.
    pub generation: u64,
    /// Who may report: raised when somebody else takes it over.
    pub epoch: u32,
    /// Tries of the current step that failed.
    pub tries: u32,
    /// Not to be gone on with before this instant.
    pub not_before: Option<Timestamp>,
    /// What was asked for.
    pub plan: PromotionPlan,
    /// How far it is.
    pub state: PromotionState,
    /// What is known.
    pub facts: PromotionFacts,
    /// How its pull request is followed, if it is or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<FollowUp>,
    /// When it was first asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What was asked for, with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromotionPlan {
    /// Address of the repository at the code host, without credentials.
    pub repo: String,
    /// The branch to merge into; none for the default one.
    pub target: Option<String>,
    /// The commit the agent started from.
    pub base_commit: String,
    /// The branch to push.
    pub branch: String,
    /// Title of the pull request.
    pub title: String,
    /// What the client puts before the body.
    pub body: Option<String>,
    /// Whether it is to be a draft.
    pub draft: bool,
    /// Whether protected files may be changed.
    pub allow_protected: bool,
    /// Whether it is pushed although it adds what looks like a secret.
    #[serde(default)]
    pub allow_secrets: bool,
    /// Feedback that goes back to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<FeedbackPlan>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase")]
pub enum PromotionState {
    /// On record; nothing was looked at.
    Requested,
    /// Checked; nothing was sent.
    Prepared,
    /// The push may have happened.
    Pushing,
    /// The branch is there.
    Pushed,
    /// The pull request may have been opened.
    Opening,
    /// Over: it is all there.
    Done,
    /// Over: it is not.
    Failed {
        /// Why.
        failure: PromotionFailure,
    },
}

/// What is known about a promotion beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromotionFacts {
    /// Where the token came from that was last used: `tenant`, `platform` or `environment`.
    pub credential: Option<String>,
    /// Branch to merge into.
    pub target_branch: Option<String>,
    /// The commit that is pushed.
    pub commit: Option<String>,
    /// What the branch held at the code host before the push; none when it was not there.
    pub expected: Option<String>,
    /// Commits of the target branch that the changes do not build on.
    pub behind_by: Option<u64>,
    /// Changed files that run in CI or instruct agents.
    pub protected_paths: Vec<String>,
    /// The branch is there with the commit.
    pub pushed: bool,
    /// The tries to push ended without an answer: it may be there.
    pub may_be_pushed: bool,
    /// The pull request.
    pub pull_request: Option<PullRequestView>,
    /// For a person.
    pub notes: Vec<String>,
}

/// What the checks found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckedFacts {
    /// Branch to merge into.
    pub target_branch: String,
    /// The commit to push.
    pub commit: String,
    /// What the branch holds now.
    pub expected: Option<String>,
    /// Commits of the target branch that the changes do not build on.
    pub behind_by: u64,
    /// Changed files that run in CI or instruct agents, cut to the bound.
    pub protected_paths: Vec<String>,
}

/// What happens to a promotion.
#[derive(Debug, Clone, PartialEq)]
pub enum PromotionEvent {
    /// A client asked again after it failed.
    Again {
        /// What for.
        plan: PromotionPlan,
        /// With which key.
        by: KeyId,
    },
    /// A new server takes it up.
    TakenUp,
    /// A token is about to be used.
    Credential {
        /// Where it came from.
        source: String,
    },
    /// The checks passed.
    Prepared(CheckedFacts),
    /// The push is about to begin.
    PushBegan,
    /// The branch is there with the commit.
    Pushed,
    /// The pull request is about to be looked for and opened.
    OpenBegan,
    /// The pull request is there, with what is worth knowing about it.
    Opened(PullRequestView, Option<String>),
    /// The code host has only branches.
    BranchOnly,
    /// A step failed and trying again may help.
    Hindered {
        /// Why, should it have been the last try.
        failure: PromotionFailure,
        /// How long the code host asks to be left alone, milliseconds.
        pause_millis: Option<u64>,
    },
    /// It cannot be done.
    Failed(PromotionFailure),
    /// A client asks for feedback on the pull request there is; none ends that.
    Watch {
        /// Which.
        plan: Option<FeedbackPlan>,
        /// With which key.
        by: KeyId,
    },
    /// Something happened to the pull request that is followed.
    Follow(FollowEvent),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromotionStep {
    /// Clone, take in the changes, check; then [`PromotionEvent::Prepared`].
    Prepare,
    /// Record [`PromotionEvent::PushBegan`].
    BeginPush,
    /// Push, expecting what is on record or the commit itself; then [`PromotionEvent::Pushed`].
    Push,
    /// Record [`PromotionEvent::OpenBegan`], or [`PromotionEvent::BranchOnly`].
    BeginOpen,
    /// Look for the pull request and open it if there is none; then [`PromotionEvent::Opened`].
    Open,
    /// Nothing: it is over.
    Nothing,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PromotionRejection {
    /// It comes from a driver whose promotion was taken over.
    #[error("it was taken over by another server or request")]
    StaleEpoch,
    /// It does not fit the state.
    #[error("it does not fit the state")]
    OutOfOrder,
}

impl Promotion {
    /// A new one, to be stored before anybody hears of it.
    #[must_use]
    pub const fn new(
        dispatch: DispatchId,
        tenant: TenantId,
        requested_by: KeyId,
        plan: PromotionPlan,
        now: Timestamp,
    ) -> Self {
        Self {
            dispatch,
            tenant,
            requested_by,
            generation: 1,
            epoch: 1,
            tries: 0,
            not_before: None,
            plan,
            state: PromotionState::Requested,
            facts: PromotionFacts {
                credential: None,
                target_branch: None,
                commit: None,
                expected: None,
                behind_by: None,
                protected_paths: Vec::new(),
                pushed: false,
                may_be_pushed: false,
                pull_request: None,
                notes: Vec::new(),
            },
            follow: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// How far it is, as clients see it.
    #[must_use]
    pub const fn status(&self) -> PromotionStatus {
        match &self.state {
            PromotionState::Requested => PromotionStatus::Requested,
            PromotionState::Prepared => PromotionStatus::Prepared,
            PromotionState::Pushing => PromotionStatus::Pushing,
            PromotionState::Pushed => PromotionStatus::Pushed,
            PromotionState::Opening => PromotionStatus::Opening,
            PromotionState::Done => PromotionStatus::Done,
            PromotionState::Failed { .. } => PromotionStatus::Failed,
        }
    }

    /// What is to be done next.
    #[must_use]
    pub const fn next_step(&self) -> PromotionStep {
        match &self.state {
            PromotionState::Requested => PromotionStep::Prepare,
            PromotionState::Prepared => PromotionStep::BeginPush,
            PromotionState::Pushing => PromotionStep::Push,
            PromotionState::Pushed => PromotionStep::BeginOpen,
            PromotionState::Opening => PromotionStep::Open,
            PromotionState::Done | PromotionState::Failed { .. } => PromotionStep::Nothing,
        }
    }

    /// Whether its branch is, or may be, at the code host: then it keeps that name.
    #[must_use]
    pub const fn keeps_branch(&self) -> bool {
        let is_failed = matches!(self.state, PromotionState::Failed { .. });
        !is_failed || self.facts.pushed || self.facts.may_be_pushed
    }

    /// Whether its pull request is followed.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        let follows = self.follow.as_ref().is_some_and(|follow| !follow.is_over());
        follows && matches!(self.state, PromotionState::Done)
    }

    /// Whether nothing happens to it by itself any more.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.status().is_over() && !self.is_followed()
    }

    /// As a client sees it.
    #[must_use]
    pub fn view(&self) -> PromotionView {
        let failure = match &self.state {
            PromotionState::Failed { failure } => Some(failure.clone()),
            _ => None,
        };
        PromotionView {
            dispatch_id: self.dispatch,
            status: self.status(),
            generation: self.generation,
            repo: self.plan.repo.clone(),
            branch: self.plan.branch.clone(),
            target_branch: self.facts.target_branch.clone().or_else(|| self.plan.target.clone()),
            commit: self.facts.commit.clone(),
            behind_by: self.facts.behind_by,
            protected_paths: self.facts.protected_paths.clone(),
            title: self.plan.title.clone(),
            draft: self.plan.draft,
            pull_request: self.facts.pull_request.clone(),
            notes: self.facts.notes.clone(),
            failure,
            follow_up: self.follow.as_ref().map(FollowUp::view),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// Applies an event. `epoch` is that of whoever reports; clients and new servers state none.
///
/// # Errors
/// [`PromotionRejection`] when it changes nothing.
pub fn promote_step(
    before: &Promotion,
    event: PromotionEvent,
    epoch: Option<u32>,
    now: Timestamp,
) -> Result<Promotion, PromotionRejection> {
    use PromotionEvent as E;
    use PromotionState as S;
    if epoch.is_some_and(|epoch| epoch != before.epoch) {
        return Err(PromotionRejection::StaleEpoch);
    }
    let mut next = before.clone();
    next.generation += 1;
    next.updated_at = now;
    match (&before.state, event) {
        (S::Failed { .. }, E::Again { plan, by }) => again(&mut next, plan, by),
        (S::Done, event) => after_done(&mut next, event, now)?,
        (S::Failed { .. }, _) | (_, E::Again { .. } | E::Watch { .. } | E::Follow(_)) => {
            return Err(PromotionRejection::OutOfOrder);
        }
        (_, E::TakenUp) => next.epoch += 1,
        (_, E::Credential { source }) => next.facts.credential = Some(source),
        (state, E::Failed(failure)) => {
            // A push that was refused was not made, and a look said so.
            next.facts.may_be_pushed &= *state != S::Pushing;
            fail(&mut next, failure);
        }
        (_, E::Hindered { failure, pause_millis }) => hinder(&mut next, failure, pause_millis, now),
        (S::Requested, E::Prepared(checked)) => prepared(&mut next, checked),
        (S::Prepared, E::PushBegan) => reach(&mut next, S::Pushing),
        (S::Pushing, E::Pushed) => {
            next.facts.pushed = true;
            reach(&mut next, S::Pushed);
        }
        (S::Pushed, E::OpenBegan) => reach(&mut next, S::Opening),
        (S::Pushed, E::BranchOnly) => reach(&mut next, S::Done),
        (S::Opening, E::Opened(pull_request, note)) => {
            next.facts.notes.extend(note);
            next.facts.pull_request = Some(pull_request);
            reach(&mut next, S::Done);
            next.follow = next.plan.feedback.and_then(|plan| followed(&next, plan, now));
        }
        _ => return Err(PromotionRejection::OutOfOrder),
    }
    Ok(next)
}

/// What may still happen when branch and pull request are there.
fn after_done(
    next: &mut Promotion,
    event: PromotionEvent,
    now: Timestamp,
) -> Result<(), PromotionRejection> {
    use PromotionEvent as E;
    let is_followed = next.is_followed();
    match (event, &next.follow) {
        (E::Watch { plan: Some(plan), by }, _) if !is_followed => {
            let follow = followed(next, plan, now).ok_or(PromotionRejection::OutOfOrder)?;
            next.follow = Some(follow);
            next.plan.feedback = Some(plan);
            next.requested_by = by;
            next.epoch += 1;
        }
        (E::Watch { plan: None, .. }, Some(follow)) if is_followed => {
            let why = FollowUpEnd::Stopped;
            next.follow = Some(follow_step(follow, FollowEvent::Ended { why, message: None })?);
            next.epoch += 1;
        }
        (E::TakenUp, _) if is_followed => next.epoch += 1,
        (E::Credential { source }, _) if is_followed => next.facts.credential = Some(source),
        (E::Follow(event), Some(follow)) => next.follow = Some(follow_step(follow, event)?),
        _ => return Err(PromotionRejection::OutOfOrder),
    }
    Ok(())
}

/// Following begins, or begins once more; none without a pull request.
fn followed(next: &Promotion, plan: FeedbackPlan, now: Timestamp) -> Option<FollowUp> {
    next.facts.pull_request.as_ref()?;
    match &next.follow {
        Some(follow) => Some(follow.renewed(plan, now)),
        None => Some(FollowUp::new(plan, next.facts.commit.clone()?, next.dispatch, now)),
    }
}

fn reach(next: &mut Promotion, state: PromotionState) {
    next.state = state;
    next.tries = 0;
    next.not_before = None;
}

fn fail(next: &mut Promotion, failure: PromotionFailure) {
    reach(next, PromotionState::Failed { failure });
}

fn prepared(next: &mut Promotion, checked: CheckedFacts) {
    let facts = &mut next.facts;
    facts.target_branch = Some(checked.target_branch);
    facts.commit = Some(checked.commit);
    facts.expected = checked.expected;
    facts.behind_by = Some(checked.behind_by);
    facts.protected_paths = checked.protected_paths;
    facts.protected_paths.truncate(PROTECTED_PATHS_COUNT_MAX);
    reach(next, PromotionState::Prepared);
}

/// What was pushed stays so: only the pull request is asked for anew.
fn again(next: &mut Promotion, plan: PromotionPlan, by: KeyId) {
    next.epoch += 1;
    next.requested_by = by;
    next.plan = plan;
    if next.facts.pushed {
        reach(next, PromotionState::Pushed);
    } else {
        let may_be_pushed = next.facts.may_be_pushed;
        next.facts = PromotionFacts { may_be_pushed, ..PromotionFacts::default() };
        reach(next, PromotionState::Requested);
    }
}

fn hinder(next: &mut Promotion, failure: PromotionFailure, pause: Option<u64>, now: Timestamp) {
    next.tries += 1;
    if next.tries >= PROMOTE_TRIES_MAX {
        next.facts.may_be_pushed |= next.state == PromotionState::Pushing;
        return fail(next, failure);
    }
    let doubled = BACKOFF_MILLIS.saturating_mul(1 << next.tries.min(16).saturating_sub(1));
    let pause = pause.unwrap_or(doubled).clamp(BACKOFF_MILLIS, BACKOFF_MILLIS_MAX);
    next.not_before = Some(now.plus_millis(pause));
    if next.facts.notes.len() < NOTES_COUNT_MAX {
        next.facts.notes.push(failure.message);
    }
}

/// The branch of a dispatch that asks for none: `outpost/<words of the task>-<end of the id>`.
#[must_use]
pub fn default_branch(task: &str, id: DispatchId) -> String {
    let mut slug = String::new();
    for c in task.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().chars() {
        if slug.len() >= SLUG_BYTES_MAX {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let id = id.to_string().to_ascii_lowercase();
    let short = &id[id.len().saturating_sub(SHORT_ID_CHARS)..];
    match slug.trim_end_matches('-') {
        "" => format!("outpost/task-{short}"),
        slug => format!("outpost/{slug}-{short}"),
    }
}

/// Whether git takes a text as the name of a branch, and no command takes it for anything else.
#[must_use]
pub fn is_branch_name(name: &str) -> bool {
    let lawful = |c: char| {
        !c.is_control()
            && !matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\')
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let part =
        |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock");
    (1..=PROMOTE_BRANCH_BYTES_MAX).contains(&name.len())
        && name.chars().all(lawful)
        && name.split('/').all(part)
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !matches!(name, "@" | "HEAD")
        && !name.starts_with("refs/")
}

#[cfg(test)]
mod tests;
