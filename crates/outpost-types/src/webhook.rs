//! Webhooks: addresses that a tenant wants to be told of events, what they are told, and what came of it.
//!
//! Deliveries follow Standard Webhooks: headers `webhook-id`, `webhook-timestamp`, `webhook-signature`; the
//! body is a [`WebhookEvent`]. Each event is delivered at least once, in no fixed order.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, BudgetScope, DispatchId, DispatchStatus, Failure, FollowUpView, Page,
    PromotionFailure, PromotionStatus, PullRequestView, Timestamp, WebhookId,
};

/// Kind of an event that a webhook is told of.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
pub enum WebhookKind {
    /// A dispatch whose agent was started ended; the data is a [`CostRecorded`].
    #[serde(rename = "cost.recorded")]
    CostRecorded,
    /// A dispatch reached its terminal state; the data is a [`DispatchEnded`].
    #[serde(rename = "dispatch.ended")]
    DispatchEnded,
    /// 80 % or all of a budget is spent; the data is a [`BudgetReached`].
    #[serde(rename = "budget.threshold")]
    BudgetThreshold,
    /// Commits of a dispatch are at the code host; the data is a [`PromotionTold`].
    #[serde(rename = "promotion.pushed")]
    PromotionPushed,
    /// A pull request was opened; the data is a [`PromotionTold`].
    #[serde(rename = "promotion.opened")]
    PromotionOpened,
    /// A promotion failed; the data is a [`PromotionTold`].
    #[serde(rename = "promotion.failed")]
    PromotionFailed,
    /// Feedback on a pull request became a dispatch, or it is not followed any more; the data is a
    /// [`PromotionTold`].
    #[serde(rename = "promotion.followed")]
    PromotionFollowed,
    /// Somebody asked for a test; the data is empty. Every webhook is told.
    #[serde(rename = "webhook.test")]
    Test,
}

impl WebhookKind {
    /// Those that a webhook can ask for.
    pub const ALL: [Self; 7] = [
        Self::CostRecorded,
        Self::DispatchEnded,
        Self::BudgetThreshold,
        Self::PromotionPushed,
        Self::PromotionOpened,
        Self::PromotionFailed,
        Self::PromotionFollowed,
    ];

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CostRecorded => "cost.recorded",
            Self::DispatchEnded => "dispatch.ended",
            Self::BudgetThreshold => "budget.threshold",
            Self::PromotionPushed => "promotion.pushed",
            Self::PromotionOpened => "promotion.opened",
            Self::PromotionFailed => "promotion.failed",
            Self::PromotionFollowed => "promotion.followed",
            Self::Test => "webhook.test",
        }
    }
}

impl fmt::Display for WebhookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for WebhookKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let all = Self::ALL.into_iter().chain([Self::Test]);
        all.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// Body of a delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEvent {
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// Kind and content.
    #[serde(flatten)]
    pub data: WebhookData,
}

/// Kind and content of an event; `{"type": …, "data": {…}}` on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum WebhookData {
    /// What a dispatch cost.
    #[serde(rename = "cost.recorded")]
    CostRecorded(Box<CostRecorded>),
    /// How a dispatch ended.
    #[serde(rename = "dispatch.ended")]
    DispatchEnded(Box<DispatchEnded>),
    /// How much of a budget is spent.
    #[serde(rename = "budget.threshold")]
    BudgetThreshold(BudgetReached),
    /// What was pushed.
    #[serde(rename = "promotion.pushed")]
    PromotionPushed(Box<PromotionTold>),
    /// Which pull request was opened.
    #[serde(rename = "promotion.opened")]
    PromotionOpened(Box<PromotionTold>),
    /// Why a promotion failed.
    #[serde(rename = "promotion.failed")]
    PromotionFailed(Box<PromotionTold>),
    /// How a pull request is followed.
    #[serde(rename = "promotion.followed")]
    PromotionFollowed(Box<PromotionTold>),
    /// Nothing.
    #[serde(rename = "webhook.test")]
    Test {},
}

impl WebhookData {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> WebhookKind {
        match self {
            Self::CostRecorded(_) => WebhookKind::CostRecorded,
            Self::DispatchEnded(_) => WebhookKind::DispatchEnded,
            Self::BudgetThreshold(_) => WebhookKind::BudgetThreshold,
            Self::PromotionPushed(_) => WebhookKind::PromotionPushed,
            Self::PromotionOpened(_) => WebhookKind::PromotionOpened,
            Self::PromotionFailed(_) => WebhookKind::PromotionFailed,
            Self::PromotionFollowed(_) => WebhookKind::PromotionFollowed,
            Self::Test {} => WebhookKind::Test,
        }
    }
}

/// What a dispatch used and cost, by the gateway's count. Told once for each dispatch, when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostRecorded {
    /// The dispatch.
    #[schema(value_type = String)]
    pub dispatch_id: DispatchId,
    /// Whose it is.
    pub tenant_id: String,
    /// The `userId` it was dispatched with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Its agent.
    pub agent: String,
    /// The model that was asked for.
    pub model_id: String,
    /// Its repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// How it ended.
    pub status: DispatchStatus,
    /// When its agent was started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub completed_at: Timestamp,
    /// How long its agent ran, milliseconds: from the start of its process until it had ended, or until it was found
    /// that it is lost. Waiting for a slot, preparing, collecting and checks are not in it.
    pub agent_millis: u64,
    /// The same in minutes.
    #[serde(default)]
    pub agent_minutes: f64,
    /// Tokens read, without those from a cache or written to one.
    pub input_tokens: u64,
    /// Tokens read from a cache.
    pub cached_input_tokens: u64,
    /// Tokens written to a cache.
    pub cache_write_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Those of them that were thinking, where the provider says so.
    pub thinking_tokens: u64,
    /// Searches that the provider made of its own for it; where they have a price it is in the cost.
    #[serde(default)]
    pub searches: u64,
    /// Cost of the calls with a known price, US dollars; absent when there is none. Never zero for unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Calls of a model.
    pub calls: u64,
    /// Those of them without a known price: the cost is without them.
    pub unpriced_calls: u64,
    /// Those whose tokens had to be estimated.
    pub estimated_calls: u64,
}

/// How a dispatch ended. Told once for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DispatchEnded {
    /// The dispatch.
    #[schema(value_type = String)]
    pub dispatch_id: DispatchId,
    /// Whose it is.
    pub tenant_id: String,
    /// The `userId` it was dispatched with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Its agent.
    pub agent: String,
    /// Its repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The terminal state.
    pub status: DispatchStatus,
    /// Why it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Exit code of the agent's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Files the agent changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_changed: Option<u32>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub completed_at: Timestamp,
}

/// How much of a budget is spent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetReached {
    /// The dispatch that reached it.
    #[schema(value_type = String)]
    pub dispatch_id: DispatchId,
    /// Whose it is.
    pub tenant_id: String,
    /// Whose budget it is.
    pub scope: BudgetScope,
    /// Spent so far, US dollars.
    pub spent_usd: f64,
    /// The budget, US dollars.
    pub budget_usd: f64,
}

/// How far a promotion is, when that was told. Each step is told once, and each round of feedback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionTold {
    /// The dispatch, which is the promotion's id too.
    #[schema(value_type = String)]
    pub dispatch_id: DispatchId,
    /// Whose it is.
    pub tenant_id: String,
    /// How far it is.
    pub status: PromotionStatus,
    /// Address of the repository at the code host.
    pub repo: String,
    /// The branch.
    pub branch: String,
    /// What the branch holds, once it was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The pull request, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestView>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<PromotionFailure>,
    /// How its pull request is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUpView>,
}

/// Body of `POST /webhooks`. Unknown fields are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWebhook {
    /// Where to deliver: an address with `https` (or `http`, where the operator allows private addresses).
    #[schema(min_length = 1, max_length = 2048, example = "https://example.com/hooks/outpost")]
    pub url: String,
    /// Which events; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 7)]
    pub events: Option<Vec<WebhookKind>>,
}

/// A webhook as its tenant sees it; never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: WebhookId,
    /// Where it is delivered to.
    pub url: String,
    /// Of which events it is told.
    pub events: Vec<WebhookKind>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Answer to `POST /webhooks`: the only time the secret is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedWebhook {
    /// The webhook.
    pub webhook: WebhookView,
    /// What signs its deliveries: `whsec_` and base64. It cannot be read again.
    pub secret: String,
}

impl fmt::Debug for CreatedWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedWebhook").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It will be tried at `dueAt`.
    Waiting,
    /// The receiver answered 2xx.
    Delivered,
    /// Given up; it may be replayed.
    Dead,
}

impl DeliveryState {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Waiting, Self::Delivered, Self::Dead];
        all.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// One event for one webhook, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    /// Its number.
    pub id: u64,
    /// The `webhook-id` header: the same in every try, and for every webhook that is told of this event.
    pub event_id: String,
    /// Kind of the event.
    #[serde(rename = "type")]
    pub kind: WebhookKind,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How far it is.
    pub state: DeliveryState,
    /// Tries since it was made or replayed.
    pub tries: u32,
    /// When it is tried next; only while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub due_at: Option<Timestamp>,
    /// When it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub tried_at: Option<Timestamp>,
    /// What the receiver last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The operations on webhooks, for one caller: only those of his tenant exist for him.
#[async_trait]
pub trait WebhookApi: Send + Sync {
    /// Makes a webhook and the secret that signs its deliveries.
    async fn create_webhook(&self, request: CreateWebhook) -> Result<CreatedWebhook, ApiError>;

    /// All webhooks of the tenant, oldest first; at most [`crate::limits::WEBHOOKS_COUNT_MAX`].
    async fn list_webhooks(&self) -> Result<Vec<WebhookView>, ApiError>;

    /// Removes a webhook with its secret; what waits for it is not delivered any more.
    async fn delete_webhook(&self, id: WebhookId) -> Result<WebhookView, ApiError>;

    /// Queues a test event for it.
    async fn test_webhook(&self, id: WebhookId) -> Result<DeliveryView, ApiError>;

    /// Its deliveries, newest first, with a smaller number than `before`.
    async fn deliveries(
        &self,
        id: WebhookId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Page<DeliveryView>, ApiError>;

    /// Queues a delivery again, whatever came of it.
    async fn replay_delivery(&self, id: WebhookId, delivery: u64)
    -> Result<DeliveryView, ApiError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_flat_and_names_its_kind() {
        let data = WebhookData::Test {};
        let event = WebhookEvent { timestamp: Timestamp::from_millis(0), data };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["type"], event.data.kind().as_str());
        assert_eq!(json["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(serde_json::from_value::<WebhookEvent>(json).unwrap(), event);
    }

    #[test]
    fn debug_shows_no_secret() {
        let webhook = WebhookView {
            id: WebhookId::from_parts(1, 1),
            url: "https://example.com".into(),
            events: vec![WebhookKind::CostRecorded],
            created_at: Timestamp::default(),
        };
        let created = CreatedWebhook { webhook, secret: "whsec_canary".into() };
        assert!(!format!("{created:?}").contains("canary"));
    }

    #[test]
    fn names_are_read_back() {
        for kind in WebhookKind::ALL.into_iter().chain([WebhookKind::Test]) {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for state in [DeliveryState::Waiting, DeliveryState::Delivered, DeliveryState::Dead] {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
