//! What the launcher knows about its host, found out once when it starts.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::cgroup::Cgroups;
use super::helper;
use super::keep::Wishes;
use crate::init::overlay::Layers;
use crate::report::{HostReport, Isolation, IsolationLevel};
use crate::spec::{Bind, DEFAULT_PAYLOAD_OWNER, Owner};
use crate::sys;
use crate::userland::Userland;
use crate::wire::InitFacts;

/// For containers that have only the usual 65,536 ids.
const FALLBACK_PAYLOAD_OWNER: Owner = Owner { uid: 65_533, gid: 65_533 };

/// The host, as far as sandboxes are concerned.
pub(super) struct Host {
    pub(super) rootless: bool,
    pub(super) payload_owner: Owner,
    pub(super) cgroups: Cgroups,
    pub(super) userland: Userland,
    pub(super) filter: Vec<seccompiler::sock_filter>,
    /// Weakened sandboxes may be made.
    pub(super) for_proofs: bool,
    extra_groups: bool,
    overlay: bool,
}

impl Host {
    /// Looks at the host and prepares this process: an ordinary user's launcher moves into a user and mount namespace
    /// of its own, where it may copy mounts and map ids exactly as root may outside.
    pub(super) fn prepare(socket: &Path, for_proofs: bool) -> Result<Self, String> {
        let me = Owner::current();
        let rootless = me.uid != 0;
        let extra_groups = rootless
            && rustix::process::getgroups()
                .is_ok_and(|all| all.iter().any(|group| group.as_raw() != me.gid));
        let cgroups = Cgroups::discover(&cgroup_name(socket));
        if rootless {
            enter_own_namespace(me).map_err(|error| userns_hint(&error))?;
        } else {
            may_mount()?;
        }
        let filter = crate::init::seccomp::compile()
            .map_err(|error| format!("system call filter: {error}"))?;
        raise_open_files();
        sys::set_slice(sys::Slice::Short);
        Ok(Self {
            rootless,
            payload_owner: if rootless { me } else { unprivileged_owner() },
            cgroups,
            userland: Userland::discover(),
            filter,
            for_proofs,
            extra_groups,
            overlay: overlays_work(socket).is_ok(),
        })
    }

    /// What a sandbox gets, given what its init found.
    pub(super) fn isolation(&self, facts: &InitFacts, wishes: &Wishes) -> Isolation {
        let mut enforced: Vec<String> = [
            "namespaces user, mount, pid, net, ipc, uts, cgroup",
            "private root, host userland read-only",
            "no network but loopback",
            "no_new_privs, no capabilities",
            "seccomp filter",
            if wishes.bound_home { "size of /tmp" } else { "size of /tmp and HOME" },
        ]
        .map(str::to_owned)
        .into();
        let (groups, mut missing) = self.cgroups.describe();
        enforced.extend(groups);
        if !self.cgroups.limits_pids() {
            enforced.push("processes by rlimit".to_owned());
        }
        match facts.landlock_abi {
            Some(abi) => enforced.push(format!("landlock abi {abi}")),
            None => missing.push("landlock: this kernel does not have it".to_owned()),
        }
        if facts.hidepid {
            enforced.push("hidepid".to_owned());
        } else {
            missing.push("hidepid: this kernel cannot set it per mount".to_owned());
        }
        if wishes.writable_binds {
            let mut limit = |wanted: bool, what: &str| {
                if wanted {
                    enforced.push(format!("{what} limit of read-write binds, watched"));
                } else {
                    missing.push(format!("{what} limit of read-write binds: none was asked for"));
                }
            };
            limit(wishes.disk_bytes, "disk");
            limit(wishes.disk_files, "file");
        }
        if self.extra_groups {
            missing.push(
                "supplementary groups of the starting user stay in force on bound files".to_owned(),
            );
        }
        missing.extend(wishes.weakened.iter().map(|off| format!("{off:?}: left off for a proof")));
        let level = if self.cgroups.complete() {
            IsolationLevel::Limits
        } else {
            IsolationLevel::Namespaces
        };
        Isolation { level, enforced, missing }
    }

    /// What to tell a client on its arrival.
    pub(super) fn report(&self) -> HostReport {
        let facts = InitFacts { landlock_abi: sys::landlock::abi(), hidepid: true };
        HostReport {
            launcher_pid: std::process::id(),
            rootless: self.rootless,
            payload_owner: self.payload_owner,
            isolation: self.isolation(&facts, &Wishes::default()),
            overlay: self.overlay,
        }
    }
}

/// The name of the directories that the launcher at this socket has in the cgroup hierarchies.
#[must_use]
pub fn cgroup_name(socket: &Path) -> String {
    format!("outpost-{:016x}", fingerprint(socket))
}

/// A stable number for a path (FNV-1a, 64 bits), to tell launchers apart by name.
fn fingerprint(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn enter_own_namespace(me: Owner) -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{0} {0} 1\n", me.uid))?;
    std::fs::write("/proc/self/gid_map", format!("{0} {0} 1\n", me.gid))?;
    // Where user namespaces are allowed but empty of rights (AppArmor), this is what fails.
    let mount = crate::init::root::copy_mount(Path::new("/usr"))?;
    drop(mount);
    Ok(())
}

/// Makes an overlay of directories beside the socket, where the product's data is, in a user namespace as a sandbox
/// has one, and changes something in it.
fn overlays_work(socket: &Path) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let dir = super::beside(socket, ".overlay");
    let path = |name: &str| dir.join(name);
    // One that was killed may have left it.
    let _not_there = std::fs::remove_dir_all(&dir);
    let lay_out = || -> io::Result<Layers> {
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir_all(path(name))?;
        }
        std::fs::write(path("lower/file"), "lower")?;
        let bind = Bind::overlay(path("upper"), Some(path("work")), vec![path("lower")], "/");
        Layers::open(&bind, bind.overlay.as_ref().ok_or(io::ErrorKind::NotFound)?, false)
    };
    let change = |layers: &Layers| -> io::Result<()> {
        use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
        use rustix::mount::{MountPropagationFlags, mount_change};
        enter_own_namespace(Owner::current())?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        let staging = openat(CWD, "/tmp", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let merged = layers.mount(&staging)?;
        let append = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file = openat(&merged, "file", append, Mode::empty())?;
        rustix::io::write(&file, b"and upper")?;
        Ok(mkdirat(&merged, "made", Mode::RWXU)?)
    };
    let tried = lay_out()
        .map_err(text)
        .and_then(|layers| helper::run(&layers.descriptors(), || change(&layers).map_err(text)));
    let removed = std::fs::remove_dir_all(&dir).map_err(text);
    tried.and(removed)
}

/// Root in a container may lack what makes it root.
fn may_mount() -> Result<(), String> {
    let mount = crate::init::root::copy_mount(Path::new("/usr")).map_err(|error| {
        format!(
            "root may not mount here ({error}); give the container CAP_SYS_ADMIN, or run outpost as an ordinary user"
        )
    })?;
    drop(mount);
    Ok(())
}

/// Who payloads of a root launcher run as: [`DEFAULT_PAYLOAD_OWNER`], or in a container without such an id the id
/// before nobody's.
fn unprivileged_owner() -> Owner {
    let mapped = |file: &str, id: u32| {
        let map = std::fs::read_to_string(Path::new("/proc/self").join(file)).unwrap_or_default();
        maps(&map, id)
    };
    let default = DEFAULT_PAYLOAD_OWNER;
    if mapped("uid_map", default.uid) && mapped("gid_map", default.gid) {
        default
    } else {
        FALLBACK_PAYLOAD_OWNER
    }
}

/// Whether `id` exists in a namespace with this id map (lines of: first inside, first outside, count).
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => (first..first + count).contains(&u64::from(id)),
            _ => false,
        }
    })
}

/// Explains a refusal of user namespaces, naming the setting that causes it.
pub(super) fn userns_hint(error: &io::Error) -> String {
    let is = |path: &str, value: &str| {
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
    };
    let hint = if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids them here: install a profile with `userns,` for the outpost program, or run it as root"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "they are switched off: set the sysctl user.max_user_namespaces to 10000, or run outpost as root"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "they are switched off: set the sysctl kernel.unprivileged_userns_clone to 1, or run outpost as root"
    } else {
        "inside a container they may be forbidden: allow user namespaces for it, or run outpost as root"
    };
    format!("user namespaces cannot be used ({error}); {hint}")
}

/// A sandbox costs the launcher six descriptors, a parked one eight. The soft bound may be raised to the hard one by anybody.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _stays_as_it_is =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_looked_up_in_the_map() {
        let whole = "         0          0 4294967295\n";
        assert!(maps(whole, DEFAULT_PAYLOAD_OWNER.uid));
        let small = "0 100000 65536\n";
        assert!(!maps(small, DEFAULT_PAYLOAD_OWNER.uid));
        assert!(maps(small, FALLBACK_PAYLOAD_OWNER.uid));
        assert!(!maps("", 0) && !maps("x y z", 0));
    }

    #[test]
    fn launchers_are_told_apart() {
        assert_eq!(fingerprint(Path::new("")), 0xcbf2_9ce4_8422_2325);
        assert_ne!(fingerprint(Path::new("/a")), fingerprint(Path::new("/b")));
    }
}
