//! Power cuts, failing disks and damaged files for the store, on purpose.
//!
//! The real [`outpost_store::SqliteStore`] runs on a recorded disk: a layer under SQLite's file
//! interface notes every write, cut, sync and deletion. From the record, what a disk may hold after a
//! power cut at any position is made ([`image`]), the store is opened on it like after a crash, and
//! what it answers is compared with what had been acknowledged ([`check`]).
//!
//! The same layer makes calls fail, lie or take long ([`world::Fault`]). Everything follows from a
//! seed. Deliberately absent: crashes of the process alone (the store's own tests kill it), and disks
//! of other systems than Linux.

pub mod campaign;
pub mod check;
pub mod history;
pub mod image;
pub mod random;
pub mod rig;
pub mod vfs;
pub mod workload;
pub mod world;
