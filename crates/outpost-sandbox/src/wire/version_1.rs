//! Version 1 of the messages, as it is on the socket of launchers that run somewhere: it never changes again.
//!
//! `version_1.txt` holds one message a line: its type, a blank, its text. A line may be added for a field that has a
//! default (see the head of [`super`]); a line that is there stays as it is.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Answer, Ask, FromInit, Go, GoAnswer, Peer, Request, Said, Stage, ToInit, pair, receive, send,
};
use crate::error::Refusal;
use crate::report::IsolationLevel;
use crate::spec::Access;

const FROZEN: &str = include_str!("version_1.txt");

/// Every kind of message and of what differs within one. The matches below have no wildcard: a new variant does not
/// compile before it is named, and is then missed in the fixtures.
const KINDS: [&str; 39] = [
    "Access::ReadOnly",
    "Access::ReadWrite",
    "Answer::Done",
    "Answer::Hello",
    "Answer::Inventory",
    "Answer::Sandbox",
    "Ask::Attach",
    "Ask::Create",
    "Ask::Hello",
    "Ask::Inventory",
    "Ask::Kill",
    "Ask::Release",
    "Ask::Shutdown",
    "Ask::Signal",
    "FromInit::Exited",
    "FromInit::Failed",
    "FromInit::Ready",
    "FromInit::StartFailed",
    "FromInit::Started",
    "Go",
    "GoAnswer::Failed",
    "GoAnswer::Started",
    "IsolationLevel::Limits",
    "IsolationLevel::Namespaces",
    "Refusal::AlreadyExists",
    "Refusal::Build",
    "Refusal::Busy",
    "Refusal::Full",
    "Refusal::InvalidSpec",
    "Refusal::NotFound",
    "Refusal::Protocol",
    "Said::Answer",
    "Said::Exited",
    "Stage::Finished",
    "Stage::Parked",
    "Stage::Running",
    "ToInit::Build",
    "ToInit::Signal",
    "with wall limit",
];

type Kinds = BTreeSet<&'static str>;

/// Decodes, says what it was, and encodes again.
fn again<T: DeserializeOwned + Serialize>(
    text: &str,
    seen: &mut Kinds,
    kinds: impl Fn(&T, &mut Kinds),
) -> String {
    let message: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    kinds(&message, seen);
    serde_json::to_string(&message).unwrap()
}

fn of_request(request: &Request, seen: &mut Kinds) {
    let kind = match &request.ask {
        Ask::Hello { .. } => "Ask::Hello",
        Ask::Create { spec } => {
            seen.extend(spec.binds.iter().map(|bind| match bind.access {
                Access::ReadOnly => "Access::ReadOnly",
                Access::ReadWrite => "Access::ReadWrite",
            }));
            seen.extend(spec.limits.wall_seconds.map(|_| "with wall limit"));
            "Ask::Create"
        }
        Ask::Claim { .. } => "Ask::Claim",
        Ask::Inventory => "Ask::Inventory",
        Ask::Attach { .. } => "Ask::Attach",
        Ask::Signal { .. } => "Ask::Signal",
        Ask::Kill { .. } => "Ask::Kill",
        Ask::Release { .. } => "Ask::Release",
        Ask::Shutdown => "Ask::Shutdown",
    };
    seen.insert(kind);
}

fn of_said(said: &Said, seen: &mut Kinds) {
    let kind = match said {
        Said::Answer { answer, .. } => {
            match answer {
                Ok(answer) => of_answer(answer, seen),
                Err(refusal) => of_refusal(refusal, seen),
            }
            "Said::Answer"
        }
        Said::Exited { .. } => "Said::Exited",
    };
    seen.insert(kind);
}

fn of_answer(answer: &Answer, seen: &mut Kinds) {
    let kind = match answer {
        Answer::Hello { .. } => "Answer::Hello",
        Answer::Sandbox(record) => {
            seen.insert(match record.stage {
                Stage::Parked => "Stage::Parked",
                Stage::Running => "Stage::Running",
                Stage::Finished(_) => "Stage::Finished",
            });
            seen.insert(match record.isolation.level {
                IsolationLevel::Namespaces => "IsolationLevel::Namespaces",
                IsolationLevel::Limits => "IsolationLevel::Limits",
            });
            "Answer::Sandbox"
        }
        Answer::Inventory { .. } => "Answer::Inventory",
        Answer::Claimed { .. } => "Answer::Claimed",
        Answer::Done => "Answer::Done",
    };
    seen.insert(kind);
}

fn of_refusal(refusal: &Refusal, seen: &mut Kinds) {
    let kind = match refusal {
        Refusal::InvalidSpec { .. } => "Refusal::InvalidSpec",
        Refusal::AlreadyExists { .. } => "Refusal::AlreadyExists",
        Refusal::NotFound { .. } => "Refusal::NotFound",
        Refusal::Full { .. } => "Refusal::Full",
        Refusal::Build { .. } => "Refusal::Build",
        Refusal::Busy => "Refusal::Busy",
        Refusal::Protocol { .. } => "Refusal::Protocol",
    };
    seen.insert(kind);
}

fn of_init(said: &FromInit, seen: &mut Kinds) {
    let kind = match said {
        FromInit::Ready { .. } => "FromInit::Ready",
        FromInit::Failed { .. } => "FromInit::Failed",
        FromInit::Started => "FromInit::Started",
        FromInit::StartFailed { .. } => "FromInit::StartFailed",
        FromInit::Exited { .. } => "FromInit::Exited",
    };
    seen.insert(kind);
}

fn to_init(said: &ToInit, seen: &mut Kinds) {
    let kind = match said {
        ToInit::Build => "ToInit::Build",
        ToInit::Joined => "ToInit::Joined",
        ToInit::Signal { .. } => "ToInit::Signal",
    };
    seen.insert(kind);
}

fn of_go(_: &Go, seen: &mut Kinds) {
    seen.insert("Go");
}

fn of_go_answer(answer: &GoAnswer, seen: &mut Kinds) {
    let kind = match answer {
        GoAnswer::Started => "GoAnswer::Started",
        GoAnswer::Failed { .. } => "GoAnswer::Failed",
    };
    seen.insert(kind);
}

#[test]
fn every_message_is_read_and_written_as_ever() {
    let mut seen = Kinds::new();
    for line in FROZEN.lines() {
        let (kind, text) = line.split_once(' ').unwrap();
        let written = match kind {
            "Request" => again(text, &mut seen, of_request),
            "Said" => again(text, &mut seen, of_said),
            "ToInit" => again(text, &mut seen, to_init),
            "FromInit" => again(text, &mut seen, of_init),
            "Go" => again(text, &mut seen, of_go),
            "GoAnswer" => again(text, &mut seen, of_go_answer),
            other => panic!("{other}"),
        };
        assert_eq!(written, text);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), KINDS);
}

/// Around the text: one byte that says where it is.
#[test]
fn a_message_on_the_socket_is_framed_as_ever() {
    let (a, b) = pair().unwrap();
    send(a.as_fd(), &Request { seq: 3, ask: Ask::Inventory }, Vec::new()).unwrap();
    let mut bytes = [0; 64];
    let count = rustix::io::read(&b, &mut bytes).unwrap();
    assert_eq!(&bytes[..count], br#"i{"seq":3,"ask":"inventory"}"#);
}

/// A newer peer may have added a field: it is passed over, in every part of a message.
#[test]
fn a_field_that_is_not_known_is_passed_over() {
    let (a, b) = pair().unwrap();
    for line in FROZEN.lines() {
        let (kind, text) = line.split_once(' ').unwrap();
        // Wherever fields begin: all the objects here that have more than one.
        let more =
            text.replace("\"seq\":", "\"new\":1,\"seq\":").replace("\"id\":", "\"new\":{},\"id\":");
        let more =
            more.replace("\"cpu_m", "\"new\":[],\"cpu_m").replace("\"argv\"", "\"new\":0,\"argv\"");
        rustix::io::write(&a, format!("i{more}").as_bytes()).unwrap();
        let read = match kind {
            "Request" => receive::<Request>(b.as_fd(), Peer::Trusted).map(|_| ()),
            "Said" => receive::<Said>(b.as_fd(), Peer::Trusted).map(|_| ()),
            "Go" => receive::<Go>(b.as_fd(), Peer::Trusted).map(|_| ()),
            _ => receive::<serde_json::Value>(b.as_fd(), Peer::Trusted).map(|_| ()),
        };
        assert!(read.is_ok(), "{more}: {read:?}");
    }
}
