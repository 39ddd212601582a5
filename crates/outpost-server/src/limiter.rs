//! Requests per key and minute: one token bucket per key, full at first, refilled evenly.
//!
//! Only keys that authenticated get a bucket. At most [`KEYS_TRACKED_MAX`] are kept: then full ones
//! are dropped (a new bucket is full as well), and if none is full all are, which forgives at most
//! one minute's worth.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use outpost_types::KeyId;

/// Most buckets kept.
const KEYS_TRACKED_MAX: usize = 65_536;
const SECONDS_PER_MINUTE: f64 = 60.0;

/// Where a key stands, as the `RateLimit-*` headers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Requests per minute.
    pub limit: u32,
    /// Requests left right now.
    pub remaining: u32,
    /// Seconds until all of them are back.
    pub reset_seconds: u64,
    /// Seconds until one more is allowed; 0 while some are left.
    pub retry_after_seconds: u64,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of all keys.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    buckets: Mutex<HashMap<KeyId, Bucket>>,
}

impl Limiter {
    /// Takes one request of `key`, which may make `per_minute` of them, at `now`; `Err` when there is none
    /// left. A limit that changed is in force at once.
    pub(crate) fn take(
        &self,
        key: KeyId,
        per_minute: NonZeroU32,
        now: Instant,
    ) -> Result<RateState, RateState> {
        let capacity = f64::from(per_minute.get());
        let per_second = capacity / SECONDS_PER_MINUTE;
        let refilled = |bucket: &Bucket| {
            let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
            (seconds.mul_add(per_second, bucket.tokens)).min(capacity)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if buckets.len() >= KEYS_TRACKED_MAX && !buckets.contains_key(&key) {
            // By this key's limit: one with a greater one gets at most a minute's worth of its own too early.
            buckets.retain(|_, bucket| refilled(bucket) < capacity);
            if buckets.len() >= KEYS_TRACKED_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: capacity, at: now });
        let tokens = refilled(bucket);
        let allowed = tokens >= 1.0;
        bucket.tokens = if allowed { tokens - 1.0 } else { tokens };
        bucket.at = now;
        let left = bucket.tokens;
        drop(buckets);
        let state = RateState {
            limit: per_minute.get(),
            remaining: left as u32,
            reset_seconds: ((capacity - left) / per_second).ceil() as u64,
            retry_after_seconds: if allowed {
                0
            } else {
                (((1.0 - left) / per_second).ceil() as u64).max(1)
            },
        };
        if allowed { Ok(state) } else { Err(state) }
    }
}

impl RateState {
    /// Adds the headers that tell it.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let values = [
            ("ratelimit-limit", u64::from(self.limit)),
            ("ratelimit-remaining", u64::from(self.remaining)),
            ("ratelimit-reset", self.reset_seconds),
        ];
        for (name, value) in values {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
        if let Ok(policy) = HeaderValue::try_from(format!("{};w=60", self.limit)) {
            headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_one_per_refill() {
        let limiter = Limiter::default();
        let sixty = NonZeroU32::new(60).unwrap();
        let (a, b) = (KeyId::from_parts(1, 1), KeyId::from_parts(1, 2));
        let start = Instant::now();
        for left in (0..60).rev() {
            assert_eq!(limiter.take(a, sixty, start).unwrap().remaining, left);
        }
        let refused = limiter.take(a, sixty, start).unwrap_err();
        assert_eq!((refused.retry_after_seconds, refused.reset_seconds), (1, 60));
        assert!(limiter.take(b, sixty, start).is_ok(), "keys do not share");
        let later = start + Duration::from_secs(1);
        assert!(limiter.take(a, sixty, later).is_ok());
        assert!(limiter.take(a, sixty, later).is_err());
        let full = limiter.take(a, sixty, start + Duration::from_secs(600)).unwrap();
        assert_eq!(full.remaining, 59);
        let two = NonZeroU32::new(2).unwrap();
        let fewer = limiter.take(a, two, start + Duration::from_secs(601)).unwrap();
        assert_eq!((fewer.limit, fewer.remaining), (2, 1), "a lower limit is in force at once");
    }

    #[test]
    fn buckets_are_bounded() {
        let limiter = Limiter::default();
        let one = NonZeroU32::new(1).unwrap();
        let now = Instant::now();
        for n in 0..=KEYS_TRACKED_MAX as u128 {
            assert!(limiter.take(KeyId::from_parts(1, n), one, now).is_ok());
        }
        assert!(limiter.buckets.lock().unwrap().len() <= KEYS_TRACKED_MAX);
    }
}
