//! What goes into the audit log: one entry per change of state, in the transaction that makes it.

use outpost_core::Dispatch;
use outpost_store::{ApiKeyRecord, AuditEntry};
use outpost_types::{KeyId, Timestamp};
use serde_json::json;

/// The entry for an accepted dispatch. Never the task text: the record has it, the log is exported.
pub(crate) fn of_accept(dispatch: &Dispatch, actor: KeyId) -> AuditEntry {
    AuditEntry {
        at: dispatch.created_at,
        tenant: dispatch.tenant.clone(),
        actor: Some(actor),
        action: "dispatch.accepted",
        subject: dispatch.id.to_string(),
        detail: json!({ "agent": dispatch.spec.agent, "model": dispatch.spec.model_id }),
    }
}

/// The entry for a transition; `actor` is the key that asked for it, `None` the engine itself.
pub(crate) fn of_transition(
    before: &Dispatch,
    after: &Dispatch,
    actor: Option<KeyId>,
    at: Timestamp,
) -> AuditEntry {
    AuditEntry {
        at,
        tenant: after.tenant.clone(),
        actor,
        action: "dispatch.changed",
        subject: after.id.to_string(),
        detail: json!({
            "from": before.status(),
            "to": after.status(),
            "attempt": after.attempt,
            "failure": after.failure().map(|failure| failure.code),
        }),
    }
}

/// The entry for a key that was made by the install itself.
pub(crate) fn of_new_key(key: &ApiKeyRecord) -> AuditEntry {
    AuditEntry {
        at: key.created_at,
        tenant: key.tenant.clone(),
        actor: None,
        action: "key.created",
        subject: key.id.to_string(),
        detail: json!({ "prefix": key.prefix, "scopes": key.scopes }),
    }
}
