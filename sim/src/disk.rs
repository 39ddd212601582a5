//! The model of the store: records that change by compare-and-set on their generation, idempotency
//! keys, the number of audit entries of each dispatch. A write is made whole or not at all; the
//! server may die before it, or after it and before hearing of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use outpost_core::Dispatch;
use outpost_types::{DispatchId, Timestamp};

use crate::plan::{Kill, Mutant};
use crate::server::Server;
use crate::world::World;

/// Latency of an ordinary write, microseconds: a sync of a group of writes.
const WRITE_MICROS: (u64, u64) = (200, 8_000);
/// Latency of a write on a slow disk, milliseconds.
const SLOW_MILLIS: (u64, u64) = (500, 15_000);
/// How long a server with a closed store goes on until somebody restarts it, milliseconds.
const CLOSED_MILLIS: u64 = 3_000;

/// Why the store did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskError {
    /// Nothing was written; it may work in a moment.
    Failed,
    /// Nobody knows whether it was written.
    Unknown,
    /// Somebody else changed the record first.
    Stale,
    /// The store takes nothing more until the server is restarted.
    Closed,
}

/// What became of an accept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Accepted {
    New,
    Replayed(Box<Dispatch>),
}

/// What is on disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<DispatchId, Dispatch>,
    pub(crate) audits: BTreeMap<DispatchId, u64>,
    keys: BTreeMap<String, (DispatchId, Timestamp)>,
    /// Until when it cannot be expected to work well, microseconds of true time.
    pub(crate) troubled_until: u64,
    pub(crate) full: bool,
}

impl Disk {
    pub(crate) fn live(&self) -> Vec<Dispatch> {
        let live = self.records.values().filter(|record| !record.status().is_terminal());
        live.cloned().collect()
    }

    fn accept(&mut self, dispatch: &Dispatch, claim: Option<(&str, Timestamp)>) -> Accepted {
        if let Some((key, expires_at)) = claim {
            if let Some((id, until)) = self.keys.get(key)
                && *until > dispatch.created_at
                && let Some(first) = self.records.get(id)
            {
                return Accepted::Replayed(Box::new(first.clone()));
            }
            self.keys.insert(key.to_owned(), (dispatch.id, expires_at));
        }
        self.records.insert(dispatch.id, dispatch.clone());
        Accepted::New
    }

    fn update(&mut self, next: &Dispatch, expected: u64) -> Result<Dispatch, DiskError> {
        let Some(record) = self.records.get_mut(&next.id) else { return Err(DiskError::Stale) };
        if record.generation != expected {
            return Err(DiskError::Stale);
        }
        Ok(std::mem::replace(record, next.clone()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Made,
    Failed,
    AnswerLost,
    ClosedBefore,
    ClosedAfter,
}

fn fate(world: &World) -> Fate {
    let faults = &world.plan.faults;
    if world.fault(faults.disk_fail) {
        Fate::Failed
    } else if world.fault(faults.answer_lost) {
        Fate::AnswerLost
    } else if world.fault(faults.store_dies) {
        [Fate::ClosedBefore, Fate::ClosedAfter][usize::from(world.range(0, 1) == 1)]
    } else {
        Fate::Made
    }
}

/// Everything of a write but the change itself: latency, faults, death.
async fn write<T>(
    world: &Rc<World>,
    server: &Rc<Server>,
    change: impl FnOnce(&mut Disk) -> Result<T, DiskError>,
) -> Result<T, DiskError> {
    if server.store_closed.get() {
        return Err(DiskError::Closed);
    }
    world.point("write").await;
    let fate = fate(world);
    let mut micros = world.range(WRITE_MICROS.0, WRITE_MICROS.1);
    if world.fault(world.plan.faults.disk_slow) {
        micros = world.range(SLOW_MILLIS.0, SLOW_MILLIS.1) * 1000;
        troubled(world, micros / 1000);
    }
    crate::sched::sleep_micros(&world.sched, micros).await;
    if world.disk.borrow().full || fate == Fate::Failed {
        troubled(world, 0);
        return Err(DiskError::Failed);
    }
    if server.store_closed.get() || fate == Fate::ClosedBefore {
        close(world, server);
        return Err(DiskError::Unknown);
    }
    let result = change(&mut world.disk.borrow_mut());
    world.point("written").await;
    match fate {
        Fate::AnswerLost => {
            troubled(world, 0);
            Err(DiskError::Unknown)
        }
        Fate::ClosedAfter => {
            close(world, server);
            Err(DiskError::Unknown)
        }
        _ => result,
    }
}

/// For some seconds nothing can be expected to be done in time.
fn troubled(world: &World, millis: u64) {
    const AFTER_MILLIS: u64 = 12_000;
    let until = world.micros() + (millis + AFTER_MILLIS) * 1000;
    let mut disk = world.disk.borrow_mut();
    disk.troubled_until = disk.troubled_until.max(until);
}

fn close(world: &Rc<World>, server: &Rc<Server>) {
    troubled(world, CLOSED_MILLIS);
    if server.store_closed.replace(true) {
        return;
    }
    world.trace(format_args!("the store closes"));
    let (world_later, incarnation) = (Rc::clone(world), server.incarnation);
    world.spawn(async move {
        world_later.sleep_millis(CLOSED_MILLIS).await;
        let current = world_later.server.borrow().as_ref().map(|server| server.incarnation);
        if current == Some(incarnation) {
            world_later.kill(Kill::Server);
        }
    });
}

/// Stores a new dispatch with its key and its audit entry.
pub(crate) async fn accept(
    world: &Rc<World>,
    server: &Rc<Server>,
    dispatch: &Dispatch,
    claim: Option<(&str, Timestamp)>,
) -> Result<Accepted, DiskError> {
    let checked = Rc::clone(world);
    let accepted = write(world, server, move |disk| {
        let accepted = disk.accept(dispatch, claim);
        if accepted == Accepted::New {
            *disk.audits.entry(dispatch.id).or_default() += 1;
            checked.check.borrow_mut().recorded(&checked, None, dispatch, claim.map(|c| c.0));
        }
        Ok(accepted)
    });
    accepted.await
}

/// Replaces a record that is still at that generation, with an audit entry.
pub(crate) async fn update(
    world: &Rc<World>,
    server: &Rc<Server>,
    next: &Dispatch,
    expected: u64,
) -> Result<(), DiskError> {
    let checked = Rc::clone(world);
    let apart = world.has(Mutant::AuditApart);
    let id = next.id;
    let updated = write(world, server, move |disk| {
        let before = disk.update(next, expected)?;
        if !apart {
            *disk.audits.entry(id).or_default() += 1;
        }
        let mut check = checked.check.borrow_mut();
        check.recorded(&checked, Some(&before), next, None);
        check.slots(&disk.records, &checked.plan.limits);
        if !apart {
            check.audited(next, disk.audits.get(&id).copied());
        }
        Ok(())
    });
    updated.await?;
    if apart {
        write(world, server, |disk| {
            *disk.audits.entry(id).or_default() += 1;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Reads a record.
pub(crate) async fn get(
    world: &Rc<World>,
    server: &Rc<Server>,
    id: DispatchId,
) -> Result<Option<Dispatch>, DiskError> {
    if server.store_closed.get() {
        return Err(DiskError::Closed);
    }
    crate::sched::sleep_micros(&world.sched, world.range(20, 400)).await;
    Ok(world.disk.borrow().records.get(&id).cloned())
}
