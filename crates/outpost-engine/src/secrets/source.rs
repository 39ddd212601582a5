//! Giving values out, to the gateway and to the environment of an attempt.

use async_trait::async_trait;
use outpost_store::{SECRET_USES_MAX, SealedSecret, SecretOwner, SecretUse, StoreError};
use outpost_types::{
    DispatchId, GivenSecret, Provider, SecretError, SecretKind, SecretName, SecretSource, TenantId,
    WantedSecret,
};
use tracing::error;

use super::seal::KeyRing;
use super::{Secrets, Trouble};
use crate::audit::{self, SecretPurpose};

/// Tries of a use that finds a version gone when it is written down.
const TRIES_MAX: u32 = 3;

/// What an attempt asks for.
#[derive(Debug, Clone, Copy)]
enum Wish<'a> {
    /// Every key of a provider.
    Provider(Provider),
    /// These, all of them.
    Exposed(&'a [WantedSecret]),
    /// The one of this name, the tenant's own or else the platform's.
    Forge(&'a SecretName),
}

impl Wish<'_> {
    const fn purpose(self) -> SecretPurpose {
        match self {
            Self::Provider(_) => SecretPurpose::Gateway,
            Self::Exposed(_) => SecretPurpose::Environment,
            Self::Forge(_) => SecretPurpose::Forge,
        }
    }
}

#[async_trait]
impl SecretSource for Secrets {
    async fn provider_credentials(
        &self,
        tenant: &TenantId,
        dispatch: DispatchId,
        provider: Provider,
    ) -> Result<Vec<GivenSecret>, SecretError> {
        self.give(tenant, dispatch, Wish::Provider(provider)).await
    }

    async fn has_provider_credentials(
        &self,
        tenant: &TenantId,
        provider: Provider,
    ) -> Result<bool, SecretError> {
        let found = self.find_all(tenant, Wish::Provider(provider)).await?;
        Ok(!found.is_empty())
    }

    async fn check_exposed(
        &self,
        tenant: &TenantId,
        names: &[SecretName],
    ) -> Result<(), SecretError> {
        let wanted = |name: &SecretName| WantedSecret { name: name.clone(), version: None };
        let wanted: Vec<_> = names.iter().map(wanted).collect();
        self.find_all(tenant, Wish::Exposed(&wanted)).await.map(drop)
    }

    async fn exposed(
        &self,
        tenant: &TenantId,
        dispatch: DispatchId,
        wanted: &[WantedSecret],
    ) -> Result<Vec<GivenSecret>, SecretError> {
        self.give(tenant, dispatch, Wish::Exposed(wanted)).await
    }
}

impl Secrets {
    /// A code host's token by the name of its secret: the tenant's own, else the platform's.
    pub(crate) async fn forge_token(
        &self,
        tenant: &TenantId,
        dispatch: DispatchId,
        name: &SecretName,
    ) -> Result<Option<GivenSecret>, SecretError> {
        let given = self.give(tenant, dispatch, Wish::Forge(name)).await?;
        Ok(given.into_iter().next())
    }

    /// Whether [`Secrets::forge_token`] would find one; nothing is given out.
    pub(crate) async fn has_forge_token(
        &self,
        tenant: &TenantId,
        name: &SecretName,
    ) -> Result<bool, SecretError> {
        Ok(!self.find_all(tenant, Wish::Forge(name)).await?.is_empty())
    }

    /// Finds, opens, writes the use down, and only then gives out.
    async fn give(
        &self,
        tenant: &TenantId,
        dispatch: DispatchId,
        wish: Wish<'_>,
    ) -> Result<Vec<GivenSecret>, SecretError> {
        for _ in 0..TRIES_MAX {
            // What needs no secret does not depend on their key.
            if self.find_all(tenant, wish).await?.is_empty() {
                return Ok(Vec::new());
            }
            let keys = self.ring().await.map_err(|trouble| unavailable(&trouble))?;
            let found = self.find_all(tenant, wish).await?;
            let Some(ring) = keys.as_ref() else { continue };
            let given = open(ring, &found)?;
            drop(keys);
            let uses = self.uses(tenant, dispatch, wish.purpose(), &found);
            match self.note(uses).await {
                Ok(()) => return Ok(given),
                // Removed, or replaced often, since it was found: look again.
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(unavailable(&Trouble::Store(error))),
            }
        }
        Err(SecretError::Unavailable { reason: "they change all the time; try again".to_owned() })
    }

    async fn find_all(
        &self,
        tenant: &TenantId,
        wish: Wish<'_>,
    ) -> Result<Vec<SealedSecret>, SecretError> {
        let owners = [SecretOwner::Tenant(tenant.clone()), SecretOwner::Platform];
        let mut all = Vec::new();
        match wish {
            Wish::Provider(provider) => {
                for owner in &owners {
                    for name in provider.key_variables().iter().filter_map(|name| name.parse().ok())
                    {
                        let found = self.find(owner, &name, None).await?;
                        all.extend(found.filter(|it| it.kind == SecretKind::Injected));
                    }
                }
            }
            Wish::Forge(name) => {
                for owner in &owners {
                    if all.is_empty() {
                        all.extend(self.find(owner, name, None).await?);
                    }
                }
            }
            Wish::Exposed(wanted) => {
                for wanted in wanted {
                    all.push(self.find_exposed(&owners, wanted).await?);
                }
            }
        }
        Ok(all)
    }

    /// The tenant's own, else the platform's.
    async fn find_exposed(
        &self,
        owners: &[SecretOwner],
        WantedSecret { name, version }: &WantedSecret,
    ) -> Result<SealedSecret, SecretError> {
        for owner in owners {
            match self.find(owner, name, *version).await? {
                Some(found) if found.kind == SecretKind::Exposed => return Ok(found),
                Some(_) => return Err(SecretError::NotExposed { name: name.clone() }),
                None => {}
            }
        }
        Err(SecretError::Missing { name: name.clone() })
    }

    async fn find(
        &self,
        owner: &SecretOwner,
        name: &SecretName,
        version: Option<u64>,
    ) -> Result<Option<SealedSecret>, SecretError> {
        match self.store.sealed_secret(owner, name, version).await {
            Ok(found) => Ok(found.map(|(_, sealed)| sealed)),
            Err(StoreError::Corrupt { what }) => Err(damaged(name, what)),
            Err(error) => Err(unavailable(&Trouble::Store(error))),
        }
    }

    fn uses(
        &self,
        tenant: &TenantId,
        dispatch: DispatchId,
        purpose: SecretPurpose,
        found: &[SealedSecret],
    ) -> Vec<SecretUse> {
        let now = self.world.now();
        let used = |sealed: &SealedSecret| SecretUse {
            owner: sealed.owner.clone(),
            name: sealed.name.clone(),
            version: sealed.version,
            audit: audit::of_secret_use(sealed, tenant, dispatch, purpose, now),
        };
        found.iter().map(used).collect()
    }

    /// Writes uses down, as many at once as the store takes.
    async fn note(&self, mut uses: Vec<SecretUse>) -> Result<(), StoreError> {
        while !uses.is_empty() {
            let rest = uses.split_off(uses.len().min(SECRET_USES_MAX));
            self.store.note_secret_uses(std::mem::replace(&mut uses, rest)).await?;
        }
        Ok(())
    }
}

fn open(ring: &KeyRing, found: &[SealedSecret]) -> Result<Vec<GivenSecret>, SecretError> {
    let open = |sealed: &SealedSecret| match ring.open(sealed) {
        Ok(value) => Ok(GivenSecret {
            name: sealed.name.clone(),
            scope: sealed.owner.scope(),
            version: sealed.version,
            value,
        }),
        Err(fault) => Err(damaged(&sealed.name, fault.to_string())),
    };
    found.iter().map(open).collect()
}

fn damaged(name: &SecretName, reason: String) -> SecretError {
    error!(%name, reason, "a secret cannot be decrypted");
    SecretError::Damaged { name: name.clone(), reason }
}

/// What a tenant may hear of it: no path.
fn unavailable(trouble: &Trouble) -> SecretError {
    trouble.log("a dispatch cannot have its secrets");
    let reason = match trouble {
        Trouble::Store(_) => "the records cannot be read or written now",
        _ => "their key is missing or wrong; the server's log says more",
    };
    SecretError::Unavailable { reason: reason.to_owned() }
}
