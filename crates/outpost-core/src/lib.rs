//! The pure machine: what may happen to a dispatch, who gets a slot, and which workers are kept warm.
//!
//! There is no async, no IO, no clock and no randomness here: a decision is
//! `(state, event, now) -> (state, effects)`, and somebody else carries the effects out. The engine
//! makes a transition durable before it executes any effect of it, which is what keeps an agent
//! from being started twice.

mod budget;
mod dispatch;
mod drain;
mod effect;
mod event;
mod line;
mod notice;
mod placement;
pub mod pool;
mod promote;
mod retention;
mod spec;
mod transition;
mod view;

pub use budget::{
    BadAmount, Budget, BudgetEffect, DayBudget, EndedCall, Nanodollars, Price, Spend,
    THRESHOLD_PERCENT, Tokens, UNPRICED_MODEL_BYTES_MAX, UNPRICED_MODELS_MAX, USD_MAX,
};
pub use dispatch::{Dispatch, Facts, QueueReason, State, Stop};
pub use drain::{Drain, Drains};
pub use effect::{Effect, Transition, effects};
pub use event::{AgentVerdict, Event, ExitFacts, PreparedFacts, ResultFacts};
pub use notice::{
    NOTICE_ID_BYTES_MAX, Notice, budget_notice, notices_of_end, notices_of_promotion,
    retry_wait_millis, test_notice,
};
pub use placement::{Limits, Queue, Slots};
pub use promote::{
    CheckedFacts, CommentKind, FEEDBACK_BYTES_MAX, FEEDBACK_COUNT_MAX, FailedCheck, FeedbackPlan,
    FollowEvent, FollowState, FollowStep, FollowUp, PROMOTE_TRIES_MAX, Promotion, PromotionEvent,
    PromotionFacts, PromotionPlan, PromotionRejection, PromotionState, PromotionStep, PullComment,
    PullLook, PullState, Seen, default_branch, is_branch_name, promote_step,
};
pub use retention::{Kept, RECORD_DAYS_MIN, RETENTION_DAYS_MAX, RetentionRules, days_before};
pub use spec::{
    AgentDefaults, DispatchSpec, Parent, WORKSPACE_USER_DEFAULT, WorkspaceName, changed_network,
    secret_names,
};
pub use transition::{Rejection, provision_backoff_millis, step};
