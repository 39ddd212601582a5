//! The layer under SQLite: passes every call to the system's own, and tells the world about changes.
//!
//! One layer is registered per world, under a name of its own, for as long as its [`Layer`] lives.
//! The functions SQLite calls never unwind: they lock without panicking and index nothing.
//!
//! A sync of a log through a handle that may create it also syncs the directory: that is what
//! `unixSync` does for a log (flag `UNIXFILE_DIRSYNC`, sqlite3.c).
#![expect(unsafe_code, reason = "SQLite's file layer is a table of C functions")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use rusqlite::ffi;

use crate::world::{Call, FileId, FileKind, Step, Trouble, World};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// What follows the fields SQLite knows of a layer.
struct State {
    world: Arc<World>,
    real: *mut ffi::sqlite3_vfs,
    name: CString,
}

/// A registered layer. Drop it after the last connection that uses it was closed.
pub struct Layer {
    vfs: *mut ffi::sqlite3_vfs,
    name: String,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An open file: this, and after it the system's own.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    world: *const World,
    /// `None`: not one of the store's.
    file: Option<FileId>,
    kind: FileKind,
    syncs_names: bool,
}

impl Layer {
    /// Registers a layer for `world`.
    ///
    /// # Errors
    /// When SQLite has no file layer of its own.
    pub fn register(world: Arc<World>) -> anyhow::Result<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("powerloss-{serial}");
        // SAFETY: a null name asks for the default layer; registered layers are never freed by SQLite.
        let real = unsafe {
            ffi::sqlite3_initialize();
            ffi::sqlite3_vfs_find(c"unix".as_ptr())
        };
        if real.is_null() {
            bail!("SQLite was built without its layer for Unix");
        }
        let state = Box::new(State { world, real, name: CString::new(name.as_str())? });
        // SAFETY: `real` was found above and stays valid for the life of the process.
        let mut vfs = Box::new(unsafe { *real });
        vfs.pNext = null_mut();
        vfs.iVersion = vfs.iVersion.min(2);
        vfs.szOsFile += c_int::try_from(size_of::<Handle>()).context("size of a handle")?;
        vfs.zName = state.name.as_ptr();
        vfs.pAppData = Box::into_raw(state).cast();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        let vfs = Box::into_raw(vfs);
        // SAFETY: `vfs` is complete and lives until `drop` unregisters it.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        let layer = Self { vfs, name };
        if code != ffi::SQLITE_OK {
            bail!("SQLite refused the layer: {code}");
        }
        Ok(layer)
    }

    /// The name to open a store with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        // SAFETY: both boxes were made by `register`; after unregistering nobody finds them, and the
        // caller promised that no connection is open.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.vfs);
            let vfs = Box::from_raw(self.vfs);
            drop(Box::from_raw(vfs.pAppData.cast::<State>()));
        }
    }
}

/// The handle and the system's own file after it.
///
/// # Safety
/// `file` is one this layer opened.
unsafe fn parts<'a>(file: *mut ffi::sqlite3_file) -> (&'a Handle, *mut ffi::sqlite3_file) {
    // SAFETY: SQLite gave `open` room for a `Handle` and the real file behind it, aligned to 8 bytes.
    unsafe { (&*file.cast::<Handle>(), file.byte_add(size_of::<Handle>())) }
}

/// Calls a function of the system's own file.
macro_rules! real {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite hands back what `open` made; the real file was opened by the real layer,
        // which set all methods of its version.
        unsafe {
            let (_, real) = parts($file);
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $argument)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    }};
}

/// The kind and the identity of one of the store's files.
///
/// # Safety
/// `file` is one this layer opened.
unsafe fn known<'a>(file: *mut ffi::sqlite3_file) -> (&'a Handle, &'a World) {
    // SAFETY: by the caller; the world outlives the layer, which outlives its files.
    unsafe {
        let (handle, _) = parts(file);
        (handle, &*handle.world)
    }
}

fn kind_of(flags: c_int) -> FileKind {
    if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        FileKind::Database
    } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
        FileKind::Log
    } else {
        FileKind::Other
    }
}

/// # Safety
/// `name` is null or a text of SQLite's.
unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: by the caller.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Some(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

/// Name below the world's directory.
fn name_in<'a>(world: &World, path: &'a Path) -> Option<std::borrow::Cow<'a, str>> {
    (path.parent()? == world.directory())
        .then(|| path.file_name().map(|name| name.to_string_lossy()))?
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this with the layer that was registered, a name or null, and room for
    // `szOsFile` bytes. The file has no methods until it is open, so SQLite will not close it.
    unsafe {
        (*file).pMethods = std::ptr::null();
        let state = &*(*vfs).pAppData.cast::<State>();
        let world = &*state.world;
        let kind = kind_of(flags);
        let path = path_of(name);
        let local = path.and_then(|path| name_in(world, path));
        let existed = path.is_some_and(Path::exists);
        let real = file.byte_add(size_of::<Handle>());
        if local.is_some() {
            match world.trouble(Call::Open, kind) {
                Some(Trouble::Slow(time)) => std::thread::sleep(time),
                Some(_) => return ffi::SQLITE_CANTOPEN,
                None => {}
            }
        }
        let Some(open) = (*state.real).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let code = open(state.real, name, real, flags, out_flags);
        if code != ffi::SQLITE_OK {
            return code;
        }
        let syncs_names = flags & ffi::SQLITE_OPEN_CREATE != 0
            && flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0;
        file.cast::<Handle>().write(Handle {
            base: ffi::sqlite3_file { pMethods: &raw const METHODS },
            world,
            file: local.map(|name| world.opened(&name, existed)),
            kind,
            syncs_names,
        });
        code
    }
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let state = &*(*vfs).pAppData.cast::<State>();
        let local = path_of(name).and_then(|path| name_in(&state.world, path));
        let Some(delete) = (*state.real).xDelete else {
            return ffi::SQLITE_IOERR_DELETE;
        };
        let Some(local) = local else {
            return delete(state.real, name, sync_directory);
        };
        state.world.pass_gate();
        let code = state.world.change(|| {
            let code = delete(state.real, name, sync_directory);
            let step = Step::Delete { name: local.into_owned() };
            (code, (code == ffi::SQLITE_OK).then_some(step))
        });
        if code == ffi::SQLITE_OK && sync_directory != 0 {
            state.world.note(Step::SyncNames);
        }
        code
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    real!(file, xClose)
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite hands back what `open` made.
    let (handle, world) = unsafe { known(file) };
    if handle.file.is_some() {
        match world.trouble(Call::Read, handle.kind) {
            Some(Trouble::Slow(time)) => std::thread::sleep(time),
            Some(_) => return ffi::SQLITE_IOERR_READ,
            None => {}
        }
    }
    real!(file, xRead, into, amount, offset)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite hands back what `open` made.
    let (handle, world) = unsafe { known(file) };
    let Some(id) = handle.file else {
        return real!(file, xWrite, from, amount, offset);
    };
    world.pass_gate();
    let (amount, code) = match world.trouble(Call::Write, handle.kind) {
        Some(Trouble::Full) => (amount / 2, ffi::SQLITE_FULL),
        Some(Trouble::Slow(time)) => {
            std::thread::sleep(time);
            (amount, ffi::SQLITE_OK)
        }
        Some(_) => (amount / 2, ffi::SQLITE_IOERR_WRITE),
        None => (amount, ffi::SQLITE_OK),
    };
    world.change(|| {
        let done = real!(file, xWrite, from, amount, offset);
        if done != ffi::SQLITE_OK {
            return (done, None);
        }
        let length = usize::try_from(amount).unwrap_or(0);
        // SAFETY: SQLite hands in at least `amount` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) }.to_vec();
        let offset = u64::try_from(offset).unwrap_or(0);
        (code, Some(Step::Write { file: id, offset, bytes }))
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite hands back what `open` made.
    let (handle, world) = unsafe { known(file) };
    let Some(id) = handle.file else {
        return real!(file, xTruncate, size);
    };
    world.pass_gate();
    match world.trouble(Call::Truncate, handle.kind) {
        Some(Trouble::Slow(time)) => std::thread::sleep(time),
        Some(_) => return ffi::SQLITE_IOERR_TRUNCATE,
        None => {}
    }
    world.change(|| {
        let code = real!(file, xTruncate, size);
        let bytes = u64::try_from(size).unwrap_or(0);
        (code, (code == ffi::SQLITE_OK).then_some(Step::Truncate { file: id, bytes }))
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite hands back what `open` made.
    let (handle, world) = unsafe { known(file) };
    let Some(id) = handle.file else {
        return real!(file, xSync, flags);
    };
    world.pass_gate();
    match world.trouble(Call::Sync, handle.kind) {
        Some(Trouble::Slow(time)) => std::thread::sleep(time),
        Some(Trouble::Lie) => return ffi::SQLITE_OK,
        Some(_) => {
            world.note(Step::SyncFailed { file: id });
            return ffi::SQLITE_IOERR_FSYNC;
        }
        None => {}
    }
    // The record is all that must last: the real files are thrown away with their directory.
    world.note(Step::Sync { file: id });
    if handle.syncs_names {
        world.note(Step::SyncNames);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    real!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    real!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    real!(file, xUnlock, level)
}

unsafe extern "C" fn check_lock(file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    real!(file, xCheckReservedLock, held)
}

unsafe extern "C" fn control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    real!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    real!(file, xSectorSize)
}

unsafe extern "C" fn characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    real!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    real!(file, xShmMap, region, bytes, extend, out)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    real!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: as in `real!`.
    unsafe {
        let (_, real) = parts(file);
        if let Some(barrier) = (*(*real).pMethods).xShmBarrier {
            barrier(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, remove: c_int) -> c_int {
    real!(file, xShmUnmap, remove)
}

/// Version 2: no memory-mapped reads, which would pass by this layer.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
