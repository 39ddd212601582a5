//! Overlays: several directories of the host shown as one tree, mounted in the sandbox's own user namespace.
//!
//! The launcher opens and copies the layers, as it does for every bind. In the sandbox's namespaces they are put for a
//! moment where a path can name them, since the kernel takes layers only from the caller's own mount namespace; the
//! overlay keeps copies of its own. Upper and work must be on one mount, so the copy is of their parent.
//!
//! With `userxattr` a layer cannot redirect to another path, whatever attributes a payload left in it, and everything
//! is done with the payload's rights. `volatile` leaves out what only matters when the host crashes: then the attempt
//! is gone as well. Bounded: layers, by the spec. Deliberately absent: kernels before 6.5, which look a layer's path up
//! too late; a launcher tries whether it works, see [`crate::HostReport`].

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, unmount,
};
use rustix::process::fchdir;

use super::root::{attach, copy_opened_mount, memory_fs, open_path};
use crate::spec::{Access, Bind, Overlay};
use crate::sys::mount_setattr;

/// Size of the file system that holds the places of layers: directories only.
const STAGING_BYTES_MAX: u64 = 64 << 10;
/// Where the parent of upper and work is put.
const TOP: &str = "top";
/// What a `volatile` overlay leaves in its work directory, so that nobody takes the layers up after a crash of the
/// host (the kernel's `filesystems/overlayfs`): directory, and the file in it.
const VOLATILE_MARK: (&str, &str, &str) = ("work/incompat", "volatile", "dirty");

/// The layers of one overlay, opened by the launcher.
#[derive(Debug)]
pub(crate) struct Layers {
    /// Copied mounts, the topmost first; an upper directory that is not to be written is the first of them.
    lower: Vec<OwnedFd>,
    top: Option<Top>,
}

/// Where changes go.
#[derive(Debug)]
struct Top {
    /// A copied mount of what upper and work are in.
    parent: OwnedFd,
    upper: OsString,
    work: OsString,
    /// The upper directory as the launcher sees it.
    written: OwnedFd,
}

impl Layers {
    /// Opens the layers of `bind`. No component of a path may be a symbolic link, but for a proof.
    pub(crate) fn open(bind: &Bind, overlay: &Overlay, through_links: bool) -> io::Result<Self> {
        let real = |path: &Path| -> io::Result<PathBuf> {
            if through_links { std::fs::canonicalize(path) } else { Ok(path.to_owned()) }
        };
        let open = |path: &Path| open_dir(CWD, real(path)?.as_os_str(), ResolveFlags::empty());
        let copy = |path: &Path| copy_opened_mount(&open(path)?);
        let lower = overlay.lower.iter().map(|path| copy(path)).collect::<io::Result<Vec<_>>>();
        let top = match (&overlay.work, bind.access) {
            (Some(work), Access::ReadWrite) => {
                let (upper, work) = (real(&bind.host)?, real(work)?);
                clear_volatile(&open(&work)?)?;
                let parent = upper.parent().unwrap_or_else(|| Path::new("/"));
                let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
                Some(Top {
                    parent: copy(parent)?,
                    written: open(&upper)?,
                    upper: name(&upper),
                    work: name(&work),
                })
            }
            _ => None,
        };
        let mut lower = lower?;
        if top.is_none() {
            lower.insert(0, copy(&bind.host)?);
        }
        Ok(Self { lower, top })
    }

    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let top = self.top.iter().map(|top| &top.parent);
        self.lower.iter().chain(top).map(|fd| fd.as_raw_fd()).collect()
    }

    pub(super) fn written(&self) -> Option<BorrowedFd<'_>> {
        self.top.as_ref().map(|top| top.written.as_fd())
    }

    /// Makes the overlay, not yet attached. `staging` is a directory of the caller's mount namespace, which is as it
    /// was afterwards; the working directory is not.
    pub(crate) fn mount(&self, staging: &OwnedFd) -> io::Result<OwnedFd> {
        let places = memory_fs(
            STAGING_BYTES_MAX,
            "700",
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
        )?;
        attach(places.as_fd(), staging)?;
        let merged = self.merge(&places);
        fchdir(&places)?;
        unmount(".", UnmountFlags::DETACH)?;
        merged
    }

    fn merge(&self, places: &OwnedFd) -> io::Result<OwnedFd> {
        let put = |name: &str, layer: &OwnedFd| -> io::Result<OwnedFd> {
            mkdirat(places, name, Mode::RWXU)?;
            mount_setattr(layer.as_fd(), 0, true)?;
            attach(layer.as_fd(), &open_path(places, name)?)?;
            open_path(places, name)
        };
        let mut names = Vec::new();
        for layer in &self.lower {
            let name = names.len().to_string();
            put(&name, layer)?;
            names.push(name);
        }
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_flag(&fs, "userxattr")?;
        fchdir(places)?;
        fsconfig_set_string(&fs, "lowerdir", names.join(":"))?;
        if let Some(Top { parent, upper, work, .. }) = &self.top {
            let parent = put(TOP, parent)?;
            for (key, name) in [("upperdir", upper), ("workdir", work)] {
                // By working directory: a path would be walked once more, and links in it followed.
                fchdir(open_dir(&parent, name, ResolveFlags::BENEATH | ResolveFlags::NO_XDEV)?)?;
                fsconfig_set_string(&fs, key, ".")?;
            }
            fsconfig_set_flag(&fs, "volatile")?;
        }
        fsconfig_create(&fs)?;
        Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
    }
}

/// Opens a directory without following links.
fn open_dir(from: impl std::os::fd::AsFd, path: &OsStr, more: ResolveFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
    Ok(openat2(from, path, flags, Mode::empty(), resolve)?)
}

/// Takes away the mark that an earlier overlay left: its sandbox ended while the host went on.
fn clear_volatile(work: &OwnedFd) -> io::Result<()> {
    let (parent, mark, file) = VOLATILE_MARK;
    let there = |result: io::Result<OwnedFd>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    let below = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let Some(parent) = there(open_dir(work, parent.as_ref(), below))? else { return Ok(()) };
    let Some(dir) = there(open_dir(&parent, mark.as_ref(), below))? else { return Ok(()) };
    match unlinkat(&dir, file, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(unlinkat(&parent, mark, AtFlags::REMOVEDIR)?),
        Err(error) => Err(error.into()),
    }
}
