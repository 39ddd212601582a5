//! The model server: what the engine does around the core, step by step and in the same order. It
//! decides by the core, makes the decision durable, announces it, and only then executes its effects.
//!
//! Everything it knows is lost with it. Absent: logs, events, keys, HTTP; they decide nothing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use outpost_core::{Dispatch, Effect, Event, Queue, Rejection, State, effects};
use outpost_types::{AttemptId, DispatchId};

use crate::disk::{self, DiskError};
use crate::host::Found;
use crate::plan::Mutant;
use crate::runner::{Command, Resume, ResumeStage, lost};
use crate::sched::{Changed, Lock, Owner, Pipe, first};
use crate::world::World;

/// Pauses between tries to write what must not get lost, milliseconds: first and longest.
const BACKOFF_MILLIS: (u64, u64) = (50, 5_000);

/// Why an event was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApplyError {
    Rejected(Rejection),
    Disk(DiskError),
}

/// A dispatch that is not terminal, or was not a moment ago.
#[derive(Debug)]
pub(crate) struct Live {
    writing: Lock,
    record: RefCell<Dispatch>,
    pub(crate) changed: Changed,
    open: Cell<bool>,
    pub(crate) commands: RefCell<Option<Rc<Pipe<Command>>>>,
}

impl Live {
    pub(crate) fn new(record: Dispatch) -> Rc<Self> {
        Rc::new(Self {
            writing: Lock::default(),
            record: RefCell::new(record),
            changed: Changed::default(),
            open: Cell::new(false),
            commands: RefCell::default(),
        })
    }

    pub(crate) fn snapshot(&self) -> Dispatch {
        self.record.borrow().clone()
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open.get()
    }
}

/// One process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) world: Rc<World>,
    pub(crate) incarnation: u32,
    pub(crate) live: RefCell<BTreeMap<DispatchId, Rc<Live>>>,
    pub(crate) queue: RefCell<Queue>,
    pub(crate) fresh: RefCell<BTreeSet<DispatchId>>,
    /// Whose alarms are not heard, for the mutants that miss them.
    pub(crate) unheard: RefCell<BTreeSet<DispatchId>>,
    pub(crate) found: RefCell<BTreeMap<AttemptId, Found>>,
    pub(crate) store_closed: Cell<bool>,
    pub(crate) closing: Cell<bool>,
    closing_changed: Changed,
    /// Attempts, recorders and requests that run: what an orderly end waits for.
    pub(crate) busy: Cell<usize>,
    /// Keys of clients, for the mutant that keeps them here.
    pub(crate) keys: RefCell<BTreeMap<String, DispatchId>>,
    placer_wanted: Cell<bool>,
    pub(crate) placer_changed: Changed,
    dead: Cell<bool>,
    up_since: Cell<Option<u64>>,
}

impl Server {
    /// Starts a server that recovers and then serves.
    pub(crate) fn start(world: &Rc<World>, incarnation: u32) {
        let server = Rc::new(Self {
            world: Rc::clone(world),
            incarnation,
            live: RefCell::default(),
            queue: RefCell::default(),
            fresh: RefCell::default(),
            unheard: RefCell::default(),
            found: RefCell::default(),
            store_closed: Cell::new(false),
            closing: Cell::new(false),
            closing_changed: Changed::default(),
            busy: Cell::new(0),
            keys: RefCell::default(),
            placer_wanted: Cell::new(false),
            placer_changed: Changed::default(),
            dead: Cell::new(false),
            up_since: Cell::new(None),
        });
        world.trace(format_args!("server {incarnation} starts"));
        *world.server.borrow_mut() = Some(Rc::clone(&server));
        let recovering = Rc::clone(&server);
        server.spawn(async move {
            recovering.recover().await;
            recovering.up_since.set(Some(recovering.world.micros()));
            recovering.world.trace(format_args!("server {incarnation} serves"));
            recovering.world.server_changed.notify();
            let closing =
                recovering.closing_changed.until(|| recovering.closing.get().then_some(()));
            // Aborted wherever it is: what it has recorded by then, the next server takes up.
            first(closing, crate::placer::run(&recovering)).await;
        });
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.world.sched.spawn(Owner::Server(self.incarnation), work);
    }

    /// A task that an orderly end waits for.
    pub(crate) fn spawn_waited(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        self.busy.set(self.busy.get() + 1);
        let server = Rc::clone(self);
        self.spawn(async move {
            work.await;
            server.busy.set(server.busy.get() - 1);
        });
    }

    pub(crate) fn dies(&self) {
        self.dead.set(true);
    }

    /// The process is gone; only destructors of the simulation still run.
    pub(crate) const fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// Since when it serves, microseconds; `None` while it does not.
    pub(crate) const fn up_since(&self) -> Option<u64> {
        if self.closing.get() { None } else { self.up_since.get() }
    }

    pub(crate) fn live_one(&self, id: DispatchId) -> Option<Rc<Live>> {
        self.live.borrow().get(&id).cloned()
    }

    // ---- recovery ----

    async fn recover(self: &Rc<Self>) {
        let world = &self.world;
        world.point("recover: begin").await;
        let boot = world.host.borrow().boot;
        let rebooted = world.host.borrow().noted_boot.is_some_and(|noted| noted != boot);
        if world.has(Mutant::BootNotedFirst) {
            world.host.borrow_mut().noted_boot = Some(boot);
            world.point("recover: boot noted").await;
        }
        let records = world.disk.borrow().live();
        let held: Vec<_> = records.iter().filter(|record| record.holds_slot()).cloned().collect();
        self.sweep(&held).await;
        for record in records {
            self.insert(record);
        }
        world.point("recover: swept").await;
        if rebooted && !world.has(Mutant::BootNotedFirst) {
            self.fail_lost(&held).await;
        }
        for record in &held {
            if let (Some(live), Some(attempt)) = (self.live_one(record.id), record.attempt_id())
                && live.snapshot().holds_slot()
            {
                self.take_up(&live, attempt, rebooted).await;
            }
        }
        // Only now is everything that the reboot broke on record.
        world.host.borrow_mut().noted_boot = Some(boot);
    }

    fn insert(&self, record: Dispatch) {
        let live = Live::new(record);
        let id = live.record.borrow().id;
        self.live.borrow_mut().insert(id, Rc::clone(&live));
        self.enqueue(&live);
    }

    /// The record is durable: it is seen from now on, and may want a slot.
    pub(crate) fn enqueue(&self, live: &Live) {
        let record = live.record.borrow();
        self.observe(None, &record);
        live.open.set(true);
        self.fresh.borrow_mut().insert(record.id);
    }

    /// Records the attempts of which a reboot left nobody who could say whether their agent ran.
    async fn fail_lost(self: &Rc<Self>, held: &[Dispatch]) {
        for record in held.iter().filter(|r| matches!(r.state, State::Provisioning { .. })) {
            if let (Some(live), Some(attempt)) = (self.live_one(record.id), record.attempt_id()) {
                let event = Event::ProvisionFailed { attempt, failure: lost(), retry: false };
                self.apply_surely(&live, event).await;
            }
        }
        if self.store_closed.get() {
            // A server that cannot record this does not open: the next one must still see the reboot.
            std::future::pending::<()>().await;
        }
    }

    async fn take_up(self: &Rc<Self>, live: &Rc<Live>, attempt: AttemptId, rebooted: bool) {
        let record = live.snapshot();
        let world = &self.world;
        world.point("recover: take up").await;
        let stage = match &record.state {
            State::Running { .. } => ResumeStage::Started,
            State::Completing { .. } => ResumeStage::Ended(record.facts.exit_code),
            _ => ResumeStage::Placed { rebooted },
        };
        crate::attempt::start(self, live, attempt, Some(Resume { stage }));
        if world.has(Mutant::NoRearm) && matches!(record.state, State::Running { .. }) {
            self.unheard.borrow_mut().insert(record.id);
        }
        for effect in effects(None, &record) {
            let forgotten = match &effect {
                Effect::StopAgent { .. } => world.has(Mutant::CancelLost),
                Effect::Collect(_) => world.has(Mutant::CollectLost),
                _ => false,
            };
            if !forgotten {
                self.execute(live, effect);
            }
        }
    }

    /// Removes what no live attempt owns, and holds the rest for its attempts.
    async fn sweep(&self, held: &[Dispatch]) {
        const AGAIN_MILLIS: u64 = 200;
        let world = &self.world;
        let live: BTreeSet<_> = held.iter().filter_map(Dispatch::attempt_id).collect();
        let forgotten = world.host.borrow_mut().pass_time_alone(world.micros());
        for attempt in forgotten {
            world.check.borrow_mut().excuse(attempt.dispatch);
        }
        while world.fault(world.plan.faults.reattach_fails) {
            if world.has(Mutant::SweepErrorIgnored) {
                return;
            }
            world.sleep_millis(AGAIN_MILLIS).await;
        }
        world.point("recover: reattach").await;
        let inventory = world.host.borrow_mut().inventory();
        for found in inventory {
            let (Found::Parked(handle) | Found::Running(handle)) = found;
            if live.contains(&handle.attempt) {
                self.found.borrow_mut().insert(handle.attempt, found);
            } else if !world.has(Mutant::NoSweep) {
                world.host.borrow_mut().release(handle);
                world.point("recover: stray released").await;
            }
        }
        if !world.has(Mutant::NoSweep) {
            world.host.borrow_mut().dirs.retain(|attempt, _| live.contains(attempt));
        }
    }

    // ---- events ----

    /// Applies an event that must not get lost.
    pub(crate) async fn apply_surely(self: &Rc<Self>, live: &Rc<Live>, event: Event) {
        let mut backoff_millis = BACKOFF_MILLIS.0;
        loop {
            match self.apply(live, &event).await {
                Ok(_) | Err(ApplyError::Rejected(_)) => return,
                Err(ApplyError::Disk(DiskError::Closed)) => return,
                Err(ApplyError::Disk(_)) if self.world.has(Mutant::NoSecondTry) => return,
                Err(ApplyError::Disk(DiskError::Stale)) => self.reread(live).await,
                Err(ApplyError::Disk(_)) => {}
            }
            self.world.sleep_millis(backoff_millis).await;
            backoff_millis = (backoff_millis * 2).min(BACKOFF_MILLIS.1);
        }
    }

    /// Takes up a record that a write of ours reached without our hearing of it.
    async fn reread(self: &Rc<Self>, live: &Rc<Live>) {
        let held = live.writing.hold().await;
        let known = live.snapshot();
        if let Ok(Some(record)) = disk::get(&self.world, self, known.id).await
            && record.generation > known.generation
        {
            self.announce(live, &known, &record);
            drop(held);
            for effect in effects(Some(&known), &record) {
                self.execute(live, effect);
            }
        }
    }

    /// Applies an event: decide, make durable, announce, execute.
    pub(crate) async fn apply(
        self: &Rc<Self>,
        live: &Rc<Live>,
        event: &Event,
    ) -> Result<Dispatch, ApplyError> {
        let world = &self.world;
        let held = live.writing.hold().await;
        let before = live.snapshot();
        let transition =
            outpost_core::step(&before, event, world.now()).map_err(ApplyError::Rejected)?;
        world.check.borrow_mut().applied(&before, named(event));
        let after = transition.next;
        if world.has(Mutant::EffectsFirst) {
            for effect in transition.effects.clone() {
                self.execute(live, effect);
            }
        }
        match disk::update(world, self, &after, before.generation).await {
            Ok(()) => {}
            Err(DiskError::Unknown) if !world.has(Mutant::LostAnswerForgetsEffects) => {
                self.settle(&after).await.map_err(ApplyError::Disk)?;
            }
            Err(error) => return Err(ApplyError::Disk(error)),
        }
        self.announce(live, &before, &after);
        drop(held);
        for effect in transition.effects {
            world.point("effect").await;
            if world.has(Mutant::EffectsTwice) {
                self.execute(live, effect.clone());
            }
            if !world.has(Mutant::EffectsFirst) {
                self.execute(live, effect);
            }
        }
        world.point("effects done").await;
        Ok(after)
    }

    /// Finds out whether a write was made of which that is not known. Nobody else writes this record,
    /// so one of that generation is ours.
    async fn settle(self: &Rc<Self>, wanted: &Dispatch) -> Result<(), DiskError> {
        loop {
            match disk::get(&self.world, self, wanted.id).await {
                Ok(Some(record)) if record.generation >= wanted.generation => return Ok(()),
                Ok(_) => return Err(DiskError::Failed),
                Err(DiskError::Closed) => return Err(DiskError::Closed),
                Err(_) => self.world.sleep_millis(BACKOFF_MILLIS.0).await,
            }
        }
    }

    /// Keeps the queue in step with the records.
    pub(crate) fn observe(&self, before: Option<&Dispatch>, after: &Dispatch) {
        let mut queue = self.queue.borrow_mut();
        if !self.world.has(Mutant::WorkspacesShared) {
            return queue.observe(before, after);
        }
        let apart = |record: &Dispatch| {
            let mut record = record.clone();
            record.spec.workspace = None;
            record
        };
        queue.observe(before.map(apart).as_ref(), &apart(after));
    }

    fn announce(&self, live: &Rc<Live>, before: &Dispatch, after: &Dispatch) {
        let leaks = self.world.has(Mutant::SlotLeak)
            && before.holds_slot()
            && matches!(after.state, State::Queued { .. });
        self.observe(if leaks { None } else { Some(before) }, after);
        *live.record.borrow_mut() = after.clone();
        live.changed.notify();
        if after.status().is_terminal() {
            self.live.borrow_mut().remove(&after.id);
        }
    }

    // ---- effects ----

    /// Executes one effect. Nothing here waits.
    pub(crate) fn execute(self: &Rc<Self>, live: &Rc<Live>, effect: Effect) {
        self.world.trace(format_args!("execute {effect:?}"));
        match effect {
            Effect::Place => self.wake_placer(),
            Effect::StartAttempt(attempt) => crate::attempt::start(self, live, attempt, None),
            Effect::AbortProvisioning(_) => command(live, Command::Abort),
            Effect::StopAgent { .. } => command(live, Command::Stop),
            Effect::Collect(_) => command(live, Command::Collect),
            Effect::Retire(attempt) => {
                if let Some(commands) = live.commands.take() {
                    commands.close();
                }
                let server = Rc::clone(self);
                self.spawn(async move {
                    server.world.point("remove the directory").await;
                    server.world.host.borrow_mut().dirs.remove(&attempt);
                });
            }
        }
    }

    // ---- placing, leaving ----

    pub(crate) fn wake_placer(&self) {
        self.placer_wanted.set(true);
        self.placer_changed.notify();
    }

    pub(crate) const fn take_wish(&self) -> bool {
        self.placer_wanted.replace(false)
    }

    /// Ends this server, but no agent.
    pub(crate) async fn leave(self: &Rc<Self>) {
        const LEAVE_MILLIS_MAX: u64 = 20_000;
        let early = self.world.has(Mutant::LeavesUnannounced);
        self.closing.set(!early);
        let all: Vec<_> = self.live.borrow().values().cloned().collect();
        for live in all {
            if let Some(commands) = live.commands.take() {
                commands.close();
            }
            if early {
                self.world.point("leave: let go").await;
            }
        }
        self.closing.set(true);
        self.closing_changed.notify();
        let until = self.world.micros() + LEAVE_MILLIS_MAX * 1000;
        while self.busy.get() > 0 && self.world.micros() < until {
            self.world.sleep_millis(10).await;
        }
    }
}

/// The attempt that an event names.
const fn named(event: &Event) -> Option<AttemptId> {
    match event {
        Event::AgentStarted { attempt, .. }
        | Event::ProvisionFailed { attempt, .. }
        | Event::AgentExited { attempt, .. }
        | Event::DeadlinePassed { attempt }
        | Event::Parked { attempt, .. }
        | Event::Collected { attempt, .. }
        | Event::WorkerLost { attempt } => Some(*attempt),
        Event::Placed
        | Event::MustWait(_)
        | Event::Expired
        | Event::NetworkChanged { .. }
        | Event::CancelRequested { .. } => None,
    }
}

fn command(live: &Live, command: Command) {
    if let Some(commands) = live.commands.borrow().as_ref() {
        commands.send(command);
    }
}
