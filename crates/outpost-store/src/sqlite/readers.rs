//! Connections that only read, in two groups so that a long list never delays a point read.
//!
//! A point read takes microseconds and runs where it is called; a scan runs on a blocking thread,
//! as many at once as there are scan connections, the rest wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::StoreError;
use crate::sqlite::connect::{self, Place};

/// Connections for point reads.
const POINT_CONNECTIONS: usize = 4;
/// Connections for lists and other scans.
const SCAN_CONNECTIONS: usize = 2;
/// Most scans that run or wait; more are turned away with [`StoreError::Busy`].
pub const SCAN_QUEUE_MAX: usize = 512;

#[derive(Debug)]
pub(crate) struct Readers {
    points: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
    scans: Arc<Scans>,
}

#[derive(Debug)]
struct Scans {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts one scan for as long as it lives.
struct Ticket<'a>(&'a AtomicUsize);

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    pub(crate) fn open(place: &Place) -> Result<Self, StoreError> {
        let open = |count: usize| -> Result<Vec<Connection>, StoreError> {
            (0..count).map(|_| connect::reader(place)).collect()
        };
        let points = open(POINT_CONNECTIONS)?;
        Ok(Self {
            points: points.into_iter().map(Mutex::new).collect(),
            turn: AtomicUsize::new(0),
            scans: Arc::new(Scans {
                idle: Mutex::new(open(SCAN_CONNECTIONS)?),
                permits: Arc::new(Semaphore::new(SCAN_CONNECTIONS)),
                waiting: AtomicUsize::new(0),
            }),
        })
    }

    /// Runs a read of a few rows by key, here and now.
    pub(crate) fn point<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(&self.point_connection())
    }

    fn point_connection(&self) -> MutexGuard<'_, Connection> {
        for connection in &self.points {
            match connection.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % POINT_CONNECTIONS;
        locked(&self.points[turn])
    }

    /// Runs a read of many rows on a blocking thread.
    pub(crate) async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let scans = &self.scans;
        let waiting = scans.waiting.fetch_add(1, Ordering::Relaxed);
        let _ticket = Ticket(&scans.waiting);
        if waiting >= SCAN_QUEUE_MAX {
            return Err(StoreError::Busy);
        }
        let permit =
            Arc::clone(&scans.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let scans = Arc::clone(scans);
        let run = move || {
            let _permit = permit;
            let connection = locked(&scans.idle).pop().ok_or(StoreError::Closed)?;
            let outcome = read(&connection);
            locked(&scans.idle).push(connection);
            outcome
        };
        tokio::task::spawn_blocking(run)
            .await
            .map_err(|error| StoreError::Backend { source: Arc::new(error) })?
    }
}

/// A panic in a read leaves nothing half-done that the next could see.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
