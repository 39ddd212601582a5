//! Ids and other words of the wire: what is accepted is printed as something that reads the same, and
//! what names a directory cannot be a path.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use outpost_types::{
    AgentId, AttemptId, DispatchId, DispatchStatus, EventEnvelope, KeyId, SecretName, TenantId,
    Timestamp,
};

/// Ids, instants and an event of the log, each read from the whole input.
pub fn ids(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for name in [
        again::<DispatchId>(&text),
        again::<KeyId>(&text),
        again::<AttemptId>(&text),
        again::<TenantId>(&text),
        again::<AgentId>(&text),
        again::<SecretName>(&text),
        again::<DispatchStatus>(&text),
    ]
    .into_iter()
    .flatten()
    {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        assert!(!name.is_empty() && name.len() <= 128 && name.bytes().all(plain), "{name:?}");
        assert!(!name.starts_with(['.', '-']), "{name:?}");
    }
    again::<Timestamp>(&text);
    if let Ok(event) = serde_json::from_slice::<EventEnvelope>(data) {
        let line = serde_json::to_string(&event).expect("an event has a JSON form");
        assert!(!line.bytes().any(|byte| byte < b' '), "{line}");
        let back: EventEnvelope = serde_json::from_str(&line).expect("what we wrote is readable");
        assert_eq!((back.seq, back.at, back.dispatch_id), (event.seq, event.at, event.dispatch_id));
        assert_eq!(back.data.kind(), event.data.kind());
    }
}

/// What is printed of an accepted text.
fn again<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Option<String> {
    let read: T = text.parse().ok()?;
    let printed = read.to_string();
    assert_eq!(printed.parse::<T>().ok(), Some(read), "{text:?} is printed as {printed:?}");
    Some(printed)
}
