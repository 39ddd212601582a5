//! Open streams end with the right to them: when the key that opened one is taken back, ends, or its tenant is
//! suspended, the last thing it says is the refusal that the next request of that key gets.
//!
//! A change is a signal, and the end of a key a timer, so nobody looks again and again. Bounded: a wait, so that a
//! clock that was set is noticed. Absent: a caller without a key of its own, who is part of this process.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use outpost_types::{ApiError, Caller, ErrorCode, KeyId};

use crate::clock::World;
use crate::engine::Engine;
use crate::keys::{Access, KeyRefusal, Standing};

/// Longest wait for the end of a key before the clock is read again, seconds.
const LOOK_SECONDS_MAX: u64 = 600;

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, ApiError>> + Send>>;

/// The stream, for as long as the caller's key works.
pub(crate) fn while_admitted<T: Send + 'static>(
    engine: &Engine,
    caller: &Caller,
    items: Items<T>,
) -> Items<T> {
    let (access, world) = (Arc::clone(&engine.inner.access), Arc::clone(&engine.inner.world));
    if access.standing(caller.key, world.now()).is_none() {
        return items;
    }
    let refused = Box::pin(refused(access, world, caller.key));
    Box::pin(stream::unfold(Some((items, refused)), |state| async move {
        let (mut items, mut refused) = state?;
        tokio::select! {
            // A stream that always has more must not outlive its key.
            biased;
            error = refused.as_mut() => Some((Err(error), None)),
            item = items.next() => item.map(|item| (item, Some((items, refused)))),
        }
    }))
}

/// Completes when the key does not work any more.
async fn refused(access: Arc<Access>, world: Arc<dyn World>, key: KeyId) -> ApiError {
    let mut changes = access.changes();
    loop {
        // From here on a change is seen.
        changes.borrow_and_update();
        let now = world.now();
        let until = match access.standing(key, now) {
            // It was let go of, which happens to those that ended.
            None => return refusal(KeyRefusal::Expired),
            Some(Standing::Refused(reason)) => return refusal(reason),
            Some(Standing::Works { until }) => until,
        };
        let most = Duration::from_secs(LOOK_SECONDS_MAX);
        let left = until.map(|until| Duration::from_millis(until.millis_since(now)));
        // Neither that nothing changed nor that something did is an end: both are looked at.
        let _ = tokio::time::timeout(left.unwrap_or(most).min(most), changes.changed()).await;
    }
}

fn refusal(reason: KeyRefusal) -> ApiError {
    let (code, message) = match reason {
        KeyRefusal::Unknown => (ErrorCode::Unauthorized, "This key is not known here."),
        KeyRefusal::Revoked => (ErrorCode::Unauthorized, "This key was revoked."),
        KeyRefusal::Expired => (ErrorCode::Unauthorized, "This key has expired."),
        KeyRefusal::Suspended => {
            (ErrorCode::TenantSuspended, "The tenant of this key is suspended.")
        }
    };
    ApiError::new(code, message).with_hint("Ask the operator for a key that works.")
}
