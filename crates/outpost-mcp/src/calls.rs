//! Calls over HTTP that are under way, so that their client can take one back.
//!
//! Requests stand for themselves, so a client that takes a call back sends that in another one. Which call is meant
//! is said by three things: the key, the session that the client got a name for when it began, and the id of the
//! request. The name alone is a session here: it stands in no table, and no call needs one.
//!
//! Bounded: calls that can be taken back, and names. A call beyond that is one that cannot be taken back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use outpost_types::KeyId;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

/// Most calls that can be taken back at once.
const CALLS_COUNT_MAX: usize = 10_000;
/// Longest name of a session, and longest id of a request, bytes.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of chance in the name of a session.
const SESSION_BYTES: usize = 16;

/// Which call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    key: KeyId,
    session: String,
    request: String,
}

impl Name {
    /// A name; none for a client without key or session, or with an id that is none.
    pub(crate) fn new(key: Option<KeyId>, session: Option<&str>, request: &Value) -> Option<Self> {
        let fits = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len());
        let session = session.filter(|session| fits(session))?.to_owned();
        let request = match request {
            Value::String(_) | Value::Number(_) => request.to_string(),
            _ => return None,
        };
        fits(&request).then_some(Self { key: key?, session, request })
    }
}

/// What a message is, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Message {
    #[serde(default)]
    pub(crate) id: Value,
    #[serde(default)]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Option<Params>,
}

/// Parameters of a message that takes a call back.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Params {
    #[serde(default, rename = "requestId")]
    pub(crate) request: Value,
}

impl Message {
    /// The message of this body; an empty one when it is none, which is for the protocol to complain about.
    pub(crate) fn of(body: &Bytes) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}

type Running = HashMap<Name, oneshot::Sender<()>>;

/// The calls under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Running>>);

/// Keeps a call in the list.
#[derive(Debug)]
pub(crate) struct Kept {
    calls: Calls,
    name: Name,
}

impl Calls {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call; what is received says that it was taken back. None when there is one of this name already,
    /// or too many.
    pub(crate) fn begin(&self, name: Name) -> Option<(oneshot::Receiver<()>, Kept)> {
        let mut running = self.running();
        if running.len() >= CALLS_COUNT_MAX {
            return None;
        }
        let Entry::Vacant(entry) = running.entry(name.clone()) else { return None };
        let (tell, told) = oneshot::channel();
        entry.insert(tell);
        drop(running);
        Some((told, Kept { calls: self.clone(), name }))
    }

    /// Takes a call back, if it is there.
    pub(crate) fn take_back(&self, name: &Name) {
        if let Some(tell) = self.running().remove(name) {
            // It has ended by itself when nobody listens.
            let _ = tell.send(());
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.calls.running().remove(&self.name);
    }
}

/// A name for a new session; none when there is no chance to be had.
pub(crate) fn new_session() -> Option<String> {
    let mut bytes = [0; SESSION_BYTES];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(key: u64, session: &str, request: Value) -> Option<Name> {
        Name::new(Some(KeyId::from_parts(key, 1)), Some(session), &request)
    }

    #[test]
    fn only_the_call_of_all_three_is_taken_back() {
        let calls = Calls::default();
        let own = name(1, "a", json!(7)).unwrap();
        let (mut told, kept) = calls.begin(own.clone()).unwrap();
        assert!(calls.begin(own.clone()).is_none(), "it is under way already");
        for other in [name(2, "a", json!(7)), name(1, "b", json!(7)), name(1, "a", json!("7"))] {
            calls.take_back(&other.unwrap());
        }
        assert!(told.try_recv().is_err());
        calls.take_back(&own);
        assert!(told.try_recv().is_ok());
        drop(kept);
        assert!(calls.running().is_empty());
    }

    #[test]
    fn a_call_that_ended_is_forgotten() {
        let calls = Calls::default();
        drop(calls.begin(name(1, "a", json!(7)).unwrap()));
        assert!(calls.running().is_empty());
    }

    #[test]
    fn without_key_session_or_id_there_is_no_name() {
        assert!(Name::new(None, Some("a"), &json!(1)).is_none());
        assert!(Name::new(Some(KeyId::from_parts(1, 1)), None, &json!(1)).is_none());
        for (session, request) in
            [("", json!(1)), ("a", Value::Null), ("a", json!({})), ("a", json!("x".repeat(200)))]
        {
            assert!(name(1, session, request).is_none());
        }
        assert_ne!(new_session(), new_session());
    }
}
