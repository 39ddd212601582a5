//! What one simulation is to go through: jobs, limits, faults, and the bug it may carry on purpose.
//! Everything follows from a seed, or is written down by hand for a scenario.

use std::collections::BTreeMap;

use outpost_core::Limits;
use outpost_types::{DispatchStatus, Priority};

use crate::rng::Rng;

/// Most jobs of a random simulation.
const JOBS_MAX: u64 = 6;
/// Longest time in which faults happen, seconds.
const CHAOS_SECONDS_MAX: u64 = 240;
/// How far the wall clock gets away from true time at most, seconds.
pub(crate) const JUMP_SECONDS_MAX: u64 = 900;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// The server's process; sandboxes go on.
    Server,
    /// The launcher; its sandboxes die with it.
    Launcher,
    /// The machine: everything that was not synced may be gone.
    Host,
}

/// When a client cancels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// So many milliseconds after it heard of the dispatch.
    After(u64),
    /// As soon as the record has that status.
    At(DispatchStatus),
}

/// One making of a workspace and sandbox.
#[derive(Debug, Clone, Copy)]
pub struct Provision {
    /// How long it takes, milliseconds.
    pub millis: u64,
    /// It fails; whether another try may help.
    pub fails: Option<bool>,
}

/// What an agent does once it was started.
#[derive(Debug, Clone, Copy)]
pub struct AgentPlan {
    /// How long it runs by itself, milliseconds; `None` hangs for ever.
    pub runs_millis: Option<u64>,
    /// It exits with this code.
    pub code: i32,
    /// SIGTERM does nothing to it.
    pub ignores_term: bool,
}

/// One dispatch, and what becomes of it if nothing interferes.
#[derive(Debug, Clone)]
pub struct Job {
    /// Whose.
    pub tenant: &'static str,
    /// Which agent.
    pub agent: &'static str,
    /// When the client asks for it, milliseconds after the begin.
    pub at_millis: u64,
    /// `timeoutSeconds`.
    pub timeout_seconds: u64,
    /// `deadlineSeconds`.
    pub deadline_seconds: u64,
    /// Its priority.
    pub priority: Priority,
    /// The client sends an idempotency key, and tries again when it hears nothing.
    pub keyed: bool,
    /// Attempt by attempt; the last one holds for all further.
    pub provisions: Vec<Provision>,
    /// What the agent does.
    pub behaviour: AgentPlan,
    /// How long collecting takes, milliseconds.
    pub collect_millis: u64,
    /// When it is cancelled.
    pub cancel: Option<Cancel>,
    /// It works in the persistent workspace of this user.
    pub workspace_of: Option<&'static str>,
}

/// How often something goes wrong, parts per million.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Kill of the server, per point.
    pub server_kill: u64,
    /// Kill of the launcher, per point.
    pub launcher_kill: u64,
    /// Reboot, per point.
    pub reboot: u64,
    /// Orderly restart, per second.
    pub leave: u64,
    /// A write that takes seconds.
    pub disk_slow: u64,
    /// A write that fails and leaves nothing.
    pub disk_fail: u64,
    /// A write that is made and reported as failed.
    pub answer_lost: u64,
    /// A write that fails so that the store is closed; it may have been made.
    pub store_dies: u64,
    /// A full disk for some seconds, per second.
    pub disk_full: u64,
    /// A jump of the wall clock, per second.
    pub clock_jump: u64,
    /// A report that comes once more, later.
    pub repeat: u64,
    /// The launcher cannot be asked for its sandboxes.
    pub reattach_fails: u64,
    /// The server's answer does not reach the client.
    pub reply_lost: u64,
}

/// One simulation.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides every chance.
    pub seed: u64,
    /// Bug to carry.
    pub mutant: Option<Mutant>,
    /// Limits of the server.
    pub limits: Limits,
    /// What clients ask for.
    pub jobs: Vec<Job>,
    /// What goes wrong.
    pub faults: Faults,
    /// For how long, seconds.
    pub chaos_seconds: u64,
    /// What is killed at which point, by the points' numbers since the begin.
    pub kills: Vec<(u64, Kill)>,
    /// How long a killed server is away, milliseconds: least and most.
    pub away_millis: (u64, u64),
    /// The disk is full between these two instants, milliseconds.
    pub disk_full_millis: Option<(u64, u64)>,
}

impl Plan {
    /// What that seed stands for.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let jobs = (0..rng.range(1, JOBS_MAX)).map(|_| job(&mut rng)).collect();
        let long = rng.chance(50_000);
        Self {
            seed,
            mutant: None,
            limits: limits(&mut rng),
            jobs,
            faults: faults(&mut rng),
            chaos_seconds: rng.range(5, CHAOS_SECONDS_MAX),
            kills: Vec::new(),
            away_millis: if long { (1_000, 120_000) } else { (5, 4_000) },
            disk_full_millis: None,
        }
    }
}

fn limits(rng: &mut Rng) -> Limits {
    let of_codex = u32::try_from(rng.range(1, 3)).unwrap_or(1);
    let tenant = rng.chance(300_000).then(|| u32::try_from(rng.range(1, 2)).unwrap_or(1));
    let codex = "codex".parse().expect("it is a name");
    Limits {
        host_attempts_max: u32::try_from(rng.range(1, 4)).unwrap_or(1),
        tenant_attempts_max: tenant,
        tenant_attempts_max_of: BTreeMap::new(),
        agent_attempts_max_default: u32::try_from(rng.range(1, 3)).unwrap_or(1),
        agent_attempts_max: BTreeMap::from([(codex, of_codex)]),
    }
}

fn job(rng: &mut Rng) -> Job {
    let provisions = (0..3)
        .map(|_| Provision {
            millis: rng.range(1, 1_500),
            fails: rng.chance(150_000).then(|| rng.chance(800_000)),
        })
        .collect();
    let behaviour = AgentPlan {
        runs_millis: (!rng.chance(150_000)).then(|| rng.range(1, 45_000)),
        code: if rng.chance(800_000) { 0 } else { [1, 137][(rng.next() % 2) as usize] },
        ignores_term: rng.chance(300_000),
    };
    Job {
        tenant: ["acme", "umbrella"][(rng.next() % 2) as usize],
        agent: ["claude", "codex"][(rng.next() % 2) as usize],
        at_millis: rng.range(0, 30_000),
        timeout_seconds: rng.range(30, 60),
        deadline_seconds: if rng.chance(200_000) { rng.range(30, 200) } else { 7_200 },
        priority: [Priority::Low, Priority::Normal, Priority::High][(rng.next() % 3) as usize],
        keyed: rng.chance(850_000),
        provisions,
        behaviour,
        collect_millis: rng.range(1, 3_000),
        cancel: rng.chance(350_000).then(|| Cancel::After(rng.range(0, 20_000))),
        workspace_of: rng.chance(300_000).then(|| ["ann", "bob"][(rng.next() % 2) as usize]),
    }
}

fn faults(rng: &mut Rng) -> Faults {
    // One seed has few kinds of faults, so that the consequences of each have room to unfold.
    let mut some = |often: u64, parts_max: u64| {
        if rng.chance(often) { rng.range(1, parts_max) } else { 0 }
    };
    Faults {
        server_kill: some(600_000, 30_000),
        launcher_kill: some(200_000, 8_000),
        reboot: some(150_000, 8_000),
        leave: some(250_000, 600_000),
        disk_slow: some(250_000, 100_000),
        disk_fail: some(250_000, 200_000),
        answer_lost: some(250_000, 150_000),
        store_dies: some(150_000, 40_000),
        disk_full: some(150_000, 50_000),
        clock_jump: some(250_000, 80_000),
        repeat: some(300_000, 400_000),
        reattach_fails: some(150_000, 400_000),
        reply_lost: some(300_000, 300_000),
    }
}

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// A bug the model server can be given on purpose, to show that the checks find it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$doc])* $name,)+
        }

        impl Mutant {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

mutants! {
    /// Effects are executed before the record is durable.
    EffectsFirst = "effects-first",
    /// Every effect is executed twice.
    EffectsTwice = "effects-twice",
    /// The client hears of a dispatch before it is durable.
    AckFirst = "ack-first",
    /// The client hears of a cancel before it is durable.
    CancelAckFirst = "cancel-ack-first",
    /// A restarted server does not watch the deadlines of running agents.
    NoRearm = "no-rearm",
    /// A restarted server removes nothing that no live attempt owns.
    NoSweep = "no-sweep",
    /// An attempt whose agent is gone is tried again.
    RetryAfterBegin = "retry-after-begin",
    /// A restarted server does not stop agents that were to be stopped.
    CancelLost = "cancel-lost",
    /// A restarted server does not tell attempts to collect.
    CollectLost = "collect-lost",
    /// A slot is not returned when a try at provisioning fails.
    SlotLeak = "slot-leak",
    /// The placer looks at no limit.
    NoLimits = "no-limits",
    /// The placer does not know who works in which workspace.
    WorkspacesShared = "workspaces-shared",
    /// A report of an older attempt is taken for one of the current.
    TrustStale = "trust-stale",
    /// A store that cannot write is asked once.
    NoSecondTry = "no-second-try",
    /// The audit entry is a write of its own.
    AuditApart = "audit-apart",
    /// Idempotency keys live in the server's memory.
    KeysInMemory = "keys-in-memory",
    /// A second SIGKILL never comes: an agent that ignores SIGTERM lives on.
    NoKill = "no-kill",
    /// A write that was made though it was reported as failed is adopted without its effects.
    LostAnswerForgetsEffects = "lost-answer-forgets-effects",
    /// A dispatch that was stored though it was reported as failed is not taken up.
    LostAcceptForgotten = "lost-accept-forgotten",
    /// A reboot is noted as seen before what it broke is on record.
    BootNotedFirst = "boot-noted-first",
    /// A start whose answer was lost with the launcher is tried again.
    LostStartRetried = "lost-start-retried",
    /// A sandbox that is gone is taken for one that was never started.
    AbsentMeansNeverStarted = "absent-means-never-started",
    /// An agent that ended before its start was on record is taken for one that never ran.
    SavedEndIgnored = "saved-end-ignored",
    /// The sandbox with the agent's exit code is released before the exit code is saved.
    ReleasedBeforeSaved = "released-before-saved",
    /// The attempt's directory is removed before its end is on record.
    RemovedBeforeRecorded = "removed-before-recorded",
    /// A leaving server lets go of its attempts before it knows that it is leaving.
    LeavesUnannounced = "leaves-unannounced",
    /// A launcher that cannot be asked is taken for one without sandboxes.
    SweepErrorIgnored = "sweep-error-ignored",
    /// A deadline that was a moment early, because the clock jumped, is not looked at again.
    EarlyDeadlineDropped = "early-deadline-dropped",
    /// A dispatch that cannot be placed after all keeps others from being placed.
    RejectedHeadBlocks = "rejected-head-blocks",
}

impl Mutant {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}
