//! Sealing: AES-256-GCM with a random nonce for each value, bound to whose it is, its name, version
//! and kind, when the secret was made, and the key.
//!
//! A value put in the place of another one, of another version, tenant or kind, does not open. 2^32
//! values may be sealed with one key before nonces of 96 random bits may repeat (NIST SP 800-38D,
//! 8.3); a store is bounded far below that. Absent: any protection against an older copy of the whole
//! database, which is as good as the newer one to whoever has only that.

use std::fmt;
use std::sync::Arc;

use outpost_store::{Envelope, SECRET_KEY_ID_BYTES, SealedSecret, SecretRecord};
use outpost_types::SecretValue;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Most keys of a file: the one that seals, and earlier ones that still open.
pub(super) const KEYS_COUNT_MAX: usize = 8;
/// First byte of an envelope; changes with the layout.
const ENVELOPE_VERSION: u8 = 1;
/// First bytes of what a value is bound to; changes with the layout.
const DOMAIN: &[u8] = b"outpost-secret-1\n";
/// First bytes of what names a key.
const KEY_ID_DOMAIN: &[u8] = b"outpost-secret-key-id-1\n";
/// First line of the file.
const FILE_HEAD: &str = "# Outpost encrypts secrets with the first key and decrypts with all. \
                         Without this file they are lost.\n";

/// Why a value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum OpenFault {
    /// None of the keys here is the one.
    #[error("it was encrypted with a key that is not in the key file")]
    UnknownKey,
    /// It is not what was sealed under this name, version and kind.
    #[error("it is not what was stored under this name and version")]
    Changed,
}

/// A text that is no key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected 1 to {KEYS_COUNT_MAX} lines of 64 hexadecimal digits")]
pub(super) struct NotKeys;

/// One key, overwritten in memory when it is dropped.
#[derive(Clone)]
struct Key {
    id: [u8; SECRET_KEY_ID_BYTES],
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

/// The keys of one file, the one that seals first; never empty. `Debug` shows their short names only.
#[derive(Clone)]
pub(super) struct KeyRing(Arc<Vec<Key>>);

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let digest = Sha256::new().chain_update(KEY_ID_DOMAIN).chain_update(*bytes).finalize();
        let mut id = [0; SECRET_KEY_ID_BYTES];
        id.copy_from_slice(&digest[..SECRET_KEY_ID_BYTES]);
        Self { id, bytes }
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &*self.bytes).expect("a key of the right length");
        LessSafeKey::new(key)
    }
}

impl KeyRing {
    /// A single key.
    pub(super) fn of(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(Arc::new(vec![Key::new(bytes)]))
    }

    /// The same with one more key, which seals from now on.
    pub(super) fn with_new(&self, bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(Arc::new(std::iter::once(Key::new(bytes)).chain(self.0.iter().cloned()).collect()))
    }

    /// Only the key that seals.
    pub(super) fn newest(&self) -> Self {
        Self(Arc::new(self.0[..1].to_vec()))
    }

    /// Whether there are earlier keys.
    pub(super) fn has_old(&self) -> bool {
        self.0.len() > 1
    }

    /// Short name of the key that seals.
    pub(super) fn id(&self) -> [u8; SECRET_KEY_ID_BYTES] {
        self.0[0].id
    }

    /// Whether it has the key of that name.
    pub(super) fn knows(&self, id: [u8; SECRET_KEY_ID_BYTES]) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> Result<Self, NotKeys> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines = lines.filter(|line| !line.starts_with('#'));
        let keys = lines.map(|line| from_hex(line).map(Key::new)).collect::<Result<Vec<_>, _>>()?;
        if (1..=KEYS_COUNT_MAX).contains(&keys.len()) {
            Ok(Self(Arc::new(keys)))
        } else {
            Err(NotKeys)
        }
    }

    /// The text of a file.
    pub(super) fn text(&self) -> Zeroizing<String> {
        let bytes = FILE_HEAD.len() + self.0.len() * (2 * KEY_BYTES + 1);
        // Large enough from the start: growing would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(bytes));
        text.push_str(FILE_HEAD);
        for key in self.0.iter() {
            for byte in *key.bytes {
                text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
                text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
            }
            text.push('\n');
        }
        text
    }

    /// Seals a value for the place that `record` names. `nonce` is random and used once.
    pub(super) fn seal(
        &self,
        record: &SecretRecord,
        value: &SecretValue,
        nonce: [u8; NONCE_LEN],
    ) -> Envelope {
        let key = &self.0[0];
        let text = value.expose().as_bytes();
        let head = 1 + NONCE_LEN;
        let mut sealed = Zeroizing::new(Vec::with_capacity(text.len() + AES_256_GCM.tag_len()));
        sealed.extend_from_slice(text);
        let bound = bound_to(record, key.id);
        key.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound),
                &mut *sealed,
            )
            .expect("a value of bounded length");
        let mut bytes = Vec::with_capacity(head + sealed.len());
        bytes.push(ENVELOPE_VERSION);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Envelope { key_id: key.id, bytes }
    }

    /// Opens a value.
    ///
    /// # Errors
    /// [`OpenFault`] when it is not what was sealed for this place, or with none of these keys.
    pub(super) fn open(&self, sealed: &SealedSecret) -> Result<SecretValue, OpenFault> {
        let id = sealed.envelope.key_id;
        let key = self.0.iter().find(|key| key.id == id).ok_or(OpenFault::UnknownKey)?;
        let (version, rest) = sealed.envelope.bytes.split_first().ok_or(OpenFault::Changed)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(OpenFault::Changed)?;
        if *version != ENVELOPE_VERSION {
            return Err(OpenFault::Changed);
        }
        let mut buffer = Zeroizing::new(rest.to_vec());
        let text = key
            .cipher()
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(bound_to(&place_of(sealed), id)),
                &mut buffer,
            )
            .map_err(|_| OpenFault::Changed)?;
        let text = std::str::from_utf8(text).map_err(|_| OpenFault::Changed)?;
        Ok(SecretValue::new(text.to_owned()))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| short_name(key.id))).finish()
    }
}

/// The name of a key as people see it.
pub(super) fn short_name(id: [u8; SECRET_KEY_ID_BYTES]) -> String {
    format!("{:016x}", u64::from_be_bytes(id))
}

/// The place of a sealed value, as far as it is bound to it.
pub(super) fn place_of(sealed: &SealedSecret) -> SecretRecord {
    SecretRecord {
        owner: sealed.owner.clone(),
        name: sealed.name.clone(),
        kind: sealed.kind,
        version: sealed.version,
        created_at: sealed.created_at,
        updated_at: sealed.created_at,
        last_used_at: None,
        use_count: 0,
    }
}

/// What a value is bound to, each text with its length in front, so that no two places are the same.
fn bound_to(record: &SecretRecord, key_id: [u8; SECRET_KEY_ID_BYTES]) -> Vec<u8> {
    let texts = [
        record.owner.scope().as_str(),
        record.owner.as_str(),
        record.name.as_str(),
        record.kind.as_str(),
    ];
    let mut bytes = DOMAIN.to_vec();
    bytes.push(ENVELOPE_VERSION);
    bytes.extend_from_slice(&key_id);
    bytes.extend_from_slice(&record.version.to_be_bytes());
    bytes.extend_from_slice(&record.created_at.as_millis().to_be_bytes());
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn from_hex(text: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, NotKeys> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return Err(NotKeys);
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(NotKeys);
        let (high, low) = (digit(pair[0])?, digit(pair[1])?);
        *byte = u8::try_from(high * 16 + low).map_err(|_| NotKeys)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use outpost_store::SecretOwner;
    use outpost_types::{SecretKind, Timestamp};

    use super::*;

    fn ring(seed: u8) -> KeyRing {
        KeyRing::of(Zeroizing::new([seed; KEY_BYTES]))
    }

    fn sealed(ring: &KeyRing, name: &str, version: u64, value: &str) -> SealedSecret {
        let mut sealed = SealedSecret {
            owner: SecretOwner::Tenant("acme".parse().unwrap()),
            name: name.parse().unwrap(),
            version,
            kind: SecretKind::Injected,
            created_at: Timestamp::from_millis(5),
            envelope: Envelope { key_id: [0; 8], bytes: Vec::new() },
        };
        let value = SecretValue::new(value.to_owned());
        sealed.envelope = ring.seal(&place_of(&sealed), &value, [version as u8; NONCE_LEN]);
        sealed
    }

    #[test]
    fn what_was_sealed_opens_and_shows_nothing() {
        let ring = ring(1);
        for value in ["", "canary-1", &"é".repeat(32_768)] {
            let sealed = sealed(&ring, "A", 1, value);
            assert_eq!(ring.open(&sealed).unwrap().expose(), value);
            let shown = String::from_utf8_lossy(&sealed.envelope.bytes).into_owned();
            assert!(value.is_empty() || !shown.contains(value));
        }
        assert!(!format!("{ring:?}").contains("0101"), "{ring:?}");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let ring = ring(1);
        let good = sealed(&ring, "A", 1, "canary-1");
        for bit in 0..good.envelope.bytes.len() * 8 {
            let mut bad = good.clone();
            bad.envelope.bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ring.open(&bad), Err(OpenFault::Changed), "bit {bit}");
        }
        for length in 0..good.envelope.bytes.len() {
            let mut bad = good.clone();
            bad.envelope.bytes.truncate(length);
            assert_eq!(ring.open(&bad), Err(OpenFault::Changed), "{length} bytes");
        }
    }

    #[test]
    fn a_value_opens_in_its_own_place_only() {
        let ring = ring(1);
        let (first, second) =
            (sealed(&ring, "A", 1, "canary-1"), sealed(&ring, "A", 2, "canary-2"));
        let moved: [fn(&mut SealedSecret); 6] = [
            |it| it.owner = SecretOwner::Platform,
            |it| it.owner = SecretOwner::Tenant("acm".parse().unwrap()),
            |it| it.name = "AA".parse().unwrap(),
            |it| it.version = 2,
            |it| it.kind = SecretKind::Exposed,
            |it| it.created_at = Timestamp::from_millis(6),
        ];
        for change in moved {
            let mut bad = first.clone();
            change(&mut bad);
            assert_eq!(ring.open(&bad), Err(OpenFault::Changed), "{bad:?}");
        }
        // The earlier value in the place of the later one.
        let rolled_back = SealedSecret { envelope: first.envelope, ..second };
        assert_eq!(ring.open(&rolled_back), Err(OpenFault::Changed));
    }

    #[test]
    fn only_the_right_key_opens() {
        let good = sealed(&ring(1), "A", 1, "canary-1");
        assert_eq!(ring(2).open(&good), Err(OpenFault::UnknownKey));
        let mut renamed = good.clone();
        renamed.envelope.key_id = ring(2).id();
        assert_eq!(ring(2).open(&renamed), Err(OpenFault::Changed));
        let both = ring(1).with_new(Zeroizing::new([2; KEY_BYTES]));
        assert_eq!(both.open(&good).unwrap().expose(), "canary-1");
        assert_eq!(both.newest().open(&good), Err(OpenFault::UnknownKey));
    }

    #[test]
    fn a_file_round_trips_and_nonsense_is_refused() {
        let both = ring(0xab).with_new(Zeroizing::new([0x0c; KEY_BYTES]));
        let read = KeyRing::parse(&both.text()).unwrap();
        assert_eq!((read.id(), read.has_old()), (both.id(), true));
        assert_eq!(*read.text(), *both.text());
        let line = "ab".repeat(32);
        let many = format!("{line}\n").repeat(KEYS_COUNT_MAX + 1);
        let wide = "é".repeat(32);
        for bad in ["", "# no key\n", "ab", &"g".repeat(64), &format!("{line}0"), &many, &wide] {
            assert_eq!(KeyRing::parse(bad).unwrap_err(), NotKeys, "{bad:.80}");
        }
        // As `openssl rand -hex 32` prints it.
        assert_eq!(KeyRing::parse(&format!("{line}\n")).unwrap().id(), ring(0xab).id());
    }
}
