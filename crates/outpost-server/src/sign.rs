//! Signed addresses of artifacts: whoever holds one may read that one file until it expires.
//!
//! HMAC-SHA256 over a fixed prefix and the length-prefixed tenant, dispatch, file name and expiry, so
//! no two different addresses sign the same bytes. The tenant is part of the address: verifying costs
//! no look-up, and a guess reaches no store.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use outpost_types::{DispatchId, TenantId};
use sha2::Sha256;

/// Length of the key, bytes.
const KEY_BYTES: usize = 32;
/// Keeps these signatures apart from any other use of the same key.
const DOMAIN: &[u8] = b"outpost artifact address v1";

/// Secret that signs artifact addresses.
#[derive(Clone)]
pub struct SigningKey([u8; KEY_BYTES]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// From 32 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Signature of one file until `expires` (seconds since the Unix epoch), base64url.
    #[must_use]
    pub fn sign(&self, tenant: &TenantId, id: DispatchId, name: &str, expires: u64) -> String {
        let bytes = self.mac(tenant, id, name, expires).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether `signature` was made by [`Self::sign`] for the same values; constant time.
    #[must_use]
    pub fn verify(
        &self,
        tenant: &TenantId,
        id: DispatchId,
        name: &str,
        expires: u64,
        signature: &str,
    ) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|bytes| self.mac(tenant, id, name, expires).verify_slice(&bytes).is_ok())
    }

    fn mac(&self, tenant: &TenantId, id: DispatchId, name: &str, expires: u64) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(DOMAIN);
        let id = id.to_string();
        for part in [tenant.as_str(), id.as_str(), name] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(&expires.to_be_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_breaks_a_signature() {
        let key = SigningKey::new([7; 32]);
        let (tenant, other) = (TenantId::local(), "acme".parse::<TenantId>().unwrap());
        let (id, id2) = (DispatchId::from_parts(1, 1), DispatchId::from_parts(1, 2));
        let sig = key.sign(&tenant, id, "a/b.txt", 100);
        assert!(key.verify(&tenant, id, "a/b.txt", 100, &sig));
        assert!(!key.verify(&other, id, "a/b.txt", 100, &sig));
        assert!(!key.verify(&tenant, id2, "a/b.txt", 100, &sig));
        assert!(!key.verify(&tenant, id, "a/b.tx", 100, &sig));
        assert!(!key.verify(&tenant, id, "a/b.txt", 101, &sig));
        assert!(!key.verify(&tenant, id, "a/b.txt", 100, ""));
        assert!(!key.verify(&tenant, id, "a/b.txt", 100, &sig[1..]));
        assert!(!SigningKey::new([8; 32]).verify(&tenant, id, "a/b.txt", 100, &sig));
    }

    #[test]
    fn debug_hides_the_key() {
        assert_eq!(format!("{:?}", SigningKey::new([7; 32])), "SigningKey(…)");
    }
}
