//! Builds the root file system of a sandbox and moves into it.
//!
//! Everything is done relative to descriptors of the new root, component by component and without following links,
//! so a link planted in a bound directory leads nowhere. Deliberately absent: /sys, and any mount that a payload
//! could use to reach the host's tree.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, symlinkat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};

use super::overlay::Layers;
use super::{Failure, Order, at, landlock};
use crate::spec::{Access, HOME_INSIDE, binds_exactly};
use crate::sys::{mount_setattr, mount_writable};
use crate::userland::{DEVICES, Piece, Userland, synthesised_etc};
use crate::weakness::{HOST_ROOT_INSIDE, Weakness};

/// Size of the root's own file system: it holds mount points and a few short files.
const ROOT_BYTES_MAX: u64 = 4 << 20;
/// Size of /dev/shm.
const SHM_BYTES_MAX: u64 = 64 << 20;
/// Bytes per inode granted to /tmp and HOME; inodes are memory too.
const BYTES_PER_INODE: u64 = 4096;
/// Where the new root is put for a moment. Every system has it, and nothing below it is needed while building.
const STAGING: &str = "/tmp";
/// Where the layers of an overlay are put for a moment, in the new root.
const STAGING_INSIDE: &str = "mnt";

const RO: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;

/// What the launcher opened for a bind, waiting for its place inside.
#[derive(Debug)]
pub(crate) struct OpenBind {
    pub(crate) source: Source,
    pub(crate) inside: std::path::PathBuf,
    pub(crate) access: Access,
}

/// What a bind shows.
#[derive(Debug)]
pub(crate) enum Source {
    /// A copied mount.
    Mount { mount: OwnedFd, is_dir: bool },
    /// Layers to be made one.
    Overlay(Layers),
}

impl OpenBind {
    /// Its open descriptors.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        match &self.source {
            Source::Mount { mount, .. } => vec![mount.as_raw_fd()],
            Source::Overlay(layers) => layers.descriptors(),
        }
    }

    /// What a disk limit is about: where the host keeps what is written.
    pub(crate) fn written(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            _ if self.access == Access::ReadOnly => None,
            Source::Mount { mount, .. } => Some(mount.as_fd()),
            Source::Overlay(layers) => layers.written(),
        }
    }
}

/// Copies the mount at `host`, a path of the system's own, with everything below it, detached.
pub(crate) fn copy_mount(host: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, host, copy_flags())?)
}

/// Copies the mount at a path that a caller gave. No component may be a symbolic link: part of the path may have been
/// in the hands of an earlier payload, and a link it planted would show another part of the host.
pub(crate) fn copy_callers_mount(
    host: &Path,
    through_links: bool,
) -> io::Result<(OwnedFd, FileType)> {
    let resolve = if through_links {
        ResolveFlags::empty()
    } else {
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
    };
    let place = openat2(CWD, host, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let kind = FileType::from_raw_mode(fstat(&place)?.st_mode);
    Ok((copy_opened_mount(&place)?, kind))
}

/// Copies the mount at a place that was opened.
pub(super) fn copy_opened_mount(place: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(open_tree(place, c"", copy_flags() | OpenTreeFlags::AT_EMPTY_PATH)?)
}

fn copy_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE
}

/// Builds the root and makes it this process's root. Returns whether processes of others are hidden in /proc.
pub(super) fn enter(order: &Order<'_>) -> Result<bool, Failure> {
    at(
        "make mounts private",
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE),
    )?;
    let spec = order.spec;
    // Before anything of ours is mounted.
    let host_root = spec.lacks(Weakness::HostRoot).then(|| copy_mount(Path::new("/"))).transpose();
    let size = ROOT_BYTES_MAX;
    let root = at("make the root", memory_fs(size, "755", NOSUID | NODEV))?;
    at("place the root", attach(root.as_fd(), &at("open /tmp", open_path(CWD, STAGING))?))?;
    let tree = Tree { root };

    for dir in ["proc", "dev/pts", "dev/shm", "tmp", "home/agent", "etc", "var", "run", "mnt"] {
        at("make directories", tree.place(Path::new(dir), Some(true)))?;
    }
    at("link /var/tmp", symlinkat("../tmp", &tree.root, "var/tmp"))?;
    userland(&tree, order.userland, kept_bits(&spec.weakened))?;
    let hidepid = proc(&tree, order)?;
    if spec.lacks(Weakness::Devices) {
        at("show the host's /dev", show(&tree, "/dev", "dev"))?;
    } else {
        devices(&tree)?;
    }
    scratch(&tree, order)?;
    for bind in order.binds {
        own_bind(&tree, bind, &spec.weakened)?;
    }
    if let Some(mount) = at("copy the host's root", host_root)? {
        let shown = tree.mount(mount.as_fd(), Path::new(HOST_ROOT_INSIDE), true);
        at("show the host's root", shown)?;
    }
    at("enter the root", fchdir(&tree.root))?;
    at("enter the root", pivot_root(".", "."))?;
    at("leave the host's root", unmount(".", UnmountFlags::DETACH))?;
    at("enter the root", rustix::process::chdir("/"))?;
    seal(&tree, &spec.weakened)?;
    Ok(hidepid)
}

/// Adds binds to a root that was built and sealed; called in its mount namespace by the launcher's helper. `ruleset`
/// allows then what they allow.
pub(crate) fn add(
    binds: &[OpenBind],
    ruleset: Option<BorrowedFd<'_>>,
    weakened: &BTreeSet<Weakness>,
) -> Result<(), Failure> {
    let tree = Tree { root: at("open the root", open_path(CWD, "/"))? };
    at("open the root", mount_writable(tree.root.as_fd()))?;
    for bind in binds {
        own_bind(&tree, bind, weakened)?;
        if let Some(ruleset) = ruleset.filter(|_| bind.access == Access::ReadWrite) {
            let allowed =
                tree.place(&bind.inside, None).and_then(|at| landlock::allow(ruleset, &at));
            at(&format!("allow {} in Landlock", bind.inside.display()), allowed)?;
        }
    }
    seal(&tree, weakened)
}

/// Nothing but what is mounted below it can be changed from here on.
fn seal(tree: &Tree, weakened: &BTreeSet<Weakness>) -> Result<(), Failure> {
    if weakened.contains(&Weakness::WritableRoot) {
        return Ok(());
    }
    let attributes = (RO | NOSUID | NODEV).bits().into();
    at("seal the root", mount_setattr(tree.root.as_fd(), attributes, false))
}

/// NOSUID, but for a proof.
fn kept_bits(weakened: &BTreeSet<Weakness>) -> MountAttrFlags {
    if weakened.contains(&Weakness::SetuidBits) { MountAttrFlags::empty() } else { NOSUID }
}

/// Shows a part of the host as it is, for a proof.
fn show(tree: &Tree, host: &str, inside: &str) -> io::Result<()> {
    tree.mount(copy_mount(Path::new(host))?.as_fd(), Path::new(inside), true)
}

/// The new root, seen from outside.
struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens a place below the root, making missing directories on the way. `directory` says what to make of the
    /// last component if it is missing; `None` makes nothing. Never follows a link.
    fn place(&self, path: &Path, directory: Option<bool>) -> io::Result<OwnedFd> {
        let mut here = self.root.try_clone()?;
        let names: Vec<_> = path
            .components()
            .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
            .collect();
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            here = match open_path(&here, *name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_some() => {
                    if last && directory == Some(false) {
                        let flags =
                            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        openat(&here, *name, flags, Mode::from_raw_mode(0o644))?;
                    } else {
                        mkdirat(&here, *name, Mode::from_raw_mode(0o755))?;
                    }
                    open_path(&here, *name)?
                }
                other => other?,
            };
        }
        Ok(here)
    }

    fn write(&self, path: &str, content: &str) -> io::Result<()> {
        use std::io::Write as _;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.root, path, flags, Mode::from_raw_mode(0o644))?;
        std::fs::File::from(file).write_all(content.as_bytes())
    }

    fn link(&self, path: &str, target: &str) -> io::Result<()> {
        if let Some(parent) = Path::new(path).parent() {
            self.place(parent, Some(true))?;
        }
        Ok(symlinkat(target, &self.root, path)?)
    }

    /// Puts `mount` at `path`, which is made if it is missing.
    fn mount(&self, mount: BorrowedFd<'_>, path: &Path, is_dir: bool) -> io::Result<()> {
        attach(mount, &self.place(path, Some(is_dir))?)
    }
}

pub(super) fn open_path<P: rustix::path::Arg>(dir: impl AsFd, name: P) -> io::Result<OwnedFd> {
    let fd = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode).is_symlink() {
        return Err(rustix::io::Errno::LOOP.into());
    }
    Ok(fd)
}

pub(super) fn attach(mount: BorrowedFd<'_>, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", place, c"", flags)?)
}

/// A new file system in memory, bounded in bytes and inodes, not yet attached.
pub(super) fn memory_fs(bytes: u64, mode: &str, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let inodes = (bytes / BYTES_PER_INODE).clamp(1024, 1 << 22);
    fsconfig_set_string(&fs, "size", bytes.to_string())?;
    fsconfig_set_string(&fs, "nr_inodes", inodes.to_string())?;
    fsconfig_set_string(&fs, "mode", mode)?;
    fsconfig_create(&fs)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn userland(tree: &Tree, userland: &Userland, kept_bits: MountAttrFlags) -> Result<(), Failure> {
    for piece in &userland.pieces {
        let (path, is_dir) = match piece {
            Piece::Link { at: path, target } => {
                at(&format!("link /{path}"), tree.link(path, target))?;
                continue;
            }
            Piece::Directory(path) => (path, true),
            Piece::File(path) => (path, false),
        };
        let show = || -> io::Result<()> {
            let mount = copy_mount(&Path::new("/").join(path))?;
            mount_setattr(mount.as_fd(), (RO | kept_bits | NODEV).bits().into(), true)?;
            tree.mount(mount.as_fd(), Path::new(path), is_dir)
        };
        at(&format!("show /{path}"), show())?;
    }
    for (path, content) in synthesised_etc() {
        at(&format!("write /{path}"), tree.write(path, &content))?;
    }
    Ok(())
}

/// A fresh /proc of this pid namespace, with what tells about the host covered and /proc/sys read-only.
fn proc(tree: &Tree, order: &Order<'_>) -> Result<bool, Failure> {
    let (userland, spec) = (order.userland, order.spec);
    if spec.lacks(Weakness::Processes) {
        at("show the host's /proc", show(tree, "/proc", "proc"))?;
        return Ok(false);
    }
    let fresh = |hide: bool| -> io::Result<OwnedFd> {
        let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        if hide {
            fsconfig_set_string(&fs, "hidepid", "2")?;
        }
        fsconfig_create(&fs)?;
        Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, NOSUID | NODEV | NOEXEC)?)
    };
    let (proc, hidden) = match fresh(!spec.lacks(Weakness::ProcCovers)) {
        Ok(proc) => (proc, true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            (at("mount /proc", fresh(false))?, false)
        }
        Err(error) => {
            let hint = "; a container that masks parts of /proc forbids it: run Outpost outside of it, or start \
                        the container with unmasked system paths";
            return Err(Failure { message: format!("mount /proc: {error}{hint}") });
        }
    };
    at("mount /proc", tree.mount(proc.as_fd(), Path::new("proc"), true))?;
    if spec.lacks(Weakness::ProcCovers) {
        return Ok(false);
    }
    let cover = |name: &str, with: io::Result<OwnedFd>| -> io::Result<()> {
        attach(with?.as_fd(), &open_path(&proc, name)?)
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let sys = || -> io::Result<OwnedFd> {
        let sys = open_tree(&proc, "sys", flags)?;
        mount_setattr(sys.as_fd(), (RO | NOSUID | NODEV | NOEXEC).bits().into(), false)?;
        Ok(sys)
    };
    at("seal /proc/sys", cover("sys", sys()))?;
    for name in &userland.masked_files {
        let null = || -> io::Result<OwnedFd> {
            let null = copy_mount(Path::new("/dev/null"))?;
            mount_setattr(null.as_fd(), (RO | NOSUID | NOEXEC).bits().into(), false)?;
            Ok(null)
        };
        at(&format!("cover /proc/{name}"), cover(name, null()))?;
    }
    for name in &userland.masked_dirs {
        at(
            &format!("cover /proc/{name}"),
            cover(name, memory_fs(4096, "555", RO | NOSUID | NODEV | NOEXEC)),
        )?;
    }
    Ok(hidden)
}

fn devices(tree: &Tree) -> Result<(), Failure> {
    for name in DEVICES {
        let show = || -> io::Result<()> {
            let mount = copy_mount(&Path::new("/dev").join(name))?;
            mount_setattr(mount.as_fd(), (NOSUID | NOEXEC).bits().into(), false)?;
            tree.mount(mount.as_fd(), &Path::new("dev").join(name), false)
        };
        at(&format!("show /dev/{name}"), show())?;
    }
    let terminals = || -> io::Result<()> {
        let fs = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_flag(&fs, "newinstance")?;
        fsconfig_set_string(&fs, "ptmxmode", "0666")?;
        fsconfig_set_string(&fs, "mode", "0620")?;
        fsconfig_create(&fs)?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, NOSUID | NOEXEC)?;
        tree.mount(mount.as_fd(), Path::new("dev/pts"), true)
    };
    at("mount /dev/pts", terminals())?;
    for (path, target) in [
        ("dev/ptmx", "pts/ptmx"),
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
    ] {
        at("link devices", tree.link(path, target))?;
    }
    let shared = memory_fs(SHM_BYTES_MAX, "1777", NOSUID | NODEV | NOEXEC);
    at("mount /dev/shm", shared.and_then(|fs| tree.mount(fs.as_fd(), Path::new("dev/shm"), true)))
}

/// Private /tmp and HOME, unless a bind takes their place.
fn scratch(tree: &Tree, order: &Order<'_>) -> Result<(), Failure> {
    let limits = &order.spec.limits;
    for (path, bytes, mode) in
        [("/tmp", limits.tmp_bytes, "1777"), (HOME_INSIDE, limits.home_bytes, "700")]
    {
        if !binds_exactly(&order.spec.binds, path) {
            let fs = memory_fs(bytes, mode, NOSUID | NODEV);
            at(
                &format!("mount {path}"),
                fs.and_then(|fs| tree.mount(fs.as_fd(), Path::new(path), true)),
            )?;
        }
    }
    Ok(())
}

fn own_bind(tree: &Tree, bind: &OpenBind, weakened: &BTreeSet<Weakness>) -> Result<(), Failure> {
    let put = || -> io::Result<()> {
        let merged;
        let (mount, is_dir) = match &bind.source {
            Source::Mount { mount, is_dir } => (mount, *is_dir),
            Source::Overlay(layers) => {
                merged = layers.mount(&tree.place(Path::new(STAGING_INSIDE), Some(true))?)?;
                (&merged, true)
            }
        };
        let read_only =
            bind.access == Access::ReadOnly && !weakened.contains(&Weakness::WritableBinds);
        let extra = if read_only { RO } else { MountAttrFlags::empty() };
        mount_setattr(mount.as_fd(), (extra | kept_bits(weakened) | NODEV).bits().into(), true)?;
        tree.mount(mount.as_fd(), &bind.inside, is_dir)
    };
    at(&format!("bind at {}", bind.inside.display()), put())
}

/// True if `path` exists inside as something a program can be run from; used by the look-up in PATH.
pub(super) fn is_program(path: &str) -> bool {
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS).is_ok()
        && std::fs::metadata(path).is_ok_and(|meta| meta.is_file())
}
