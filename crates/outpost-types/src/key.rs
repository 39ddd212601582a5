//! Who calls, and what a key allows.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{KeyId, TenantId};

/// What a key allows.
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
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Create dispatches.
    Dispatch,
    /// Read one dispatch, its events, logs and files.
    Status,
    /// List dispatches.
    List,
    /// Cancel dispatches.
    Cancel,
    /// Push branches and open pull requests.
    Promote,
    /// Delete workspaces and records.
    Delete,
    /// Everything in its tenant; with a key of the operator's tenant, everything of the server.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 7] = [
        Self::Dispatch,
        Self::Status,
        Self::List,
        Self::Cancel,
        Self::Promote,
        Self::Delete,
        Self::Admin,
    ];

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dispatch => "dispatch",
            Self::Status => "status",
            Self::List => "list",
            Self::Cancel => "cancel",
            Self::Promote => "promote",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(())
    }
}

/// State of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApiKeyStatus {
    /// It works.
    Active,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

/// A caller who is let in, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Who it is.
    pub caller: Arc<Caller>,
    /// Requests that the key may make in a minute; `None` is as the server is set for everybody.
    pub requests_per_minute: Option<u32>,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose dispatches it sees.
    pub tenant: TenantId,
    /// The key it used.
    pub key: KeyId,
    /// What the key allows.
    pub scopes: BTreeSet<Scope>,
}

impl Caller {
    /// Whether the key allows `scope`; `admin` allows everything.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}
