//! Messages between server, launcher and init: one JSON value per SOCK_SEQPACKET message, descriptors beside it.
//!
//! A message is at most [`FRAME_INLINE_BYTES_MAX`] on the socket; a longer one, up to [`FRAME_BYTES_MAX`], travels in
//! a memory file passed as the first descriptor. Inits are believed only so far: what they send is inline, small, and
//! never decides anything outside their own sandbox.
//!
//! A launcher outlives the server that started it, so after an upgrade the two are of different versions. The rules:
//!
//! - A client says the newest version it speaks; the launcher answers with the older of that and its own newest, and
//!   both speak that one from then on, as does the client with the inits of that launcher ([`Go`]). Either refuses
//!   when that is older than the oldest it still speaks ([`Versions`]).
//! - What a version says is frozen, byte for byte, in `wire/version_1.txt` and what each later one added. `Hello`, its refusal, and the `version`
//!   in its answer are the same in all versions, since they are read before one is agreed on.
//! - A field may be added within a version if both sides do without it: it has a serde default (`Option` has one by
//!   itself) and is not written when it has that value, so that old texts stay as they are; an old peer passes over a
//!   field it does not know. Anything else, a new kind of message included, is a new version.
//! - A new version keeps translating the one before: [`PROTOCOL_VERSION_MIN`] is only raised when no launcher of
//!   that age can still be running.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::report::{ExitReport, HostReport, Isolation};
use crate::spec::{Claim, Payload, SandboxSpec};

/// The newest version of these messages that this program speaks.
pub(crate) const PROTOCOL_VERSION: u32 = 2;
/// The version since which binds may be overlays and a parked sandbox may be claimed.
pub(crate) const VERSION_OF_CLAIMS: u32 = 2;
/// The oldest one that it still speaks.
pub(crate) const PROTOCOL_VERSION_MIN: u32 = 1;
/// Longest message on the socket itself.
pub(crate) const FRAME_INLINE_BYTES_MAX: usize = 48 * 1024;
/// Longest message at all. JSON may need six bytes for one byte of argument.
pub(crate) const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most descriptors with one message.
pub(crate) const FRAME_FDS_MAX: usize = 8;

const INLINE: u8 = b'i';
const IN_FILE: u8 = b'f';

/// The versions that one side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) oldest: u32,
    pub(crate) newest: u32,
}

impl Versions {
    /// This program's.
    pub(crate) const OURS: Self = Self { oldest: PROTOCOL_VERSION_MIN, newest: PROTOCOL_VERSION };

    /// The launcher's answer to a client whose newest version is `theirs`; `None` is a refusal.
    pub(crate) fn answer(self, theirs: u32) -> Option<u32> {
        (theirs >= self.oldest).then(|| theirs.min(self.newest))
    }

    /// Whether a client with these versions can speak what the launcher answered.
    pub(crate) fn contain(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest {
            write!(f, "version {newest}")
        } else {
            write!(f, "versions {oldest} to {newest}")
        }
    }
}

/// What a client asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    Hello {
        version: u32,
    },
    /// Overlays among its binds since version 2: an older launcher would not see them.
    Create {
        spec: Box<SandboxSpec>,
    },
    /// Since version 2.
    Claim {
        id: String,
        claim: Box<Claim>,
    },
    Inventory,
    Attach {
        id: String,
    },
    Signal {
        id: String,
        signal: i32,
    },
    Kill {
        id: String,
    },
    Release {
        id: String,
    },
    Shutdown,
}

/// A request with the number its answer will carry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) seq: u64,
    pub(crate) ask: Ask,
}

/// What the launcher says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    Answer { seq: u64, answer: Result<Answer, Refusal> },
    Exited { id: String, report: ExitReport },
}

/// Answers to [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Hello {
        version: u32,
        host: Box<HostReport>,
    },
    /// To Create and Attach. Descriptors: stdout, stderr; then, unless finished, pidfd, go; then the listener if any.
    Sandbox(Box<Record>),
    Inventory {
        ids: Vec<String>,
    },
    /// To Claim: the name it had, the name it has, and what is enforced now.
    Claimed {
        was: String,
        id: String,
        isolation: Box<Isolation>,
    },
    Done,
}

/// One sandbox as the launcher knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) stage: Stage,
    pub(crate) isolation: Isolation,
    pub(crate) has_listener: bool,
}

/// How far a sandbox is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    Parked,
    Running,
    Finished(ExitReport),
}

/// Launcher to init.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToInit {
    /// Ids are mapped: build the root.
    Build,
    /// The cgroups are joined: go on to the end. Since version 2.
    Joined,
    /// Send this signal to the payload's process group.
    Signal { signal: i32 },
}

/// Init to launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromInit {
    /// Sealed and parked. Descriptors: mount namespace; Landlock rules, if the facts have an ABI; listener, if one was
    /// asked for.
    Ready {
        facts: InitFacts,
    },
    Failed {
        message: String,
    },
    Started,
    StartFailed {
        message: String,
    },
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
}

/// What init found possible.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct InitFacts {
    pub(crate) landlock_abi: Option<u32>,
    pub(crate) hidepid: bool,
}

/// Server to init, on the go socket. One descriptor beside it: standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Go {
    pub(crate) payload: Payload,
}

/// Init's answer on the go socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GoAnswer {
    Started,
    Failed { message: String },
}

/// Whether a peer may send its message in a memory file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Another part of Outpost with our user id.
    Trusted,
    /// An init: inline messages only.
    Init,
}

/// A message ready to be sent, with the descriptors it carries.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Frame {
    /// Encodes `message`; a long one is put into a memory file.
    pub(crate) fn new<T: Serialize>(message: &T, mut fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut bytes = vec![INLINE];
        serde_json::to_writer(&mut bytes, message).map_err(io::Error::other)?;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a message may have at most {FRAME_BYTES_MAX} bytes"
            )));
        }
        if bytes.len() > FRAME_INLINE_BYTES_MAX {
            fds.insert(0, memory_file(&bytes[1..])?);
            bytes = vec![IN_FILE];
        }
        if fds.len() > FRAME_FDS_MAX {
            return Err(io::Error::other(format!(
                "a message may carry at most {FRAME_FDS_MAX} descriptors"
            )));
        }
        Ok(Self { bytes, fds })
    }

    /// What is on the socket.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sends without waiting; `WouldBlock` if the peer's queue is full.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut space =
            [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(socket, &[IoSlice::new(&self.bytes)], &mut control, flags)
        })?;
        Ok(())
    }
}

/// Sends one message without waiting.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: Vec<OwnedFd>,
) -> io::Result<()> {
    Frame::new(message, fds)?.send(socket)
}

/// Receives one message without waiting: `None` at the end of the connection, `WouldBlock` if there is none yet.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    peer: Peer,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0_u8; FRAME_INLINE_BYTES_MAX];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut take = || {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut parts, &mut control, flags))
    };
    // A peer that closed with messages of ours unread causes one such error, ahead of what it had sent before.
    let got = match take() {
        Err(rustix::io::Errno::CONNRESET) => take(),
        other => other,
    };
    let got = match got {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(invalid("a message was longer than its bound"));
    }
    let value = decode(&bytes[..got.bytes], &mut fds, peer)?;
    Ok(Some((value, fds)))
}

/// Reads what was received. A memory file is taken from the descriptors.
pub(crate) fn decode<T: DeserializeOwned>(
    message: &[u8],
    fds: &mut Vec<OwnedFd>,
    peer: Peer,
) -> io::Result<T> {
    let value = match message.split_first() {
        Some((&INLINE, body)) => serde_json::from_slice(body),
        Some((&IN_FILE, _)) if peer == Peer::Trusted && !fds.is_empty() => {
            serde_json::from_slice(&read_memory_file(&fds.remove(0))?)
        }
        _ => return Err(invalid("unknown kind of message")),
    };
    value.map_err(|error| invalid(&error.to_string()))
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A sealed, unnamed file in memory with this content, positioned at its start.
pub(crate) fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create, seek};
    use std::io::Write as _;
    let fd = memfd_create("outpost", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    let fd = OwnedFd::from(file);
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    seek(&fd, rustix::fs::SeekFrom::Start(0))?;
    Ok(fd)
}

fn read_memory_file(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let size = usize::try_from(rustix::fs::fstat(fd)?.st_size).map_err(io::Error::other)?;
    if size > FRAME_BYTES_MAX {
        return Err(invalid("a message was longer than its bound"));
    }
    let mut bytes = vec![0_u8; size];
    let mut done = 0;
    while done < size {
        match rustix::io::pread(fd, &mut bytes[done..], done as u64)? {
            0 => return Err(invalid("a message was shorter than announced")),
            count => done += count,
        }
    }
    Ok(bytes)
}

/// A pair of connected, non-blocking message sockets that no exec inherits.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

#[cfg(test)]
mod version_1;
#[cfg(test)]
mod version_2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_on_the_newest_version_they_share() {
        let all = |f: &mut dyn FnMut(Versions)| {
            for oldest in 1..=4 {
                (oldest..=4).for_each(|newest| f(Versions { oldest, newest }));
            }
        };
        all(&mut |launcher| {
            all(&mut |client| {
                let agreed = launcher.answer(client.newest).filter(|it| client.contain(*it));
                let shared = (1..=4).rev().find(|it| launcher.contain(*it) && client.contain(*it));
                assert_eq!(agreed, shared, "{launcher}, {client}");
            });
        });
        assert!(Versions::OURS.contain(PROTOCOL_VERSION));
        assert_eq!(Versions { oldest: 1, newest: 1 }.to_string(), "version 1");
        assert_eq!(Versions { oldest: 2, newest: 3 }.to_string(), "versions 2 to 3");
    }

    #[test]
    fn short_and_long_messages_arrive_whole_with_descriptors() {
        let (a, b) = pair().unwrap();
        for size in [0, 100, FRAME_INLINE_BYTES_MAX * 3] {
            let text = "ü\n".repeat(size / 2);
            let (extra, _) = pair().unwrap();
            send(a.as_fd(), &text, vec![extra]).unwrap();
            let (got, fds) = receive::<String>(b.as_fd(), Peer::Trusted).unwrap().unwrap();
            assert_eq!(got, text);
            assert_eq!(fds.len(), 1);
        }
    }

    #[test]
    fn an_init_may_not_send_files_and_bounds_hold() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), &"x".repeat(FRAME_INLINE_BYTES_MAX * 2), Vec::new()).unwrap();
        assert!(receive::<String>(b.as_fd(), Peer::Init).is_err());
        assert!(Frame::new(&"x".repeat(FRAME_BYTES_MAX + 1), Vec::new()).is_err());
        assert_eq!(
            receive::<String>(b.as_fd(), Peer::Init).unwrap_err().kind(),
            io::ErrorKind::WouldBlock,
            "an empty queue does not block"
        );
    }

    #[test]
    fn last_words_are_heard_although_our_own_were_not() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), &"unread", Vec::new()).unwrap();
        send(b.as_fd(), &"last words", Vec::new()).unwrap();
        drop(b);
        let (got, _) = receive::<String>(a.as_fd(), Peer::Trusted).unwrap().unwrap();
        assert_eq!(got, "last words");
        assert!(receive::<String>(a.as_fd(), Peer::Trusted).unwrap().is_none());
    }

    #[test]
    fn garbage_is_an_error_and_a_closed_peer_is_the_end() {
        let (a, b) = pair().unwrap();
        rustix::net::send(&a, b"?what", SendFlags::empty()).unwrap();
        assert!(receive::<Request>(b.as_fd(), Peer::Trusted).is_err());
        rustix::net::send(&a, b"i{\"seq\":1}", SendFlags::empty()).unwrap();
        assert!(receive::<Request>(b.as_fd(), Peer::Trusted).is_err());
        drop(a);
        assert!(receive::<Request>(b.as_fd(), Peer::Trusted).unwrap().is_none());
    }
}
