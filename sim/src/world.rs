//! Everything one simulation consists of, and what its parts share: time, chance, the trace, and the
//! points at which somebody may die.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::rc::Rc;

use outpost_types::Timestamp;

use crate::check::Check;
use crate::disk::Disk;
use crate::host::Host;
use crate::plan::{Kill, Mutant, Plan};
use crate::rng::Rng;
use crate::sched::{Changed, Owner, Sched, sleep_micros};
use crate::server::Server;

/// What the wall clock shows at the begin, milliseconds since the Unix epoch.
const EPOCH_MILLIS: u64 = 1_800_000_000_000;
/// The chance of a jump at a point is this part of that in a second.
const POINT_JUMP_PART: u64 = 8;
/// Largest jump at a point, milliseconds.
const POINT_JUMP_MILLIS_MAX: u64 = 8_000;
/// Longest delay at a point, microseconds: what a busy machine makes of a few instructions.
const POINT_MICROS_MAX: u64 = 2_000;

/// One simulation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) sched: Rc<Sched>,
    pub(crate) plan: Plan,
    pub(crate) disk: RefCell<Disk>,
    pub(crate) host: RefCell<Host>,
    /// Something about sandboxes changed.
    pub(crate) host_changed: Changed,
    pub(crate) check: RefCell<Check>,
    pub(crate) server: RefCell<Option<Rc<Server>>>,
    /// A server came or went.
    pub(crate) server_changed: Changed,
    /// Faults are over.
    pub(crate) calm: Cell<bool>,
    /// Clients that are not done.
    pub(crate) clients: Cell<usize>,
    /// Wall clock minus true time, milliseconds.
    offset_millis: Cell<i64>,
    rng: RefCell<Rng>,
    points: Cell<u64>,
    trace: RefCell<Trace>,
}

impl World {
    pub(crate) fn new(plan: Plan, keep_trace: bool) -> Rc<Self> {
        Rc::new(Self {
            sched: Rc::new(Sched::default()),
            rng: RefCell::new(Rng::new(plan.seed ^ 0x5eed_0000_0000_0000)),
            plan,
            disk: RefCell::default(),
            host: RefCell::default(),
            host_changed: Changed::default(),
            check: RefCell::default(),
            server: RefCell::default(),
            server_changed: Changed::default(),
            calm: Cell::new(false),
            clients: Cell::new(0),
            offset_millis: Cell::new(0),
            points: Cell::new(0),
            trace: RefCell::new(Trace::new(keep_trace)),
        })
    }

    /// The wall clock, which jumps.
    pub(crate) fn now(&self) -> Timestamp {
        let millis = EPOCH_MILLIS + self.sched.now_millis();
        Timestamp::from_millis(millis.saturating_add_signed(self.offset_millis.get()))
    }

    /// Sets the wall clock to that much beside true time, milliseconds.
    pub(crate) fn set_clock(&self, millis: i64) {
        let jump = millis - self.offset_millis.replace(millis);
        self.check.borrow_mut().clock_jumped(self.sched.now_micros());
        self.trace(format_args!("the clock jumps by {jump} ms"));
    }

    /// True time, microseconds.
    pub(crate) fn micros(&self) -> u64 {
        self.sched.now_micros()
    }

    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.plan.mutant == Some(mutant)
    }

    pub(crate) fn range(&self, from: u64, to: u64) -> u64 {
        self.rng.borrow_mut().range(from, to)
    }

    /// Chance of a fault; none while it is calm.
    pub(crate) fn fault(&self, parts_per_million: u64) -> bool {
        !self.calm.get() && self.rng.borrow_mut().chance(parts_per_million)
    }

    pub(crate) async fn sleep_millis(&self, millis: u64) {
        sleep_micros(&self.sched, millis.saturating_mul(1000)).await;
    }

    pub(crate) fn spawn(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        self.sched.spawn(Owner::World, work);
    }

    pub(crate) const fn points(&self) -> u64 {
        self.points.get()
    }

    /// A step of the server between two others: it may die here, and others may come between.
    pub(crate) async fn point(self: &Rc<Self>, name: &str) {
        let number = self.points.get() + 1;
        self.points.set(number);
        self.trace(format_args!("point {number}: {name}"));
        for kill in self.kills_at(number) {
            self.kill(kill);
            if kill != Kill::Launcher {
                // The task is dropped before anything else happens.
                std::future::pending::<()>().await;
            }
        }
        if self.fault(self.plan.faults.clock_jump / POINT_JUMP_PART) {
            // A moment back, in the middle of things.
            let back = self.range(1, POINT_JUMP_MILLIS_MAX).cast_signed();
            self.set_clock(self.offset_millis.get() - back);
        }
        let micros = self.range(0, POINT_MICROS_MAX);
        if micros > POINT_MICROS_MAX / 2 {
            sleep_micros(&self.sched, micros).await;
        }
    }

    fn kills_at(&self, number: u64) -> Vec<Kill> {
        let planned = self.plan.kills.iter().filter(|(at, _)| *at == number);
        let mut kills: Vec<_> = planned.map(|(_, kill)| *kill).collect();
        let faults = &self.plan.faults;
        let chances = [
            (faults.launcher_kill, Kill::Launcher),
            (faults.reboot, Kill::Host),
            (faults.server_kill, Kill::Server),
        ];
        for (chance, kill) in chances {
            if self.fault(chance) {
                kills.push(kill);
            }
        }
        kills
    }

    pub(crate) fn kill(self: &Rc<Self>, kill: Kill) {
        self.trace(format_args!("{kill:?} dies"));
        match kill {
            Kill::Server => self.server_dies(),
            Kill::Launcher => self.launcher_dies(),
            Kill::Host => {
                self.launcher_dies();
                let lost: u64 = self.rng.borrow_mut().next();
                self.host.borrow_mut().reboot(lost);
                self.server_dies();
            }
        }
    }

    fn launcher_dies(&self) {
        self.check.borrow_mut().excuse_all(&self.disk.borrow());
        self.host.borrow_mut().launcher_dies();
        self.host_changed.notify();
    }

    pub(crate) fn server_dies(&self) {
        let Some(server) = self.server.borrow_mut().take() else { return };
        server.dies();
        self.sched.kill(Owner::Server(server.incarnation));
        self.host.borrow_mut().server_left(self.sched.now_micros());
        self.server_changed.notify();
    }

    /// Writes a line of the trace.
    pub(crate) fn trace(&self, line: fmt::Arguments<'_>) {
        self.trace.borrow_mut().line(self.sched.now_micros(), line);
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.trace.borrow().hash
    }

    pub(crate) fn take_trace(&self) -> String {
        std::mem::take(&mut self.trace.borrow_mut().text)
    }

    /// Something that must never be is.
    pub(crate) fn violated(&self, what: fmt::Arguments<'_>) {
        self.trace(format_args!("VIOLATION: {what}"));
        self.check.borrow_mut().violated(what.to_string());
        self.sched.stop();
    }
}

/// What happened, as a hash (FNV-1a) and, where wanted, as text.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    keep: bool,
    pub(crate) text: String,
}

impl Trace {
    pub(crate) const fn new(keep: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, keep, text: String::new() }
    }

    pub(crate) fn line(&mut self, micros: u64, line: fmt::Arguments<'_>) {
        // Writing into memory cannot fail.
        let _ = writeln!(self, "{micros:>12} {line}");
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.keep {
            self.text.push_str(text);
        }
        Ok(())
    }
}
