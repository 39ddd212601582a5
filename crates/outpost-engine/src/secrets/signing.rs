//! Secrets that sign the deliveries of webhooks: sealed like all others, opened only to sign.

use outpost_store::{Envelope, SecretOwner, SecretRecord};
use outpost_types::{ApiError, Caller, SecretKind, SecretName, SecretValue, WebhookId};

use super::Secrets;

/// Their name: each webhook has one.
const NAME: &str = "SIGNING_SECRET";

impl Secrets {
    /// Seals the secret of a new webhook; whoever stores the webhook stores it.
    pub(crate) async fn seal_signing(
        &self,
        caller: &Caller,
        id: WebhookId,
        value: &SecretValue,
    ) -> Result<(SecretRecord, Envelope), ApiError> {
        let now = self.world.now();
        let record = SecretRecord {
            owner: SecretOwner::webhook(id),
            name: name(),
            kind: SecretKind::Injected,
            version: 1,
            created_at: now,
            updated_at: now,
            last_used_at: None,
            use_count: 0,
        };
        let ring = self.ring_or_new().await.map_err(|trouble| trouble.answer(caller))?;
        let envelope = ring.seal(&record, value, self.nonce());
        Ok((record, envelope))
    }

    /// The secret of a webhook, to sign with; or why not, for its tenant.
    pub(crate) async fn open_signing(&self, id: WebhookId) -> Result<SecretValue, String> {
        let keys = self.ring().await.map_err(|trouble| {
            trouble.log("webhooks cannot be signed");
            "its secret is unavailable on this server now".to_owned()
        })?;
        let found = self.store.sealed_secret(&SecretOwner::webhook(id), &name(), None).await;
        let damaged = || "its secret cannot be read; make the webhook anew".to_owned();
        let Ok(Some((_, sealed))) = found else { return Err(damaged()) };
        let ring = keys.as_ref().ok_or_else(damaged)?;
        ring.open(&sealed).map_err(|_| damaged())
    }
}

fn name() -> SecretName {
    NAME.parse().expect("a well-formed name")
}
