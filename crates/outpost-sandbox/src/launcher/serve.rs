//! The launcher's event loop: one client, many sandboxes, one epoll.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::net::{SocketFlags, accept_with};

use super::birth::{give_birth, open_binds};
use super::cgroup::Group;
use super::claim::Doors;
use super::host::Host;
use super::keep::{Kept, Phase};
use super::meter::{Disks, Meter};
use super::{OUTBOX_FRAMES_MAX, SANDBOXES_MAX, SWEEP_MILLIS, complain};
use crate::error::Refusal;
use crate::init::root::OpenBind;
use crate::spec::{Claim, Limits, SandboxSpec};
use crate::sys;
use crate::weakness::Weakness;
use crate::wire::{self, Answer, Ask, Frame, FromInit, Peer, Request, Said, ToInit, Versions};

const TOKEN_LISTENER: u64 = 0;
const TOKEN_CLIENT: u64 = 1;
const TOKEN_METER: u64 = u64::MAX;
/// Tokens of sandboxes: their key times two, plus one for the pidfd. Keys start at one.
const EVENTS_PER_ROUND_MAX: usize = 64;
/// Messages taken from the client before other events get their turn.
const CLIENT_MESSAGES_PER_ROUND_MAX: usize = 16;

struct Client {
    socket: OwnedFd,
    greeted: bool,
    outbox: VecDeque<Frame>,
}

/// Everything the launcher holds.
pub(super) struct Service {
    host: Host,
    epoll: OwnedFd,
    listener: OwnedFd,
    client: Option<Client>,
    kept: BTreeMap<u64, Kept>,
    keys: HashMap<String, u64>,
    next_key: u64,
    idle: Duration,
    /// When the last client left, or when the launcher started.
    alone_since: Option<Instant>,
    shutdown: bool,
    /// Started when it is first needed.
    meter: Option<Meter>,
}

impl Service {
    pub(super) fn new(host: Host, listener: OwnedFd, idle: Duration) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&epoll, listener.as_fd(), TOKEN_LISTENER)?;
        Ok(Self {
            host,
            epoll,
            listener,
            client: None,
            kept: BTreeMap::new(),
            keys: HashMap::new(),
            next_key: 1,
            idle,
            alone_since: Some(Instant::now()),
            shutdown: false,
            meter: None,
        })
    }

    /// Serves until there is nothing left to do.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let empty =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [empty; EVENTS_PER_ROUND_MAX];
        loop {
            let now = Instant::now();
            self.expire(now);
            let busy = self.host.cgroups.sweep();
            if self.shutdown && self.kept.is_empty() && !busy {
                return Ok(());
            }
            if self.is_idle(now) && !busy {
                return Ok(());
            }
            let timeout = self.wait_time(now, busy).and_then(|wait| Timespec::try_from(wait).ok());
            let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events.iter().take(count) {
                let flags = event.flags;
                self.handle(event.data.u64(), flags);
            }
        }
    }

    /// Last words: nothing lives any more, our directories go too.
    pub(super) fn finish(&mut self) {
        for kept in self.kept.values_mut() {
            kept.kill();
        }
        if let Some(meter) = self.meter.take() {
            meter.stop();
        }
        self.host.cgroups.close();
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.kept.is_empty()
            && self.alone_since.is_some_and(|since| now.duration_since(since) >= self.idle)
    }

    /// How long to wait for the next event; `None` is for ever.
    fn wait_time(&self, now: Instant, busy: bool) -> Option<Duration> {
        let mut next = self.kept.values().filter_map(|kept| kept.deadline(self.alone_since)).min();
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        if busy {
            sooner(now + Duration::from_millis(SWEEP_MILLIS));
        }
        if let Some(since) = self.alone_since.filter(|_| self.kept.is_empty()) {
            sooner(since + self.idle);
        }
        // Rounded up to a millisecond, so that a deadline has passed when the wait for it ends.
        let wait = next?.saturating_duration_since(now);
        Some(if wait.is_zero() { wait } else { wait + Duration::from_millis(1) })
    }

    fn expire(&mut self, now: Instant) {
        let alone_since = self.alone_since;
        let due = |kept: &Kept| kept.deadline(alone_since).is_some_and(|deadline| deadline <= now);
        let keys: Vec<u64> =
            self.kept.iter().filter(|(_, kept)| due(kept)).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(kept) = self.kept.get_mut(&key) {
                kept.expire();
                self.settle(key);
            }
        }
    }

    fn handle(&mut self, token: u64, flags: epoll::EventFlags) {
        match token {
            TOKEN_LISTENER => self.welcome(),
            TOKEN_CLIENT => {
                self.flush();
                self.hear_client();
            }
            TOKEN_METER => self.hear_meter(),
            token if token % 2 == 0 => self.hear_init(token / 2, flags),
            token => self.bury(token / 2),
        }
    }

    // ---- the client ----

    fn welcome(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = accept_with(&self.listener, flags) else {
            return;
        };
        let me = rustix::process::geteuid();
        let same_user =
            rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == me);
        if !same_user {
            return;
        }
        if self.client.is_some() {
            let answer = Err(Refusal::Busy);
            let _gone = wire::send(socket.as_fd(), &Said::Answer { seq: 0, answer }, Vec::new());
            return;
        }
        if let Err(error) = watch(&self.epoll, socket.as_fd(), TOKEN_CLIENT) {
            complain(&format!("a client could not be served: {error}"));
            return;
        }
        self.client = Some(Client { socket, greeted: false, outbox: VecDeque::new() });
        self.alone_since = None;
    }

    /// The client left. What it was building nobody knows, so it goes; what it had started goes on.
    fn farewell(&mut self) {
        self.client = None;
        self.alone_since = Some(Instant::now());
        for kept in
            self.kept.values_mut().filter(|kept| matches!(kept.phase, Phase::Building { .. }))
        {
            kept.forget = true;
            kept.kill();
        }
    }

    fn hear_client(&mut self) {
        for _ in 0..CLIENT_MESSAGES_PER_ROUND_MAX {
            let Some(client) = &self.client else { return };
            match wire::receive::<Request>(client.socket.as_fd(), Peer::Trusted) {
                Ok(Some((request, _))) => self.obey(request),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) => return self.farewell(),
                Err(error) => {
                    complain(&format!("a client sent what could not be understood: {error}"));
                    return self.farewell();
                }
            }
        }
    }

    fn obey(&mut self, request: Request) {
        let Request { seq, ask } = request;
        let greeted = self.client.as_ref().is_some_and(|client| client.greeted);
        let answer = match ask {
            Ask::Hello { version } => self.greet(version),
            _ if !greeted => Err(Refusal::Protocol { message: "no greeting".to_owned() }),
            Ask::Create { spec } => match self.create(seq, &spec) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Ask::Claim { id, claim } => self.claim(&id, *claim),
            Ask::Inventory => {
                let known =
                    |kept: &&Kept| !kept.forget && !matches!(kept.phase, Phase::Building { .. });
                Ok(Answer::Inventory {
                    ids: self.kept.values().filter(known).map(|kept| kept.id.clone()).collect(),
                })
            }
            Ask::Attach { id } => match self.find(&id) {
                Ok(key) => {
                    // A server that died right after its "go" must not be told that it is parked.
                    self.hear_init(key, epoll::EventFlags::IN);
                    return self.answer_with_record(seq, key);
                }
                Err(refusal) => Err(refusal),
            },
            Ask::Signal { id, signal } => self.find(&id).map(|key| self.signal(key, signal)),
            Ask::Kill { id } => self.find(&id).map(|key| self.kill(key, false)),
            Ask::Release { id } => {
                let found = self.find(&id).or_else(|none| self.find_former(&id).ok_or(none));
                found.map(|key| self.kill(key, true))
            }
            Ask::Shutdown => {
                self.shutdown = true;
                let keys: Vec<u64> = self.kept.keys().copied().collect();
                keys.into_iter().for_each(|key| drop(self.kill(key, true)));
                Ok(Answer::Done)
            }
        };
        self.say(&Said::Answer { seq, answer }, Vec::new());
    }

    /// A client is greeted in the newest version that both may speak; whether it can, it knows itself.
    fn greet(&mut self, theirs: u32) -> Result<Answer, Refusal> {
        let ours = Versions::OURS;
        let Some(version) = ours.answer(theirs) else {
            let message = format!("it speaks {ours}, this program version {theirs}");
            return Err(Refusal::Protocol { message });
        };
        if let Some(client) = &mut self.client {
            client.greeted = true;
        }
        Ok(Answer::Hello { version, host: Box::new(self.host.report()) })
    }

    fn say(&mut self, said: &Said, fds: Vec<OwnedFd>) {
        let Some(client) = &mut self.client else {
            return;
        };
        match Frame::new(said, fds) {
            Ok(frame) => client.outbox.push_back(frame),
            Err(error) => return complain(&format!("a message could not be made: {error}")),
        }
        if client.outbox.len() > OUTBOX_FRAMES_MAX {
            complain("a client did not read its messages and was disconnected");
            return self.farewell();
        }
        self.flush();
    }

    fn flush(&mut self) {
        let Some(client) = &mut self.client else {
            return;
        };
        while let Some(frame) = client.outbox.front() {
            match frame.send(client.socket.as_fd()) {
                Ok(()) => drop(client.outbox.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The end of the connection is handled where it is read.
                Err(_) => client.outbox.clear(),
            }
        }
        let mut flags = epoll::EventFlags::IN;
        if !client.outbox.is_empty() {
            flags |= epoll::EventFlags::OUT;
        }
        let token = epoll::EventData::new_u64(TOKEN_CLIENT);
        let _cannot_fail_for_a_watched_socket =
            epoll::modify(&self.epoll, &client.socket, token, flags);
    }

    // ---- sandboxes ----

    fn find(&self, id: &str) -> Result<u64, Refusal> {
        self.keys.get(id).copied().ok_or_else(|| Refusal::NotFound { id: id.to_owned() })
    }

    fn create(&mut self, seq: u64, spec: &SandboxSpec) -> Result<(), Refusal> {
        spec.validate().map_err(|error| Refusal::InvalidSpec { message: error.to_string() })?;
        if !spec.weakened.is_empty() && !self.host.for_proofs {
            let message = "this launcher leaves no protection off".to_owned();
            return Err(Refusal::InvalidSpec { message });
        }
        if self.keys.contains_key(&spec.id) {
            return Err(Refusal::AlreadyExists { id: spec.id.clone() });
        }
        if self.kept.len() >= SANDBOXES_MAX || self.shutdown {
            return Err(Refusal::Full { max: SANDBOXES_MAX });
        }
        let mut newborn = give_birth(&mut self.host, spec)?;
        let key = self.next_key;
        self.next_key += 1;
        let disks = std::mem::take(&mut newborn.disks);
        let pid = newborn.pid;
        let watched = watch(&self.epoll, newborn.control.as_fd(), key * 2)
            .and_then(|()| watch(&self.epoll, newborn.pidfd.as_fd(), key * 2 + 1))
            .and_then(|()| self.meter(key, pid, &spec.limits, disks));
        let mut kept = Kept::new(spec, seq, newborn, Instant::now());
        if let (Err(error), Phase::Building { failure, .. }) = (watched, &mut kept.phase) {
            *failure = Some(format!("watch the new sandbox: {error}"));
            kept.kill();
        }
        self.keys.insert(spec.id.clone(), key);
        self.kept.insert(key, kept);
        Ok(())
    }

    fn find_former(&self, id: &str) -> Option<u64> {
        let was = |kept: &Kept| kept.former_id.as_deref() == Some(id);
        self.kept.iter().find(|(_, kept)| was(kept)).map(|(key, _)| *key)
    }

    /// Takes a parked sandbox for an attempt. What is refused leaves it as it was; what fails half-way ends it.
    fn claim(&mut self, id: &str, claim: Claim) -> Result<Answer, Refusal> {
        claim.validate().map_err(|error| Refusal::InvalidSpec { message: error.to_string() })?;
        let key = self.find(id)?;
        // Who was told to start is no longer to be had.
        self.hear_init(key, epoll::EventFlags::IN);
        if self.keys.contains_key(&claim.id) {
            return Err(Refusal::AlreadyExists { id: claim.id });
        }
        let gone = || Refusal::NotFound { id: id.to_owned() };
        let kept = self.kept.get_mut(&key).ok_or_else(gone)?;
        kept.may_be_claimed(&claim)?;
        let binds = open_binds(&claim.binds, kept.wishes.weakened.contains(&Weakness::Links))?;
        let attached = kept.attach(&binds, !self.host.rootless);
        let watched = attached.and_then(|()| self.meter_more(key, &binds));
        if let Err(message) = watched {
            complain(&format!("{id} could not be claimed and is ended: {message}"));
            self.kill(key, true);
            return Err(Refusal::Build { message });
        }
        let kept = self.kept.get_mut(&key).ok_or_else(gone)?;
        self.keys.remove(id);
        self.keys.insert(claim.id.clone(), key);
        kept.become_claimed(claim);
        let isolation = self.host.isolation(&kept.facts, &kept.wishes);
        kept.isolation = Some(isolation.clone());
        let id_now = kept.id.clone();
        Ok(Answer::Claimed { was: id.to_owned(), id: id_now, isolation: Box::new(isolation) })
    }

    /// Has what a claim may write watched with the rest.
    fn meter_more(&mut self, key: u64, binds: &[OpenBind]) -> Result<(), String> {
        let text = |error: io::Error| format!("watch its disk: {error}");
        let disks = Disks::of(binds).map_err(text)?;
        let Some(kept) = self.kept.get(&key) else { return Ok(()) };
        let Some(living) = &kept.living else { return Ok(()) };
        let watched = match &self.meter {
            Some(meter) if kept.wishes.is_metered() => meter.more(key, disks),
            _ => {
                let (pid, limits) = (living.pid, kept.limits.clone());
                self.meter(key, pid, &limits, disks)
            }
        };
        watched.map_err(text)
    }

    /// Has the disk of a sandbox watched, if there is anything to watch.
    fn meter(&mut self, key: u64, pid: i32, limits: &Limits, disks: Disks) -> io::Result<()> {
        let limited = limits.disk_bytes.is_some() || limits.disk_files.is_some();
        if disks.dirs.is_empty() || !limited {
            return Ok(());
        }
        let meter = match self.meter.take() {
            Some(meter) => meter,
            None => {
                let meter = Meter::start()?;
                watch(&self.epoll, meter.socket(), TOKEN_METER)?;
                meter
            }
        };
        self.meter.insert(meter).watch(key, pid, limits, disks)
    }

    /// Ends the sandboxes that took more disk than they may.
    fn hear_meter(&mut self) {
        loop {
            let Some(meter) = &self.meter else { return };
            match meter.hear() {
                Ok(Some(over)) => {
                    if let Some(kept) = self.kept.get_mut(&over.key) {
                        complain(&format!("{} is ended: {}", kept.id, over.what));
                        kept.disk_limit_hit = true;
                        kept.kill();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => return self.lose_meter(),
            }
        }
    }

    /// Without a meter a limit is no limit: what relied on it ends.
    fn lose_meter(&mut self) {
        complain("the process that watches disk limits ended; so do the sandboxes it watched");
        if let Some(meter) = self.meter.take() {
            let _was_watched = epoll::delete(&self.epoll, meter.socket());
            meter.stop();
        }
        for kept in self.kept.values_mut().filter(|kept| kept.wishes.is_metered()) {
            kept.kill();
        }
    }

    fn answer_with_record(&mut self, seq: u64, key: u64) {
        let Some(kept) = self.kept.get(&key) else {
            return;
        };
        let (answer, fds) = match kept.record() {
            Ok(Some((record, fds))) => (Ok(Answer::Sandbox(Box::new(record))), fds),
            Ok(None) => (Err(Refusal::NotFound { id: kept.id.clone() }), Vec::new()),
            Err(error) => {
                (Err(Refusal::Build { message: format!("copy descriptors: {error}") }), Vec::new())
            }
        };
        self.say(&Said::Answer { seq, answer }, fds);
    }

    fn signal(&mut self, key: u64, signal: i32) -> Answer {
        if let Some(living) = self.kept.get(&key).and_then(|kept| kept.living.as_ref()) {
            // An init that no longer reads is ending anyway.
            let _ending =
                wire::send(living.control.as_fd(), &ToInit::Signal { signal }, Vec::new());
        }
        Answer::Done
    }

    fn kill(&mut self, key: u64, forget: bool) -> Answer {
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.killed |= !matches!(kept.phase, Phase::Finished(_));
            kept.forget |= forget;
            kept.kill();
            self.settle(key);
        }
        Answer::Done
    }

    /// Lets go of a finished sandbox that nobody wants.
    fn settle(&mut self, key: u64) {
        let gone = |kept: &Kept| kept.forget && matches!(kept.phase, Phase::Finished(_));
        if self.kept.get(&key).is_some_and(gone) {
            self.drop_kept(key);
        }
    }

    fn drop_kept(&mut self, key: u64) {
        if let Some(kept) = self.kept.remove(&key) {
            self.keys.remove(&kept.id);
        }
        if self.kept.is_empty() && self.client.is_none() {
            // The time of being idle starts when the last sandbox went.
            self.alone_since = Some(Instant::now());
        }
    }

    fn hear_init(&mut self, key: u64, flags: epoll::EventFlags) {
        loop {
            let Some(kept) = self.kept.get_mut(&key) else {
                return;
            };
            let Some(living) = &mut kept.living else {
                return;
            };
            match wire::receive::<FromInit>(living.control.as_fd(), Peer::Init) {
                Ok(Some((said, fds))) => self.note(key, said, fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Its end is noticed by the pidfd; a socket at its end would wake us for ever.
                Ok(None) => {
                    let _was_watched = epoll::delete(&self.epoll, &living.control);
                    return;
                }
                Err(error) => {
                    complain(&format!("init of {}: {error}", kept.id));
                    return kept.kill();
                }
            }
        }
        let Some(living) = self.kept.get(&key).and_then(|kept| kept.living.as_ref()) else {
            return;
        };
        if flags.contains(epoll::EventFlags::HUP) {
            let _was_watched = epoll::delete(&self.epoll, &living.control);
        }
    }

    fn note(&mut self, key: u64, said: FromInit, fds: Vec<OwnedFd>) {
        let Some(kept) = self.kept.get_mut(&key) else {
            return;
        };
        match (said, &mut kept.phase) {
            // Who asked for it is gone, and the next client counts its requests anew.
            (FromInit::Ready { .. }, Phase::Building { .. }) if kept.forget => {}
            (FromInit::Ready { facts }, Phase::Building { seq, failure: None }) => {
                let seq = *seq;
                kept.isolation = Some(self.host.isolation(&facts, &kept.wishes));
                if let Some(living) = &mut kept.living {
                    let mut fds = fds.into_iter();
                    living.doors = fds.next().map(|mounts| {
                        let ruleset = facts.landlock_abi.and_then(|_| fds.next());
                        Doors { mounts, ruleset }
                    });
                    living.listener = fds.next();
                }
                kept.facts = facts;
                kept.phase = Phase::Parked;
                self.answer_with_record(seq, key);
            }
            (FromInit::Failed { message }, Phase::Building { failure, .. }) => {
                failure.get_or_insert(message);
            }
            (FromInit::Started, Phase::Parked) => {
                kept.phase = Phase::Running { since: Instant::now() };
                if let Some(living) = &mut kept.living {
                    living.doors = None;
                }
            }
            (FromInit::StartFailed { .. }, Phase::Parked) => {}
            (FromInit::Exited { code, signal }, Phase::Running { .. }) => {
                kept.set_exit(code, signal)
            }
            _ => {
                complain(&format!("init of {} spoke out of turn", kept.id));
                kept.kill();
            }
        }
    }

    /// An init ended, and with it every process of its sandbox. Whoever waits hears of it before the groups are
    /// removed, which takes time and concerns nobody.
    fn bury(&mut self, key: u64) {
        if let Some(group) = self.settle_end(key) {
            self.host.cgroups.remove(group);
        }
    }

    fn settle_end(&mut self, key: u64) -> Option<Group> {
        // What it said last may still be unread.
        self.hear_init(key, epoll::EventFlags::IN);
        let kept = self.kept.get_mut(&key)?;
        let reaped = match sys::reap(kept.living.as_ref()?.pid) {
            Ok(Some(reaped)) => reaped,
            Ok(None) => return None,
            Err(error) => {
                complain(&format!("init of {} could not be reaped: {error}", kept.id));
                sys::Reaped { status: 0, cpu_micros: 0 }
            }
        };
        let unborn = if let Phase::Building { seq, failure } = &mut kept.phase {
            Some((*seq, failure.take().unwrap_or_else(|| "init ended without a word".to_owned())))
        } else {
            None
        };
        let (report, group) = kept.finish(reaped, Instant::now());
        if let Some(meter) = self.meter.as_ref().filter(|_| kept.wishes.is_metered()) {
            meter.forget(key);
        }
        let (id, forget) = (kept.id.clone(), kept.forget);
        if let Some((seq, message)) = unborn {
            self.drop_kept(key);
            if !forget {
                let answer = Err(Refusal::Build { message });
                self.say(&Said::Answer { seq, answer }, Vec::new());
            }
            return group;
        }
        if forget {
            self.drop_kept(key);
        }
        // A client hears its greeting first; what ended before, its inventory tells.
        if self.client.as_ref().is_some_and(|client| client.greeted) {
            self.say(&Said::Exited { id, report }, Vec::new());
        }
        group
    }
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
    Ok(epoll::add(epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
}
