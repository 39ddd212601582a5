//! One sandbox as the launcher keeps it, from birth to release.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};

use super::birth::Newborn;
use super::cgroup::Group;
use super::claim::{self, Doors};
use super::{BUILD_SECONDS_MAX, ORPHAN_FINISHED_SECONDS, ORPHAN_PARKED_SECONDS};
use crate::error::Refusal;
use crate::init::root::OpenBind;
use crate::report::{ExitReport, Isolation};
use crate::spec::{Access, Bind, Claim, HOME_INSIDE, Limits, SandboxSpec, binds_exactly};
use crate::sys::Reaped;
use crate::weakness::Weakness;
use crate::wire::{InitFacts, Record, Stage};

/// How far a kept sandbox is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Init builds; `seq` is the request to answer.
    Building {
        seq: u64,
        /// What init said went wrong, kept until it is reaped.
        failure: Option<String>,
    },
    Parked,
    Running {
        since: Instant,
    },
    Finished(ExitReport),
}

/// What a spec asked for, as far as it decides what is enforced.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) writable_binds: bool,
    /// HOME is a bind, so nothing but the disk limit bounds it.
    pub(super) bound_home: bool,
    pub(super) disk_bytes: bool,
    pub(super) disk_files: bool,
    pub(super) weakened: BTreeSet<Weakness>,
}

impl Wishes {
    /// Its disk is measured.
    pub(super) fn is_metered(&self) -> bool {
        self.writable_binds && (self.disk_bytes || self.disk_files)
    }

    fn of(spec: &SandboxSpec) -> Self {
        let limits = &spec.limits;
        Self {
            writable_binds: writes(&spec.binds),
            bound_home: binds_exactly(&spec.binds, HOME_INSIDE),
            disk_bytes: limits.disk_bytes.is_some(),
            disk_files: limits.disk_files.is_some(),
            weakened: spec.weakened.clone(),
        }
    }
}

fn writes(binds: &[Bind]) -> bool {
    binds.iter().any(|bind| bind.access == Access::ReadWrite)
}

/// What exists only while the init lives.
#[derive(Debug)]
pub(super) struct Living {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) go: OwnedFd,
    pub(super) listener: Option<OwnedFd>,
    /// For a claim; gone once there was one, or the payload was started.
    pub(super) doors: Option<Doors>,
    pub(super) group: Group,
}

/// A sandbox.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: String,
    /// Its name before a claim. Who asked for the claim and gave up knows only that.
    pub(super) former_id: Option<String>,
    pub(super) phase: Phase,
    pub(super) living: Option<Living>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) isolation: Option<Isolation>,
    pub(super) facts: InitFacts,
    pub(super) wishes: Wishes,
    pub(super) limits: Limits,
    /// Where its binds are, inside.
    places: BTreeSet<PathBuf>,
    wall: Option<Duration>,
    born: Instant,
    exit: Option<(Option<i32>, Option<i32>)>,
    pub(super) killed: bool,
    wall_limit_hit: bool,
    pub(super) disk_limit_hit: bool,
    /// A deadline of this phase has passed and was acted on.
    expired: bool,
    /// Let go of as soon as it ends: its owner released it or nobody ever knew it.
    pub(super) forget: bool,
}

impl Kept {
    pub(super) fn new(spec: &SandboxSpec, seq: u64, newborn: Newborn, now: Instant) -> Self {
        let Newborn { pid, pidfd, control, go, stdout, stderr, group, .. } = newborn;
        Self {
            id: spec.id.clone(),
            former_id: None,
            phase: Phase::Building { seq, failure: None },
            living: Some(Living { pid, pidfd, control, go, listener: None, doors: None, group }),
            stdout,
            stderr,
            isolation: None,
            facts: InitFacts::default(),
            wishes: Wishes::of(spec),
            limits: spec.limits.clone(),
            places: spec.binds.iter().map(|bind| bind.inside.clone()).collect(),
            wall: spec.limits.wall_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            born: now,
            exit: None,
            killed: false,
            wall_limit_hit: false,
            disk_limit_hit: false,
            expired: false,
            forget: false,
        }
    }

    /// Refuses a claim that cannot be: this one was started or claimed before, or has something at the same place.
    pub(super) fn may_be_claimed(&self, claim: &Claim) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal::InvalidSpec { message });
        let open = self.living.as_ref().is_some_and(|living| living.doors.is_some());
        if !open || !matches!(self.phase, Phase::Parked) {
            return refuse(format!("{} was started or claimed before; take another", self.id));
        }
        match claim.binds.iter().find(|bind| self.places.contains(&bind.inside)) {
            Some(bind) => refuse(format!("{} has a bind at {}", self.id, bind.inside.display())),
            None => Ok(()),
        }
    }

    /// Attaches what was opened for a claim, once.
    pub(super) fn attach(&mut self, binds: &[OpenBind], drop_groups: bool) -> Result<(), String> {
        let doors = self.living.as_mut().and_then(|living| living.doors.take());
        let doors = doors.ok_or("it is gone")?;
        claim::attach(&doors, binds, &self.wishes.weakened, drop_groups)
    }

    /// Is from now on what the claim made of it.
    pub(super) fn become_claimed(&mut self, claim: Claim) {
        let Claim { id, binds, wall_seconds } = claim;
        self.former_id = Some(std::mem::replace(&mut self.id, id));
        self.wishes.writable_binds |= writes(&binds);
        self.wishes.bound_home |= binds_exactly(&binds, HOME_INSIDE);
        self.places.extend(binds.into_iter().map(|bind| bind.inside));
        if let Some(seconds) = wall_seconds {
            self.wall = Some(Duration::from_secs(seconds.into()));
        }
    }

    pub(super) fn set_exit(&mut self, code: Option<i32>, signal: Option<i32>) {
        self.exit = Some((code, signal));
    }

    /// Kills every process of the sandbox; its end is noticed by the pidfd.
    pub(super) fn kill(&mut self) {
        if let Some(living) = &self.living {
            living.group.kill();
            let _already_dead = pidfd_send_signal(&living.pidfd, Signal::KILL);
        }
    }

    /// Settles the end: reads the counters, keeps only report and output. The groups are left to be removed.
    pub(super) fn finish(&mut self, reaped: Reaped, now: Instant) -> (ExitReport, Option<Group>) {
        let (code, signal) = self.exit.unwrap_or_else(|| {
            let killed = libc::WIFSIGNALED(reaped.status).then(|| libc::WTERMSIG(reaped.status));
            // An init that ended by itself without a payload leaves neither code nor signal.
            (None, if self.disk_limit_hit { Some(libc::SIGXFSZ) } else { killed })
        });
        let group = self.living.take().map(|living| living.group);
        let counts = group.as_ref().map(Group::counts).unwrap_or_default();
        let since = if let Phase::Running { since } = self.phase { since } else { self.born };
        let micros = u64::try_from(now.duration_since(since).as_micros()).unwrap_or(u64::MAX);
        let report = ExitReport {
            exit_code: code,
            signal,
            oom_killed: counts.oom_killed,
            killed: self.killed,
            wall_limit_hit: self.wall_limit_hit,
            disk_limit_hit: self.disk_limit_hit,
            memory_peak_bytes: counts.memory_peak_bytes,
            cpu_micros: counts.cpu_micros.unwrap_or(reaped.cpu_micros),
            duration_micros: micros,
            pids_refused: counts.pids_refused,
        };
        self.expired = false;
        self.phase = Phase::Finished(report.clone());
        (report, group)
    }

    /// When something must happen by itself, given when the last client left.
    pub(super) fn deadline(&self, alone_since: Option<Instant>) -> Option<Instant> {
        let later = |since: Instant, seconds| since + Duration::from_secs(seconds);
        match self.phase {
            Phase::Building { .. } => Some(later(self.born, BUILD_SECONDS_MAX)),
            Phase::Parked => alone_since.map(|since| later(since, ORPHAN_PARKED_SECONDS)),
            Phase::Running { since } => self.wall.map(|wall| since + wall),
            Phase::Finished(_) => alone_since.map(|since| later(since, ORPHAN_FINISHED_SECONDS)),
        }
        .filter(|_| !self.expired)
    }

    /// Does what [`Self::deadline`] announced.
    pub(super) fn expire(&mut self) {
        self.expired = true;
        self.wall_limit_hit |= matches!(self.phase, Phase::Running { .. });
        self.forget |= matches!(self.phase, Phase::Parked | Phase::Finished(_));
        if let Phase::Building { failure, .. } = &mut self.phase {
            failure
                .get_or_insert_with(|| format!("init was not ready after {BUILD_SECONDS_MAX} s"));
        }
        self.kill();
    }

    /// What a client gets to see, with the descriptors in their agreed order.
    pub(super) fn record(&self) -> std::io::Result<Option<(Record, Vec<OwnedFd>)>> {
        let stage = match &self.phase {
            Phase::Building { .. } => return Ok(None),
            Phase::Parked => Stage::Parked,
            Phase::Running { .. } => Stage::Running,
            Phase::Finished(report) => Stage::Finished(report.clone()),
        };
        let Some(isolation) = self.isolation.clone() else {
            return Ok(None);
        };
        let mut fds = vec![self.stdout.as_fd(), self.stderr.as_fd()];
        let mut has_listener = false;
        if let Some(living) = &self.living {
            fds.extend([living.pidfd.as_fd(), living.go.as_fd()]);
            fds.extend(living.listener.as_ref().map(AsFd::as_fd));
            has_listener = living.listener.is_some();
        }
        let fds =
            fds.into_iter().map(|fd| fd.try_clone_to_owned()).collect::<std::io::Result<_>>()?;
        Ok(Some((Record { id: self.id.clone(), stage, isolation, has_listener }, fds)))
    }
}
