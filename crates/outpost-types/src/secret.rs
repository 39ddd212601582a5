//! Secrets of tenants and of the platform: names, values, what a client sees, and how a runner gets
//! the values.
//!
//! A value is bounded, never shown by `Debug`, never serialised, and overwritten in memory when it
//! is dropped. Deliberately absent: any operation that gives a value to a client. Copies that a
//! parser, a TLS library or the kernel made on the way are beyond this type.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::limits::{
    PROVIDER_KEY_BYTES_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SECRET_NAME_BYTES_MAX,
};
use crate::{ApiError, DispatchId, Provider, TenantId, Timestamp};

/// Variables by which curl, git, npm, pip and their like find a proxy, or what is reached without one; in the
/// letters a name of a secret has.
const PROXY_VARIABLES: [&str; 5] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY"];

/// A text that is no name of a secret. The text is not repeated: it may be the secret itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the name of a secret is 1 to {SECRET_NAME_BYTES_MAX} characters of A-Z, 0-9 and _, and begins with a letter, such as DATABASE_URL"
)]
pub struct NotASecretName;

/// Name of a secret: like an environment variable, `[A-Z][A-Z0-9_]*`, at most
/// [`SECRET_NAME_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

impl SecretName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The provider whose key has this name.
    #[must_use]
    pub fn provider(&self) -> Option<Provider> {
        let is_its = |provider: &Provider| provider.key_variables().contains(&self.as_str());
        Provider::ALL.into_iter().find(is_its)
    }
}

impl SecretName {
    /// Whether programs read it to find a proxy. In a sandbox that is the gateway's, so no secret may have such
    /// a name and be exposed.
    #[must_use]
    pub fn names_a_proxy(&self) -> bool {
        PROXY_VARIABLES.contains(&self.as_str())
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = NotASecretName;
    fn from_str(text: &str) -> Result<Self, NotASecretName> {
        let fits = (1..=SECRET_NAME_BYTES_MAX).contains(&text.len());
        let lawful = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = text.starts_with(|first: char| first.is_ascii_uppercase());
        if fits && begins && text.bytes().all(lawful) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotASecretName)
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = NotASecretName;
    fn try_from(text: String) -> Result<Self, NotASecretName> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

/// What a secret may be used for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SecretKind {
    /// Only outside the sandbox: the gateway uses it as a provider's key.
    #[default]
    Injected,
    /// Given to the environment of a dispatch that names it: the agent can read it.
    Exposed,
}

impl SecretKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Injected, Self::Exposed];

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Exposed => "exposed",
        }
    }
}

/// Who a secret serves.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SecretScope {
    /// One tenant.
    #[default]
    Tenant,
    /// Every tenant that has no secret of this name; only the operator sees it.
    Platform,
}

impl SecretScope {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tenant, Self::Platform];

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Platform => "platform",
        }
    }
}

impl FromStr for SecretScope {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(())
    }
}

/// A value: text, not yet checked against its bounds. `Debug` does not show it, and it is
/// overwritten in memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Checks the bounds of a secret of this name and kind: [`SECRET_BYTES_MIN`] to
    /// [`SECRET_BYTES_MAX`] bytes without NUL, and for an injected one at most
    /// [`PROVIDER_KEY_BYTES_MAX`] visible ASCII characters, as the gateway sends it in a header.
    ///
    /// # Errors
    /// `invalid_field`, naming `value` and never showing it.
    pub fn check(&self, kind: SecretKind) -> Result<(), ApiError> {
        let text = self.expose();
        let bytes_max = match kind {
            SecretKind::Injected => PROVIDER_KEY_BYTES_MAX,
            SecretKind::Exposed => SECRET_BYTES_MAX,
        };
        if !(SECRET_BYTES_MIN..=bytes_max).contains(&text.len()) {
            let message = format!(
                "`value` must be {SECRET_BYTES_MIN} to {bytes_max} bytes in a secret that is {}.",
                kind.as_str()
            );
            return Err(ApiError::field("value", message));
        }
        let visible = || text.bytes().all(|byte| byte.is_ascii_graphic());
        match kind {
            SecretKind::Injected if !visible() => Err(ApiError::field(
                "value",
                "`value` must be visible ASCII characters in a secret that is injected.",
            )
            .with_hint("The gateway sends it in a header. Was a line break copied with it?")),
            SecretKind::Exposed if text.contains('\0') => {
                Err(ApiError::field("value", "`value` must not contain a NUL character."))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Body of `PUT /secrets/{name}`. Unknown fields are refused by name. It cannot be serialised: a
/// client writes the body by hand, once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutSecret {
    /// The value, 8 to 65,536 bytes; at most 4,096 visible ASCII characters when it is injected. No
    /// answer ever contains it.
    #[schema(value_type = String, min_length = 8, max_length = 65536, write_only)]
    pub value: SecretValue,
    /// What it may be used for; when absent, what it is already, or `injected`.
    #[serde(default)]
    pub kind: Option<SecretKind>,
    /// Whom it serves; `tenant` when absent. `platform` needs the operator's key.
    #[serde(default)]
    pub scope: Option<SecretScope>,
}

/// A secret as a client sees it: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretView {
    /// Its name.
    #[schema(value_type = String, example = "ANTHROPIC_API_KEY")]
    pub name: SecretName,
    /// What it may be used for.
    pub kind: SecretKind,
    /// Whom it serves.
    pub scope: SecretScope,
    /// 1 for the first value, one more for each that replaced it.
    pub version: u64,
    /// When its first value came.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its current value came.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When an attempt was last given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// How often an attempt was given it.
    pub use_count: u64,
    /// The model provider whose key it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "anthropic")]
    pub provider: Option<Provider>,
}

/// Answer to `POST /secrets/rekey`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RekeyView {
    /// Short name of the key that everything is encrypted with now; no secret.
    pub key_id: String,
    /// Values that were encrypted anew, earlier versions included.
    pub versions: u64,
    /// The old key could not be removed from its file, which is not ours to write: remove it there.
    pub old_key_left: bool,
}

/// Which secret a dispatch wants in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSecret {
    /// Its name.
    pub name: SecretName,
    /// The version an earlier server gave the same attempt; `None` for the current one.
    pub version: Option<u64>,
}

/// A value on its way to one attempt. Its use is on record already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenSecret {
    /// Its name.
    pub name: SecretName,
    /// Whose it is.
    pub scope: SecretScope,
    /// Which of its values this is.
    pub version: u64,
    /// The value.
    pub value: SecretValue,
}

/// Why a secret is not given out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// Neither the tenant nor the platform has one of this name (or this version of it).
    #[error("there is no secret {name}; make it with `outpost secrets set {name} --exposed`")]
    Missing {
        /// Which.
        name: SecretName,
    },
    /// It may not enter a sandbox.
    #[error(
        "the secret {name} is only for the gateway; if the agent may read it, set it again with --exposed"
    )]
    NotExposed {
        /// Which.
        name: SecretName,
    },
    /// Its record was damaged or tampered with, or is encrypted with a key that is not here.
    #[error("the secret {name} cannot be decrypted ({reason}); set it again")]
    Damaged {
        /// Which.
        name: SecretName,
        /// What is wrong with it.
        reason: String,
    },
    /// None can be had now.
    #[error("secrets are unavailable: {reason}")]
    Unavailable {
        /// Why, and what to do.
        reason: String,
    },
}

/// Where a runner gets the secrets of an attempt from. Each use is durable before its value is
/// given out, and is in the audit trail.
#[async_trait]
pub trait SecretSource: fmt::Debug + Send + Sync {
    /// The injected keys for `provider`, best first: the tenant's own, then the platform's, each by
    /// the order of [`Provider::key_variables`]. Empty when there is none. Only for the gateway.
    async fn provider_credentials(
        &self,
        tenant: &TenantId,
        dispatch: DispatchId,
        provider: Provider,
    ) -> Result<Vec<GivenSecret>, SecretError>;

    /// Whether [`SecretSource::provider_credentials`] would find any; nothing is given out.
    async fn has_provider_credentials(
        &self,
        tenant: &TenantId,
        provider: Provider,
    ) -> Result<bool, SecretError>;

    /// Whether [`SecretSource::exposed`] would find these; nothing is given out.
    async fn check_exposed(
        &self,
        tenant: &TenantId,
        names: &[SecretName],
    ) -> Result<(), SecretError>;

    /// The exposed secrets a dispatch named, in that order: the tenant's own, else the platform's.
    /// All of them or none.
    async fn exposed(
        &self,
        tenant: &TenantId,
        dispatch: DispatchId,
        wanted: &[WantedSecret],
    ) -> Result<Vec<GivenSecret>, SecretError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_variables() {
        for good in ["A", "A_1", "GEMINI_API_KEY", &"A".repeat(128)] {
            assert_eq!(good.parse::<SecretName>().unwrap().as_str(), good);
        }
        let long = "A".repeat(129);
        for bad in ["", "a", "1A", "_A", "A-B", "A=sk-canary", "Ä", "A\n", " A", "A\0", &long] {
            let error = bad.parse::<SecretName>().unwrap_err();
            assert!(!error.to_string().contains("canary"));
        }
        let name: SecretName = "GROK_API_KEY".parse().unwrap();
        assert_eq!(name.provider(), Some(Provider::Xai));
        let plain = "DATABASE_URL".parse::<SecretName>().unwrap();
        assert!(plain.provider().is_none() && !plain.names_a_proxy());
        assert!("HTTPS_PROXY".parse::<SecretName>().unwrap().names_a_proxy());
    }

    #[test]
    fn a_value_never_shows_itself() {
        let put: PutSecret = serde_json::from_str(r#"{"value":"canary-1"}"#).unwrap();
        assert_eq!((put.value.expose(), put.kind), ("canary-1", None));
        let given = GivenSecret {
            name: "A".parse().unwrap(),
            scope: SecretScope::Tenant,
            version: 1,
            value: put.value.clone(),
        };
        assert!(
            !format!("{put:?}{given:?}{:?}", put.value.check(SecretKind::Exposed))
                .contains("canary")
        );
    }

    #[test]
    fn bounds_depend_on_the_kind_and_the_errors_show_no_value() {
        use SecretKind::{Exposed, Injected};
        let long = "x".repeat(4_097);
        let longest = "x".repeat(65_536);
        let beyond = "x".repeat(65_537);
        for (text, kind, fits) in [
            ("canary7", Injected, false),
            ("canary7", Exposed, false),
            ("canary-8", Injected, true),
            ("canary 8", Injected, false),
            ("canary 8", Exposed, true),
            ("canary\n8", Exposed, true),
            ("canary\u{0}8", Exposed, false),
            ("canary-é", Injected, false),
            (&long, Injected, false),
            (&longest, Exposed, true),
            (&beyond, Exposed, false),
        ] {
            let checked = SecretValue::new(text.to_owned()).check(kind);
            assert_eq!(checked.is_ok(), fits, "{text:.20} {kind:?}");
            if let Err(error) = checked {
                assert_eq!(error.field.as_deref(), Some("value"));
                assert!(!format!("{error:?}").contains("canary"), "{error:?}");
            }
        }
    }
}
