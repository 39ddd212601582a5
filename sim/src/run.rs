//! Runs one simulation from its plan: clients, chance, whoever restarts the server, and the judge.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use outpost_types::DispatchStatus;

use crate::check::Check;
use crate::plan::{JUMP_SECONDS_MAX, Kill, Plan};
use crate::sched::Owner;
use crate::server::Server;
use crate::world::World;

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first thing that must never be and was.
    pub violation: Option<String>,
    /// Hash of everything that happened, in order.
    pub trace_hash: u64,
    /// Everything that happened, one line each; empty unless asked for.
    pub trace: String,
    /// Points at which something could have died.
    pub points: u64,
    /// Servers that ran.
    pub servers: u32,
    /// How many dispatches ended how.
    pub ends: BTreeMap<DispatchStatus, u64>,
}

/// Runs it.
#[must_use]
pub fn simulate(plan: Plan, keep_trace: bool) -> Outcome {
    let world = World::new(plan, keep_trace);
    let servers = Rc::new(std::cell::Cell::new(0));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        world.clients.set(world.plan.jobs.len());
        for index in 0..world.plan.jobs.len() {
            world.spawn(crate::client::life(Rc::clone(&world), index));
        }
        world.spawn(keep_server_up(Rc::clone(&world), Rc::clone(&servers)));
        world.spawn(chance(Rc::clone(&world)));
        world.spawn(judge(Rc::clone(&world)));
        world.sched.run()
    }));
    let ran = ran.unwrap_or(Err("a panic; its message is on standard error"));
    if let Err(what) = ran {
        world.violated(format_args!("{what}"));
    }
    if let Some(server) = world.server.borrow_mut().take() {
        server.dies();
    }
    world.sched.clear();
    Outcome {
        violation: world.check.borrow().violation().cloned(),
        trace_hash: world.trace_hash(),
        trace: world.take_trace(),
        points: world.points(),
        servers: servers.get(),
        ends: world.check.borrow().ends.clone(),
    }
}

/// The operator's supervisor: whenever there is no server, it starts one after a while.
async fn keep_server_up(world: Rc<World>, servers: Rc<std::cell::Cell<u32>>) {
    loop {
        servers.set(servers.get() + 1);
        Server::start(&world, servers.get());
        let gone = || world.server.borrow().is_none().then_some(());
        world.server_changed.until(gone).await;
        let (least, most) = world.plan.away_millis;
        world.sleep_millis(world.range(least, most)).await;
    }
}

/// What goes wrong by itself, looked at once a second, until it is calm.
async fn chance(world: Rc<World>) {
    let faults = world.plan.faults;
    if let Some((from, to)) = world.plan.disk_full_millis {
        world.sleep_millis(from).await;
        world.disk.borrow_mut().full = true;
        world.trace(format_args!("the disk is full"));
        world.sleep_millis(to - from).await;
        disk_has_room(&world);
    }
    for _ in 0..world.plan.chaos_seconds {
        world.sleep_millis(1000).await;
        if world.fault(faults.clock_jump) {
            let [few, some, most] = [3_000, 30_000, JUMP_SECONDS_MAX * 1000];
            let bound = [few, some, most][usize::try_from(world.range(0, 2)).unwrap_or(0)];
            let millis = world.range(0, bound).cast_signed();
            world.set_clock(if world.range(0, 1) == 0 { millis } else { -millis });
        }
        if world.fault(faults.leave) {
            leave(&world);
        }
        if world.disk.borrow().full {
            if world.range(0, 5) == 0 {
                disk_has_room(&world);
            }
        } else if world.fault(faults.disk_full) {
            world.trace(format_args!("the disk is full"));
            world.disk.borrow_mut().full = true;
        }
    }
    disk_has_room(&world);
    world.calm.set(true);
    world.trace(format_args!("calm"));
}

fn disk_has_room(world: &World) {
    const SETTLE_MICROS: u64 = 12_000_000;
    let mut disk = world.disk.borrow_mut();
    if disk.full {
        disk.full = false;
        disk.troubled_until = disk.troubled_until.max(world.micros() + SETTLE_MICROS);
    }
}

/// An orderly restart of the server.
fn leave(world: &Rc<World>) {
    let Some(server) = world.server.borrow().as_ref().cloned() else { return };
    if server.up_since().is_none() || server.closing.get() {
        return;
    }
    world.trace(format_args!("the server leaves"));
    let world = Rc::clone(world);
    world.sched.clone().spawn(Owner::Server(server.incarnation), async move {
        server.leave().await;
        world.kill(Kill::Server);
    });
}

/// Looks once a second whether all is well, and at the end whether everything was kept.
async fn judge(world: Rc<World>) {
    let (mut calm_since, mut was_done) = (None, false);
    loop {
        world.sleep_millis(1000).await;
        world.check.borrow_mut().tick(&world);
        if world.check.borrow().violation().is_some() {
            return world.sched.stop();
        }
        if !world.calm.get() {
            continue;
        }
        let since = *calm_since.get_or_insert_with(|| world.micros());
        let done = is_done(&world);
        // At the second look in a row: what follows from the last record takes a moment.
        if done && was_done {
            world.check.borrow_mut().finish(&world);
            return world.sched.stop();
        }
        was_done = done;
        if world.micros() - since > Check::drain_seconds_max(&world) * 1_000_000 {
            world.violated(format_args!("faults are over, and still not everything ended"));
            return;
        }
    }
}

/// Nothing is left to do, and nobody is left who could do it.
fn is_done(world: &World) -> bool {
    let served = world.server.borrow().as_ref().is_some_and(|server| {
        server.up_since().is_some() && server.busy.get() == 0 && server.live.borrow().is_empty()
    });
    served && world.clients.get() == 0 && world.disk.borrow().live().is_empty()
}
