//! Settings of a client.

use std::fmt;
use std::time::Duration;

/// An API key; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes the text of a key.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// How a stream that broke is resumed. The count begins anew with every event or byte received, so it
/// bounds how long a server may be away, not how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Most tries in a row without anything received.
    pub tries_max: u32,
    /// Pause before the first; doubles with each.
    pub pause_first: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    /// 20 tries from 100 ms to 5 s: a server may be away for about a minute and a half.
    fn default() -> Self {
        Self {
            tries_max: 20,
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// Pause before try `number`, which begins at 1.
    pub(crate) fn pause(self, number: u32) -> Duration {
        let factor = 1u32 << number.saturating_sub(1).min(16);
        self.pause_first.saturating_mul(factor).min(self.pause_max)
    }
}

/// Where the server is and how to talk to it.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Address of the server, such as `http://127.0.0.1:7700`; may have a path.
    pub url: String,
    /// The key; without one only what is open to all works.
    pub key: Option<ApiKey>,
    /// Allows plain http to hosts that are not this machine. The key can be read on the way.
    pub allow_plain_http: bool,
    /// How streams are resumed.
    pub retry: RetryPolicy,
    /// Longest silence of an event stream before it is taken for dead. The server sends something
    /// every 15 s; 45 s by default.
    pub silence_max: Duration,
}

impl ClientConfig {
    /// Defaults for the server at `url`.
    pub fn new(url: impl Into<String>, key: Option<ApiKey>) -> Self {
        Self {
            url: url.into(),
            key,
            allow_plain_http: false,
            retry: RetryPolicy::default(),
            silence_max: Duration::from_secs(3 * outpost_types::limits::SSE_HEARTBEAT_SECONDS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let policy = RetryPolicy::default();
        let millis: Vec<_> =
            [1, 2, 3, 6, 7, 20, u32::MAX].map(|number| policy.pause(number).as_millis()).to_vec();
        assert_eq!(millis, [100, 200, 400, 3_200, 5_000, 5_000, 5_000]);
    }

    #[test]
    fn debug_hides_the_key() {
        let config = ClientConfig::new("http://localhost", Some(ApiKey::new("otp_secret")));
        assert!(!format!("{config:?}").contains("secret"));
    }
}
