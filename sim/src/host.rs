//! The model of the machine: the launcher and its sandboxes, which outlive the server, agents that
//! run in them, and the directories of attempts.
//!
//! A launcher is told by its process id, which another one may get after a reboot. What the server
//! wrote to a directory and nobody synced may be gone after a reboot.

use std::collections::BTreeMap;
use std::rc::Rc;

use outpost_types::AttemptId;
use outpost_types::limits::STOP_GRACE_SECONDS;

use crate::plan::AgentPlan;
use crate::world::World;

/// How long the launcher keeps a parked sandbox without a server, seconds.
const ORPHAN_PARKED_SECONDS: u64 = 60;
/// How long a launcher without server and sandboxes lives on, seconds.
const IDLE_SECONDS: u64 = 5;
/// What the launcher's own clock grants beyond timeout and grace, seconds, before it kills.
pub(crate) const BACKSTOP_SECONDS: u64 = 60;
/// Exit code of an agent that was killed.
const KILLED_CODE: Option<i32> = None;
/// First process id of a launcher after a boot.
const PID_FIRST: u32 = 100;

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Parked,
    Running,
    Finished(Exit),
}

/// One sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) serial: u64,
    pub(crate) phase: Phase,
    /// The launcher has read that the agent was started.
    told: bool,
    behaviour: AgentPlan,
}

/// What an attempt saved in its directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved {
    pub(crate) launcher_pid: u32,
    pub(crate) ended: Option<Ended>,
}

/// How an attempt's agent ended; without an exit nobody can say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) exit: Option<Exit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Launcher {
    pid: u32,
    generation: u64,
}

/// A sandbox as a server found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Parked(Handle),
    Running(Handle),
}

/// A sandbox of a certain launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) attempt: AttemptId,
    serial: u64,
    launcher: u64,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) boot: u64,
    /// What the server noted of the boot.
    pub(crate) noted_boot: Option<u64>,
    pub(crate) sandboxes: BTreeMap<AttemptId, Kept>,
    /// Directories of attempts, with what was saved in them.
    pub(crate) dirs: BTreeMap<AttemptId, Option<Saved>>,
    launcher: Option<Launcher>,
    next_pid: u32,
    next_serial: u64,
    alone_since: u64,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            boot: 1,
            noted_boot: None,
            sandboxes: BTreeMap::new(),
            dirs: BTreeMap::new(),
            launcher: None,
            next_pid: PID_FIRST,
            next_serial: 1,
            alone_since: 0,
        }
    }
}

impl Host {
    pub(crate) fn launcher_dies(&mut self) {
        self.launcher = None;
        self.sandboxes.clear();
    }

    /// The machine starts anew; bits of `lost` say which unsynced files are gone.
    pub(crate) fn reboot(&mut self, lost: u64) {
        self.boot += 1;
        self.next_pid = PID_FIRST;
        self.launcher_dies();
        for (index, saved) in self.dirs.values_mut().enumerate() {
            if lost >> (index % 64) & 1 == 1 {
                *saved = None;
            }
        }
    }

    pub(crate) const fn server_left(&mut self, micros: u64) {
        self.alone_since = micros;
    }

    /// What the launcher did by itself while no server was there; names what it forgot.
    pub(crate) fn pass_time_alone(&mut self, micros: u64) -> Vec<AttemptId> {
        let alone_seconds = micros.saturating_sub(self.alone_since) / 1_000_000;
        let mut forgotten = Vec::new();
        if alone_seconds >= ORPHAN_PARKED_SECONDS {
            let parked = self.sandboxes.iter().filter(|(_, kept)| kept.phase == Phase::Parked);
            forgotten.extend(parked.map(|(attempt, _)| *attempt));
            self.sandboxes.retain(|_, kept| kept.phase != Phase::Parked);
        }
        if self.sandboxes.is_empty() && alone_seconds >= IDLE_SECONDS {
            self.launcher = None;
        }
        forgotten
    }

    /// Starts a launcher if there is none.
    pub(crate) fn launcher_pid(&mut self) -> u32 {
        self.launcher().pid
    }

    fn launcher(&mut self) -> Launcher {
        if let Some(launcher) = self.launcher {
            return launcher;
        }
        let launcher = Launcher { pid: self.next_pid, generation: self.next_serial };
        self.next_pid += 1;
        self.next_serial += 1;
        self.launcher = Some(launcher);
        launcher
    }

    /// Makes a parked sandbox; `None` when there is one of that name.
    pub(crate) fn create(&mut self, attempt: AttemptId, behaviour: AgentPlan) -> Option<Handle> {
        let launcher = self.launcher().generation;
        if self.sandboxes.contains_key(&attempt) {
            return None;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let kept = Kept { serial, phase: Phase::Parked, told: false, behaviour };
        self.sandboxes.insert(attempt, kept);
        Some(Handle { attempt, serial, launcher })
    }

    fn is_up(&self, handle: Handle) -> bool {
        self.launcher.is_some_and(|launcher| launcher.generation == handle.launcher)
    }

    fn kept(&mut self, handle: Handle) -> Option<&mut Kept> {
        let up = self.is_up(handle);
        let kept = self.sandboxes.get_mut(&handle.attempt).filter(|_| up);
        kept.filter(|kept| kept.serial == handle.serial)
    }

    /// What the launcher can be asked about, as far as it knows.
    pub(crate) fn inventory(&mut self) -> Vec<Found> {
        let launcher = self.launcher().generation;
        let found = self.sandboxes.iter().map(|(attempt, kept)| {
            let handle = Handle { attempt: *attempt, serial: kept.serial, launcher };
            match kept.phase {
                Phase::Parked => Found::Parked(handle),
                Phase::Running if !kept.told => Found::Parked(handle),
                Phase::Running | Phase::Finished(_) => Found::Running(handle),
            }
        });
        found.collect()
    }

    /// Destroys a sandbox; says how far it was, `None` when it is not there.
    pub(crate) fn release(&mut self, handle: Handle) -> Option<Phase> {
        let phase = self.kept(handle)?.phase;
        self.sandboxes.remove(&handle.attempt);
        Some(phase)
    }

    /// The end of the agent: `Err` when the launcher is gone, `Ok(None)` while it runs.
    pub(crate) fn ended(&mut self, handle: Handle) -> Result<Option<Exit>, ()> {
        match self.kept(handle).map(|kept| kept.phase) {
            Some(Phase::Finished(exit)) => Ok(Some(exit)),
            Some(_) => Ok(None),
            None => Err(()),
        }
    }

    fn finish(&mut self, handle: Handle, code: Option<i32>) {
        if let Some(kept) = self.kept(handle)
            && kept.phase == Phase::Running
        {
            kept.phase = Phase::Finished(Exit { code });
        }
    }
}

/// Tells a parked sandbox to start its agent; `false` when it is gone.
pub(crate) fn go(world: &Rc<World>, handle: Handle, timeout_seconds: u64) -> bool {
    let behaviour = {
        let mut host = world.host.borrow_mut();
        let Some(kept) = host.kept(handle) else { return false };
        kept.phase = Phase::Running;
        kept.behaviour
    };
    world.check.borrow_mut().begun(world, handle.attempt);
    let (told, told_micros) = (Rc::clone(world), world.range(1, 3_000));
    world.spawn(async move {
        crate::sched::sleep_micros(&told.sched, told_micros).await;
        if let Some(kept) = told.host.borrow_mut().kept(handle) {
            kept.told = true;
        }
    });
    if let Some(millis) = behaviour.runs_millis {
        end_later(world, handle, millis, Some(behaviour.code));
    }
    let wall_seconds = timeout_seconds + STOP_GRACE_SECONDS + BACKSTOP_SECONDS;
    end_later(world, handle, wall_seconds * 1000, KILLED_CODE);
    true
}

fn end_later(world: &Rc<World>, handle: Handle, millis: u64, code: Option<i32>) {
    let later = Rc::clone(world);
    world.spawn(async move {
        later.sleep_millis(millis).await;
        later.host.borrow_mut().finish(handle, code);
        later.host_changed.notify();
    });
}

/// SIGTERM. `Err` when the launcher is gone.
pub(crate) fn term(world: &Rc<World>, handle: Handle) -> Result<(), ()> {
    const OBEY_MILLIS_MAX: u64 = 3_000;
    let behaviour = world.host.borrow_mut().kept(handle).map(|kept| kept.behaviour).ok_or(())?;
    if !behaviour.ignores_term {
        end_later(world, handle, world.range(0, OBEY_MILLIS_MAX), KILLED_CODE);
    }
    Ok(())
}

/// SIGKILL. `Err` when the launcher is gone.
pub(crate) fn kill(world: &Rc<World>, handle: Handle) -> Result<(), ()> {
    let mut host = world.host.borrow_mut();
    host.kept(handle).ok_or(())?;
    host.finish(handle, KILLED_CODE);
    drop(host);
    world.host_changed.notify();
    Ok(())
}
