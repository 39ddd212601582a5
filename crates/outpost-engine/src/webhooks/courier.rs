//! Delivers what is in the outbox, at least once each: a try is on record after it was made, so a crash between the two
//! makes another one. Woken by signal and by timer; takes no input.
//!
//! Signed as Standard Webhooks say: HMAC-SHA256 over name, seconds and body. A receiver has to answer 2xx; 410 says that
//! nobody is there any more and is not asked again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderValue, header};
use outpost_core::retry_wait_millis;
use outpost_gateway::hooks::HookError;
use outpost_store::{DueDelivery, StoreError, Tried};
use outpost_types::{SecretValue, Timestamp};
use ring::hmac;
use tracing::{debug, warn};

use super::SECRET_PREFIX;
use super::places::Places;
use crate::engine::Engine;

/// Most deliveries that are read at a time.
const LOOK_ROWS: u32 = 64;
/// Shortest and longest time between two looks that nobody asked for, milliseconds.
const NAP_MILLIS_MIN: u64 = 200;
/// See [`NAP_MILLIS_MIN`].
const NAP_MILLIS_MAX: u64 = 30_000;
/// A receiver with this answer is not asked again.
const GONE: u16 = 410;

/// Looks again and again; ends when its task is aborted.
///
/// A try that is under way holds its own place and nothing else: no look waits for it.
pub(crate) async fn run(engine: Engine) {
    let (mut places, mut tries) = (Places::default(), FuturesUnordered::new());
    loop {
        let looked = look(&engine, &mut places).await;
        let (begun, nap) = looked.unwrap_or_else(|error| (Vec::new(), late(&error)));
        tries.extend(begun.into_iter().map(|due| try_one(&engine, due)));
        let failed = tokio::select! {
            () = engine.inner.told.notified() => None,
            () = tokio::time::sleep(nap) => None,
            Some((due, was_silent)) = tries.next() => {
                let (due, was_silent): (DueDelivery, Result<bool, StoreError>) = (due, was_silent);
                places.leave(&due, matches!(was_silent, Ok(true)));
                was_silent.err()
            }
        };
        if let Some(error) = failed {
            // What the store did not take note of is due still, and would be tried again at once.
            tokio::select! {
                () = engine.inner.told.notified() => {}
                () = tokio::time::sleep(late(&error)) => {}
            }
        }
    }
}

fn late(error: &StoreError) -> Duration {
    warn!(error = error as &dyn std::error::Error, "deliveries of webhooks wait");
    Duration::from_millis(NAP_MILLIS_MAX)
}

/// What is due and got a place, and how long to wait for the next.
async fn look(
    engine: &Engine,
    places: &mut Places,
) -> Result<(Vec<DueDelivery>, Duration), StoreError> {
    let store = &engine.inner.store;
    let mut begun = Vec::new();
    // Each time round takes a place at least, or is the last.
    while !places.is_full() {
        let except = places.without_place();
        let due = store.due_deliveries(engine.now(), LOOK_ROWS, &except).await?;
        let before = begun.len();
        begun.extend(due.into_iter().filter(|due| places.take(due)));
        if begun.len() == before {
            break;
        }
    }
    let next = store.next_delivery_at().await?;
    let millis = next.map_or(NAP_MILLIS_MAX, |at| at.millis_since(engine.now()));
    Ok((begun, Duration::from_millis(millis.clamp(NAP_MILLIS_MIN, NAP_MILLIS_MAX))))
}

/// One try, and whether the receiver was silent.
async fn try_one(engine: &Engine, due: DueDelivery) -> (DueDelivery, Result<bool, StoreError>) {
    let (tried, was_silent) = deliver(engine, &due).await;
    let noted = engine.inner.store.note_try(tried).await;
    (due, noted.map(|_| was_silent))
}

async fn deliver(engine: &Engine, due: &DueDelivery) -> (Tried, bool) {
    let Attempt { status_code, problem, was_silent } = attempt(engine, due).await;
    let at = engine.now();
    let tries = due.delivery.tries + 1;
    let chance = u64::try_from(engine.random_u128() >> 64).unwrap_or_default();
    let wait = retry_wait_millis(tries, chance).filter(|_| status_code != Some(GONE));
    let again_at = wait.filter(|_| problem.is_some()).map(|millis| at.plus_millis(millis));
    debug!(delivery = due.delivery.id, tries, ?status_code, ?problem, "a delivery was tried");
    let tried = Tried {
        delivery: due.delivery.id,
        tries_before: due.delivery.tries,
        at,
        status_code,
        problem,
        again_at,
    };
    (tried, was_silent)
}

/// What was answered, and why it is a failure.
#[derive(Debug, Default)]
struct Attempt {
    status_code: Option<u16>,
    problem: Option<String>,
    /// There was no answer in the time that a receiver has.
    was_silent: bool,
}

async fn attempt(engine: &Engine, due: &DueDelivery) -> Attempt {
    let failed = |problem: String| Attempt { problem: Some(problem), ..Attempt::default() };
    let secret = engine.inner.config.secrets.open_signing(due.delivery.webhook).await;
    let headers = match secret {
        Ok(secret) => headers(&secret, &due.delivery.event, engine.now(), &due.body),
        Err(reason) => return failed(reason),
    };
    let Some(headers) = headers else {
        return failed("its secret is damaged; make the webhook anew".to_owned());
    };
    match engine.inner.config.hooks.post(&due.url, headers, due.body.clone()).await {
        Ok(status) => {
            let is_good = (200..300).contains(&status);
            let problem = (!is_good).then(|| format!("the receiver answered {status}"));
            Attempt { status_code: Some(status), problem, was_silent: false }
        }
        Err(error) => {
            let was_silent = matches!(error, HookError::TimedOut);
            Attempt { was_silent, ..failed(error.to_string()) }
        }
    }
}

/// Headers of a delivery; `None` when the secret is none.
fn headers(secret: &SecretValue, id: &str, now: Timestamp, body: &str) -> Option<HeaderMap> {
    let seconds = now.as_millis() / 1000;
    let signature = signature(secret, id, seconds, body)?;
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_str(id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(seconds));
    headers.insert("webhook-signature", HeaderValue::from_str(&signature).ok()?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("outpost"));
    Some(headers)
}

fn signature(secret: &SecretValue, id: &str, seconds: u64, body: &str) -> Option<String> {
    let key = secret.expose().strip_prefix(SECRET_PREFIX)?;
    let key = zeroize::Zeroizing::new(STANDARD.decode(key).ok()?);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let mut signing = hmac::Context::with_key(&key);
    for part in [id, ".", &seconds.to_string(), ".", body] {
        signing.update(part.as_bytes());
    }
    Some(format!("v1,{}", STANDARD.encode(signing.sign())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // The example of the specification of Standard Webhooks.
        let secret = SecretValue::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let body = r#"{"test": 2432232314}"#;
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_none_signs_nothing() {
        for bad in ["", "whsec_", "whsec_%%%", "other_AAAA"] {
            let signed = signature(&SecretValue::new(bad.to_owned()), "a", 1, "{}");
            assert!(signed.is_none() || bad == "whsec_", "{bad}");
        }
    }
}
