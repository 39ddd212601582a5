//! API keys: the secret itself (only ever in memory), its hash, and the record that is kept.
//!
//! A key is `otp_` and 64 lower-case hexadecimal digits: 256 random bits, so a plain SHA-256 of it
//! needs no salt and no slow hash. Only the hash and the first characters are stored.

use std::collections::BTreeSet;
use std::fmt;

use outpost_types::limits::NAME_BYTES_MAX;
use outpost_types::{ApiKeyStatus, KeyId, Scope, TenantId, Timestamp};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{AuditEntry, StoreError};

/// Characters of a key that are kept to recognise it by: 44 of its 256 random bits, 212 stay secret.
pub const API_KEY_PREFIX_CHARS: usize = 15;
/// Most keys of one answer.
pub const KEYS_ROWS_MAX: u32 = 101;
/// Most keys of one [`crate::ApiKeys::touch_keys`].
pub const KEY_TOUCHES_MAX: usize = 1_024;
const MARK: &str = "otp_";
const HEX_CHARS: usize = 64;

/// A text that is no API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an API key: expected otp_ and 64 lower-case hexadecimal digits")]
pub struct NotAKey;

/// An API key in the clear. Shown once to its owner, never stored, never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// SHA-256 of a key: what the store finds it by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// `apiKeyId`.
    pub id: KeyId,
    /// `tenantId`: whose it is.
    pub tenant: TenantId,
    /// `keyHash`.
    pub hash: KeyHash,
    /// `keyPrefix`: its first [`API_KEY_PREFIX_CHARS`] characters.
    pub prefix: String,
    /// What its owner calls it; empty for those that the install makes itself.
    pub name: String,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// Whether it works.
    pub status: ApiKeyStatus,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it does not work any more.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as written down.
    pub last_used_at: Option<Timestamp>,
    /// How often it was used, as far as written down.
    pub usage_count: u64,
}

/// A new key in the place of another one.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaceKey {
    /// The key that goes.
    pub old: KeyId,
    /// How long it goes on working, never longer than it would have; `None` takes it back at once.
    pub until: Option<Timestamp>,
    /// The key that comes, of the same tenant.
    pub next: ApiKeyRecord,
    /// The entry that tells of both.
    pub audit: AuditEntry,
}

/// Use of a key since it was last written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTouch {
    /// Which key; an unknown one is passed over.
    pub id: KeyId,
    /// Its last use; an earlier one than is known changes nothing.
    pub last_used: Timestamp,
    /// Uses to add.
    pub count: u64,
}

impl ApiKey {
    /// A key of 256 random bits, handed in.
    #[must_use]
    pub fn generate(random: [u8; 32]) -> Self {
        let mut text = String::with_capacity(MARK.len() + HEX_CHARS);
        text.push_str(MARK);
        push_hex(&mut text, &random);
        Self(text)
    }

    /// Reads a key as a client sent it.
    ///
    /// # Errors
    /// [`NotAKey`] when it does not have the form of one.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let digits = text.strip_prefix(MARK).ok_or(NotAKey)?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() == HEX_CHARS && digits.bytes().all(lower_hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAKey)
        }
    }

    /// What the store finds it by.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// What its owner recognises it by.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0[..API_KEY_PREFIX_CHARS]
    }

    /// The secret itself, to show once or to keep in a file of mode 0600.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(otp_…)")
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        push_hex(&mut text, &self.0[..4]);
        write!(f, "KeyHash({text}…)")
    }
}

impl ApiKeyRecord {
    /// A fresh, active record of `key`.
    #[must_use]
    pub fn new(
        id: KeyId,
        tenant: TenantId,
        key: &ApiKey,
        scopes: BTreeSet<Scope>,
        created_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Self {
        Self {
            id,
            tenant,
            hash: key.hash(),
            prefix: key.prefix().to_owned(),
            name: String::new(),
            scopes,
            status: ApiKeyStatus::Active,
            created_at,
            expires_at,
            last_used_at: None,
            usage_count: 0,
        }
    }

    /// The same key with a name.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Whether a request with this key is let in at `now`.
    #[must_use]
    pub fn works_at(&self, now: Timestamp) -> bool {
        self.status == ApiKeyStatus::Active && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Refuses what no version of the store could keep.
pub(crate) fn check_key(key: &ApiKeyRecord) -> Result<(), StoreError> {
    if key.name.len() > NAME_BYTES_MAX {
        return Err(StoreError::invalid("key.name", format!("at most {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// The old key once `replace` was written.
pub(crate) fn replaced(
    old: &ApiKeyRecord,
    replace: &ReplaceKey,
) -> Result<ApiKeyRecord, StoreError> {
    if old.tenant != replace.next.tenant {
        return Err(StoreError::NotFound);
    }
    if !old.works_at(replace.next.created_at) {
        let status = match old.status {
            ApiKeyStatus::Active => ApiKeyStatus::Expired,
            status => status,
        };
        return Err(StoreError::Final { status: status_name(status) });
    }
    let mut old = old.clone();
    match replace.until {
        None => old.status = ApiKeyStatus::Revoked,
        Some(until) => {
            old.expires_at = Some(old.expires_at.map_or(until, |end| end.min(until)));
        }
    }
    Ok(old)
}

/// Whether a key may go from one state to another: `Ok(false)` when it is there already.
pub(crate) fn change_status(from: ApiKeyStatus, to: ApiKeyStatus) -> Result<bool, StoreError> {
    use ApiKeyStatus::{Active, Expired, Revoked};
    match (from, to) {
        (Active, Active) | (Revoked, Revoked) | (Expired, Expired) => Ok(false),
        (Active, _) | (Expired, Revoked) => Ok(true),
        (Revoked | Expired, _) => Err(StoreError::Final { status: status_name(from) }),
    }
}

pub(crate) const fn status_name(status: ApiKeyStatus) -> &'static str {
    match status {
        ApiKeyStatus::Active => "active",
        ApiKeyStatus::Revoked => "revoked",
        ApiKeyStatus::Expired => "expired",
    }
}

pub(crate) fn status_of(name: &str) -> Option<ApiKeyStatus> {
    use ApiKeyStatus::{Active, Expired, Revoked};
    [Active, Revoked, Expired].into_iter().find(|status| status_name(*status) == name)
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_and_never_shows_itself() {
        let key = ApiKey::generate([0xab; 32]);
        assert_eq!(key.expose(), format!("otp_{}", "ab".repeat(32)));
        assert_eq!(ApiKey::parse(key.expose()), Ok(key.clone()));
        assert_eq!(key.prefix(), "otp_abababababa");
        assert!(!format!("{key:?}").contains("ab"));
        assert_eq!(format!("{:?}", key.hash()).len(), "KeyHash(00000000…)".len());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let short = format!("otp_{}", "a".repeat(63));
        let upper = format!("otp_{}", "A".repeat(64));
        let wide = format!("otp_{}", "é".repeat(32));
        for text in ["", "otp_", "sk-1", &short, &upper, &wide] {
            assert_eq!(ApiKey::parse(text), Err(NotAKey), "{text}");
        }
    }

    #[test]
    fn a_revoked_key_never_comes_back() {
        use ApiKeyStatus::{Active, Expired, Revoked};
        assert!(change_status(Active, Revoked).unwrap());
        assert!(change_status(Expired, Revoked).unwrap());
        assert!(!change_status(Revoked, Revoked).unwrap());
        for (from, to) in [(Revoked, Active), (Revoked, Expired), (Expired, Active)] {
            assert!(change_status(from, to).is_err());
        }
    }
}
