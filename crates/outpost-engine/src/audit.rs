//! What goes into the audit log: one entry per change of state, in the transaction that makes it.

use outpost_core::{Dispatch, Promotion};
use outpost_store::{ApiKeyRecord, AuditEntry, Ended, SealedSecret, SecretRecord};
use outpost_types::{Caller, DispatchId, KeyId, TenantId, Timestamp};
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
    let (from, to) = (before.network(), after.network());
    let (action, detail) = if from == to {
        let detail = json!({
            "from": before.status(),
            "to": after.status(),
            "attempt": after.attempt,
            "failure": after.failure().map(|failure| failure.code),
        });
        ("dispatch.changed", detail)
    } else {
        ("dispatch.network", json!({ "from": from, "to": to, "attempt": after.attempt }))
    };
    let (tenant, subject) = (after.tenant.clone(), after.id.to_string());
    AuditEntry { at, tenant, actor, action, subject, detail }
}

/// The entry for a record that had its time.
pub(crate) fn of_expired(ended: &Ended, at: Timestamp) -> AuditEntry {
    AuditEntry {
        at,
        tenant: ended.tenant.clone(),
        actor: None,
        action: "dispatch.expired",
        subject: ended.id.to_string(),
        detail: json!({ "endedAt": ended.ended_at }),
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

/// The entry for a promotion that was begun, or changed; `actor` is the key that asked for it.
pub(crate) fn of_promotion(
    before: Option<&Promotion>,
    after: &Promotion,
    actor: Option<KeyId>,
) -> AuditEntry {
    let from = before.map(Promotion::status);
    let used = before.is_some_and(|before| before.facts.credential != after.facts.credential);
    let action = match from {
        None => "promotion.requested",
        Some(_) if used && after.facts.credential.is_some() => "promotion.credential",
        Some(_)
            if before.is_some_and(|before| before.follow != after.follow)
                && from == Some(after.status()) =>
        {
            "promotion.followed"
        }
        Some(_) => "promotion.changed",
    };
    let view = after.view();
    let failure = view.failure.map(|failure| failure.code);
    let follow = view.follow_up.map(|follow| {
        json!({
            "status": follow.status, "round": follow.rounds_used, "dispatch": follow.dispatch_id,
            "commit": follow.commit, "ended": follow.ended,
        })
    });
    AuditEntry {
        at: after.updated_at,
        tenant: after.tenant.clone(),
        actor,
        action,
        subject: after.dispatch.to_string(),
        detail: json!({
            "from": from, "to": after.status(), "epoch": after.epoch, "repo": after.plan.repo,
            "branch": after.plan.branch, "commit": after.facts.commit, "failure": failure,
            "credential": after.facts.credential, "allowProtected": after.plan.allow_protected,
            "allowSecrets": after.plan.allow_secrets, "followUp": follow,
            "pullRequest": after.facts.pull_request.as_ref().map(|it| it.number),
        }),
    }
}

/// What a secret was given out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretPurpose {
    /// A provider's key, outside the sandbox.
    Gateway,
    /// The environment of the agent.
    Environment,
    /// A code host's token, outside the sandbox.
    Forge,
}

/// The entry for a secret that was set or removed. Never its value.
pub(crate) fn of_secret(
    action: &'static str,
    record: &SecretRecord,
    tenant: &TenantId,
    actor: Option<KeyId>,
    at: Timestamp,
) -> AuditEntry {
    AuditEntry {
        at,
        tenant: tenant.clone(),
        actor,
        action,
        subject: record.name.to_string(),
        detail: json!({
            "scope": record.owner.scope(), "kind": record.kind, "version": record.version,
        }),
    }
}

/// The entry for a secret that an attempt of a dispatch is given.
pub(crate) fn of_secret_use(
    sealed: &SealedSecret,
    tenant: &TenantId,
    dispatch: DispatchId,
    purpose: SecretPurpose,
    at: Timestamp,
) -> AuditEntry {
    let purpose = match purpose {
        SecretPurpose::Gateway => "gateway",
        SecretPurpose::Environment => "environment",
        SecretPurpose::Forge => "forge",
    };
    AuditEntry {
        at,
        tenant: tenant.clone(),
        actor: None,
        action: "secret.used",
        subject: sealed.name.to_string(),
        detail: json!({
            "scope": sealed.owner.scope(), "version": sealed.version,
            "dispatch": dispatch, "purpose": purpose,
        }),
    }
}

/// The entry for a rekey; without a caller it is one that an earlier server began.
pub(crate) fn of_rekey(caller: Option<&Caller>, at: Timestamp) -> AuditEntry {
    AuditEntry {
        at,
        tenant: TenantId::local(),
        actor: caller.map(|caller| caller.key),
        action: "secret.rekeyed",
        subject: "secrets".to_owned(),
        detail: json!({}),
    }
}
