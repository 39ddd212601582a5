//! How the operator works, and each tenant: told from outside the repositories.

use std::collections::BTreeMap;

use outpost_types::{ContextKind, TenantId};

use super::{Read, Wanted};

/// Most tenants that have a profile of their own.
pub const PROFILES_COUNT_MAX: usize = 1_000;

/// Profiles that go before a repository's own; nothing by default. At most [`PROFILES_COUNT_MAX`] of them, of at most
/// [`super::CONTEXT_FILE_BYTES_MAX`] each: whoever fills it sees to that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profiles {
    /// For tenants without one of their own.
    pub of_all: Option<Vec<u8>>,
    /// Of these tenants.
    pub of_tenant: BTreeMap<TenantId, Vec<u8>>,
}

impl Profiles {
    /// What is told to the agents of that tenant, as if it were the first file that was read. `None` for nobody in
    /// particular has the operator's.
    #[must_use]
    pub fn of(&self, tenant: Option<&TenantId>) -> Option<Read> {
        let own = tenant.and_then(|tenant| self.of_tenant.get(tenant));
        let (path, text) = match (own, &self.of_all) {
            (Some(text), _) => ("(profile of the tenant)", text),
            (None, Some(text)) => ("(profile of the operator)", text),
            (None, None) => return None,
        };
        let wanted = Wanted { kind: ContextKind::Profile, path: path.to_owned() };
        Some(Read { wanted, bytes: text.len() as u64, content: Ok(text.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use outpost_types::ContextLevel;

    use super::*;
    use crate::{Day, Scrubber, build};

    #[test]
    fn a_profile_from_outside_goes_before_the_repositorys_own() {
        let tenant: TenantId = "acme".parse().unwrap();
        let profiles = Profiles {
            of_all: Some(b"Write short commits.".to_vec()),
            of_tenant: BTreeMap::from([(tenant.clone(), b"Use tabs.".to_vec())]),
        };
        let wanted = Wanted { kind: ContextKind::Profile, path: "PROFILE.md".into() };
        let inside = Read { wanted, bytes: 9, content: Ok(b"Be funny.".to_vec()) };
        let told = |profiles: &Profiles, tenant: Option<&TenantId>| {
            let read: Vec<_> = profiles.of(tenant).into_iter().chain([inside.clone()]).collect();
            let day = Day::of_unix_seconds(0);
            build(ContextLevel::Minimal, day, &read, &[], &Scrubber::default())
        };
        let other: TenantId = "other".parse().unwrap();
        for (who, text, path) in [
            (Some(&tenant), "Use tabs.", "(profile of the tenant)"),
            (Some(&other), "Write short commits.", "(profile of the operator)"),
            (None, "Write short commits.", "(profile of the operator)"),
        ] {
            let view = told(&profiles, who);
            assert!(view.text.contains(text) && !view.text.contains("funny"), "{}", view.text);
            assert_eq!(view.sections[0].path.as_deref(), Some(path));
        }
        assert!(told(&Profiles::default(), Some(&tenant)).text.contains("Be funny."));
    }
}
