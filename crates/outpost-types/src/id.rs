//! Ids. Time-ordered ULIDs where order matters; parsed at the edge, never a bare string after it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::TENANT_ID_BYTES_MAX;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not 26 characters of Crockford base 32.
    #[error("not a ULID: expected 26 characters like 01J9Z3NDEKTSV4RRFFQ69G5FAV")]
    NotAUlid,
    /// Empty, too long, or with a character outside `[A-Za-z0-9._-]`.
    #[error("a name is 1 to {0} characters of letters, digits, '.', '_' and '-'")]
    NotAName(usize),
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(ulid::Ulid);

        impl $name {
            /// Made from a time and 80 bits of randomness, both handed in.
            #[must_use]
            pub const fn from_parts(millis: u64, random: u128) -> Self {
                Self(ulid::Ulid::from_parts(millis, random))
            }

            /// Milliseconds since the Unix epoch at which this id was made.
            #[must_use]
            pub const fn millis(self) -> u64 {
                self.0.timestamp_ms()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                ulid::Ulid::from_string(text).map(Self).map_err(|_| IdError::NotAUlid)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

ulid_id!(
    /// One dispatch: a task given to one agent.
    DispatchId
);
ulid_id!(
    /// One API key (never the key itself).
    KeyId
);
ulid_id!(
    /// One webhook.
    WebhookId
);

impl DispatchId {
    /// No id comes after this one.
    pub const LAST: Self = Self(ulid::Ulid(u128::MAX));

    /// The id just before this one, whether or not a dispatch has it; `None` before the first.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        self.0.0.checked_sub(1).map(|number| Self(ulid::Ulid(number)))
    }

    /// The id just after this one, whether or not a dispatch has it; `None` after the last.
    #[must_use]
    pub fn following(self) -> Option<Self> {
        self.0.0.checked_add(1).map(|number| Self(ulid::Ulid(number)))
    }
}

/// One try at a dispatch. Names of everything external (sandbox, cgroup, directory) derive from it,
/// so that a second start of the same attempt collides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptId {
    /// The dispatch it belongs to.
    pub dispatch: DispatchId,
    /// 1 for the first attempt.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.dispatch, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (dispatch, number) = text.split_once('-').ok_or(IdError::NotAUlid)?;
        let number = number.parse().map_err(|_| IdError::NotAUlid)?;
        Ok(Self { dispatch: dispatch.parse()?, number })
    }
}

/// Owner of keys, secrets and dispatches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(String);

impl TenantId {
    /// The tenant of a fresh install.
    #[must_use]
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TenantId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_name(text, TENANT_ID_BYTES_MAX) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::NotAName(TENANT_ID_BYTES_MAX))
        }
    }
}

impl TryFrom<String> for TenantId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> Self {
        id.0
    }
}

/// A short name that is safe in paths, URLs and metric labels: it never starts with a dot or dash.
pub(crate) fn is_name(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::{AttemptId, DispatchId, TenantId};

    #[test]
    fn ids_round_trip_and_sort_by_time() {
        let early = DispatchId::from_parts(1, u128::MAX >> 48);
        let late = DispatchId::from_parts(2, 0);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse::<DispatchId>().unwrap(), early);
        let attempt = AttemptId { dispatch: late, number: 3 };
        assert_eq!(attempt.to_string().parse::<AttemptId>().unwrap(), attempt);
    }

    #[test]
    fn ids_have_neighbours() {
        let id = DispatchId::from_parts(2, 0);
        assert_eq!(id.previous(), Some(DispatchId::from_parts(1, u128::MAX >> 48)));
        let last: DispatchId = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse().unwrap();
        assert_eq!(DispatchId::LAST, last);
        assert_eq!(DispatchId::from_parts(0, 0).previous(), None);
        assert_eq!(DispatchId::from_parts(1, u128::MAX >> 48).following(), Some(id));
        assert_eq!(DispatchId::LAST.following(), None);
    }

    #[test]
    fn hostile_names_are_refused() {
        for text in ["", "..", "-x", "a/b", "a b", "é", "x\n", &"x".repeat(65)] {
            assert!(text.parse::<TenantId>().is_err(), "{text:?}");
        }
        assert!("acme-1".parse::<TenantId>().is_ok());
        assert!("not-a-ulid".parse::<DispatchId>().is_err());
    }
}
