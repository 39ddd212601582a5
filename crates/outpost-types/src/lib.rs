//! The nouns of Outpost: ids, states, limits, error codes, wire types and the [`Api`] trait.
//!
//! Everything here is plain data with serde and an OpenAPI schema; there is no tokio, no IO and no
//! clock. Wire types (`*View`, `*Request`) are what a client sees; the records the machine decides
//! on live in `outpost-core`, and the conversion between the two is explicit.

mod agent;
mod api;
mod api_key;
mod artifact;
mod audit;
mod context;
mod dispatch;
mod error;
mod event;
mod failure;
mod feedback;
mod fleet;
mod hex;
mod id;
mod key;
pub mod limits;
mod page;
mod promote;
mod secret;
mod status;
mod tenant;
mod time;
mod usage;
mod webhook;
mod workspace;

pub use agent::{AgentId, BuiltinAgent, Provider, Resources, Tier};
pub use api::{Api, ByteStream, EventStream, LogQuery, LogStream};
pub use api_key::{CreateKey, CreatedKey, KeyQuery, KeyView, KeysApi, RotateKey};
pub use artifact::{ArtifactPreview, ArtifactView};
pub use audit::{
    AuditActor, AuditApi, AuditCheck, AuditQuery, AuditView, ExportAudit, VerifyAudit,
};
pub use context::{
    ContextKind, ContextSection, ContextSkip, ContextSkipReason, ContextTrim, ContextView,
};
pub use dispatch::{
    CancelRequest, CheckResult, ContextLevel, Created, DispatchRequest, DispatchView, Isolation,
    Network, NetworkLevel, NetworkRequest, PhaseTimings, Priority, Usage, WorkspaceMode,
};
pub use error::{ApiError, ErrorCode, Problem};
pub use event::{Attention, BudgetScope, EventData, EventEnvelope, LogStreamName, ToolPhase};
pub use failure::{Failure, FailureCode};
pub use feedback::{Feedback, FollowUpEnd, FollowUpStatus, FollowUpView};
pub use fleet::{
    AgentAvailability, AgentView, DrainRequest, DrainView, FleetApi, FleetView, Health, PoolView,
    ResumeRequest,
};
pub use hex::hex;
pub use id::{AttemptId, DispatchId, IdError, KeyId, TenantId, WebhookId};
pub use key::{Admission, ApiKeyStatus, Caller, Scope};
pub use page::{ListQuery, Page};
pub use promote::{
    PromoteApi, PromoteRequest, Promoted, PromotionFailure, PromotionStatus, PromotionView,
    PullRequestView,
};
pub use secret::{
    GivenSecret, NotASecretName, PutSecret, RekeyView, SecretError, SecretKind, SecretName,
    SecretScope, SecretSource, SecretValue, SecretView, WantedSecret,
};
pub use status::{DispatchStatus, UnknownStatus};
pub use tenant::{
    CreateTenant, TenantQuery, TenantQuotas, TenantStatus, TenantView, TenantsApi, UpdateTenant,
};
pub use time::Timestamp;
pub use usage::{
    Day, NotADay, UsageGroup, UsageLine, UsageQuery, UsageReport, UsageSum, fits_a_report, minutes,
};
pub use webhook::{
    BudgetReached, CostRecorded, CreateWebhook, CreatedWebhook, DeliveryState, DeliveryView,
    DispatchEnded, PromotionTold, WebhookApi, WebhookData, WebhookEvent, WebhookKind, WebhookView,
};
pub use workspace::{WorkspaceView, is_workspace_id};
