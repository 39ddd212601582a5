//! Control groups, version 2 where its controllers are to be had, version 1 beside it where they are not.
//!
//! A launcher owns one directory per hierarchy, named after its socket, and makes one directory per sandbox in it.
//! Version 2 also serves to place and kill processes when it has no controllers (hybrid hosts). Documentation of the
//! files: the kernel's `admin-guide/cgroup-v2` and `cgroup-v1`. Deliberately absent: io limits, cpusets, freezing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::spec::Limits;

/// The limits that matter for the isolation level.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Period of the processor quota, in microseconds (the kernel's default).
const CPU_PERIOD_MICROS: u64 = 100_000;
/// Longest control file that is read.
const CONTROL_FILE_BYTES_MAX: u64 = 64 * 1024;
/// How often the removal of a directory is tried. Something foreign lives in one that stays busy for that long.
const REMOVE_TRIES_MAX: u32 = 1000;
/// Name of the leaf that takes a launcher's own process where version 2 forbids processes in inner groups.
const SELF_LEAF: &str = "outpost-self";

/// How one controller is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    V2,
    V1(PathBuf),
}

/// The directories of this launcher.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// Our directory in the version 2 hierarchy.
    unified: Option<PathBuf>,
    /// Which of [`CONTROLLERS`] work, and how.
    reach: BTreeMap<&'static str, Reach>,
    /// Why a controller is missing.
    notes: Vec<String>,
    /// Directories of ended sandboxes that the kernel did not let go of yet.
    trash: Vec<Trash>,
    /// Groups made so far. In each name, since a claimed sandbox leaves its first name to another.
    made: u64,
}

/// A directory to be removed.
#[derive(Debug)]
struct Trash {
    dir: PathBuf,
    tries: u32,
}

impl From<PathBuf> for Trash {
    fn from(dir: PathBuf) -> Self {
        Self { dir, tries: 0 }
    }
}

/// The directories of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Group {
    name: String,
    unified: Option<PathBuf>,
    v1: BTreeMap<&'static str, PathBuf>,
    v2_controllers: bool,
}

/// What the cgroups counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) oom_killed: bool,
    pub(crate) memory_peak_bytes: Option<u64>,
    pub(crate) cpu_micros: Option<u64>,
    pub(crate) pids_refused: Option<u64>,
}

impl Cgroups {
    /// Finds out what can be used and makes this launcher's directories, removing what an earlier launcher with the
    /// same `name` left.
    pub(crate) fn discover(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let hierarchies = parse_hierarchies(&mounts, &own);
        let mut this = Self {
            unified: None,
            reach: BTreeMap::new(),
            notes: Vec::new(),
            trash: Vec::new(),
            made: 0,
        };
        let mut v2_controllers = Vec::new();
        if let Some(place) = hierarchies.get("") {
            match open_unified(place, name, &mut this.trash) {
                Ok((base, controllers)) => {
                    v2_controllers = controllers;
                    this.unified = Some(base);
                }
                Err(error) => {
                    this.notes.push(format!("cgroup v2 ({}): {error}", place.own.display()))
                }
            }
        }
        for controller in CONTROLLERS {
            if v2_controllers.iter().any(|have| have == controller) {
                this.reach.insert(controller, Reach::V2);
                continue;
            }
            let Some(place) = hierarchies.get(controller) else {
                this.notes.push(format!(
                    "no {controller} limit: the controller is not delegated to this user"
                ));
                continue;
            };
            match make_base(&place.own.join(name), &mut this.trash) {
                Ok(base) => {
                    this.reach.insert(controller, Reach::V1(base));
                }
                Err(error) => this
                    .notes
                    .push(format!("no {controller} limit: cgroup v1 cannot be written: {error}")),
            }
        }
        this
    }

    /// True if memory, pids and cpu can all be limited.
    pub(crate) fn complete(&self) -> bool {
        self.reach.len() == CONTROLLERS.len()
    }

    /// True if the number of processes can be limited.
    pub(crate) fn limits_pids(&self) -> bool {
        self.reach.contains_key("pids")
    }

    /// What is enforced and what is missing, in words.
    pub(crate) fn describe(&self) -> (Vec<String>, Vec<String>) {
        let mut enforced: Vec<String> = self
            .reach
            .iter()
            .map(|(name, reach)| {
                format!("cgroup {} {name}", if *reach == Reach::V2 { "v2" } else { "v1" })
            })
            .collect();
        if self.unified.is_some() {
            enforced.push("cgroup v2 placement and kill".to_owned());
        }
        (enforced, self.notes.clone())
    }

    /// Makes the group that a sandbox is born into, with its limits as far as they are version 2's. Nothing stays
    /// behind on failure.
    pub(crate) fn create(&mut self, id: &str, limits: &Limits) -> io::Result<Group> {
        self.made += 1;
        let mut group = Group { name: format!("{id}.{}", self.made), ..Group::default() };
        let mut make = || -> io::Result<()> {
            let Some(base) = &self.unified else { return Ok(()) };
            let dir = base.join(&group.name);
            fs::create_dir(&dir)?;
            group.unified = Some(dir.clone());
            for (controller, reach) in &self.reach {
                if *reach == Reach::V2 {
                    group.v2_controllers = true;
                    limit(&dir, controller, reach, limits)?;
                }
            }
            Ok(())
        };
        match make() {
            Ok(()) => Ok(group),
            Err(error) => {
                self.remove(group);
                Err(error)
            }
        }
    }

    /// Makes the version 1 groups of a sandbox with its limits, and moves its init, which has no child yet, into them.
    pub(crate) fn join(&self, group: &mut Group, limits: &Limits, pid: i32) -> io::Result<()> {
        for (controller, reach) in &self.reach {
            if let Reach::V1(base) = reach {
                let dir = base.join(&group.name);
                fs::create_dir(&dir)?;
                group.v1.insert(controller, dir.clone());
                limit(&dir, controller, reach, limits)?;
                write(&dir.join("cgroup.procs"), &pid.to_string())?;
            }
        }
        Ok(())
    }

    /// Removes the groups of a sandbox whose processes are gone; what is still busy is tried again by [`Self::sweep`].
    pub(crate) fn remove(&mut self, group: Group) {
        self.trash.extend(group.unified.into_iter().chain(group.v1.into_values()).map(Trash::from));
        self.sweep();
    }

    /// Tries again to remove what was busy. True if something is left.
    pub(crate) fn sweep(&mut self) -> bool {
        self.trash.retain_mut(|trash| {
            trash.tries += 1;
            match fs::remove_dir(&trash.dir) {
                Ok(()) => false,
                Err(error) => {
                    error.kind() != io::ErrorKind::NotFound && trash.tries < REMOVE_TRIES_MAX
                }
            }
        });
        !self.trash.is_empty()
    }

    /// Removes this launcher's own directories; called when nothing lives in them.
    pub(crate) fn close(&mut self) {
        self.sweep();
        let v1 = self
            .reach
            .values()
            .filter_map(|reach| if let Reach::V1(base) = reach { Some(base) } else { None });
        for base in v1.chain(self.unified.as_ref()) {
            // Best effort: a directory that is busy is cleaned by the next launcher of this name.
            let _busy = fs::remove_dir(base);
        }
    }
}

impl Group {
    /// The version 2 directory, for `CLONE_INTO_CGROUP`.
    pub(crate) fn placement(&self) -> io::Result<Option<OwnedFd>> {
        self.unified.as_ref().map(|dir| fs::File::open(dir).map(OwnedFd::from)).transpose()
    }

    /// Kills everything in the version 2 group. Without one the caller kills init, and with it the pid namespace.
    pub(crate) fn kill(&self) {
        if let Some(dir) = &self.unified {
            // cgroup.kill exists since kernel 5.14; killing init has the same effect.
            let _older_kernel = write(&dir.join("cgroup.kill"), "1");
        }
    }

    /// Reads the counters; called after the last process ended and before the groups are removed.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        if let Some(dir) = &self.unified {
            counts.cpu_micros = keyed(&dir.join("cpu.stat"), "usage_usec");
            if self.v2_controllers {
                counts.oom_killed =
                    keyed(&dir.join("memory.events"), "oom_kill").is_some_and(|count| count > 0);
                counts.memory_peak_bytes = number(&dir.join("memory.peak"));
                counts.pids_refused = keyed(&dir.join("pids.events"), "max");
            }
        }
        if let Some(dir) = self.v1.get("memory") {
            counts.oom_killed =
                keyed(&dir.join("memory.oom_control"), "oom_kill").is_some_and(|count| count > 0);
            counts.memory_peak_bytes = number(&dir.join("memory.max_usage_in_bytes"));
        }
        if let Some(dir) = self.v1.get("pids") {
            counts.pids_refused = keyed(&dir.join("pids.events"), "max");
        }
        counts
    }
}

/// Writes the limits of one controller.
fn limit(dir: &Path, controller: &str, reach: &Reach, limits: &Limits) -> io::Result<()> {
    for (file, value, optional) in settings(controller, reach, limits) {
        match write(&dir.join(file), &value) {
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// File, value and whether the file may be missing, for one controller.
fn settings(controller: &str, reach: &Reach, limits: &Limits) -> Vec<(&'static str, String, bool)> {
    let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_MICROS / 1000;
    let memory = limits.memory_bytes.to_string();
    // Init is one process more than the caller asked for.
    let pids = (u64::from(limits.pids_max) + 1).to_string();
    match (controller, reach) {
        ("memory", Reach::V2) => vec![
            ("memory.max", memory, false),
            ("memory.swap.max", "0".to_owned(), true),
            ("memory.oom.group", "1".to_owned(), true),
        ],
        ("memory", Reach::V1(_)) => {
            vec![
                ("memory.limit_in_bytes", memory.clone(), false),
                ("memory.memsw.limit_in_bytes", memory, true),
                // Where the line above is missing, swap is not counted; then at least it is not sought.
                ("memory.swappiness", "0".to_owned(), true),
            ]
        }
        ("cpu", Reach::V2) => vec![("cpu.max", format!("{quota} {CPU_PERIOD_MICROS}"), false)],
        ("cpu", Reach::V1(_)) => vec![
            ("cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string(), false),
            ("cpu.cfs_quota_us", quota.to_string(), false),
        ],
        _ => vec![("pids.max", pids, false)],
    }
}

/// A hierarchy this process can see.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Where it is mounted.
    mount: PathBuf,
    /// The directory of this process's own group.
    own: PathBuf,
}

/// Finds the hierarchies in the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`, keyed by controller;
/// version 2 has the empty key.
fn parse_hierarchies(mountinfo: &str, own_groups: &str) -> BTreeMap<String, Place> {
    let mut own = BTreeMap::new();
    for line in own_groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        if let (Some(names), Some(path)) = (fields.next(), fields.next()) {
            own.extend(names.split(',').map(|name| (name.to_owned(), path.to_owned())));
        }
    }
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (left, right): (Vec<&str>, Vec<&str>) =
            (left.split(' ').collect(), right.split(' ').collect());
        let (Some(root), Some(mount), Some(kind)) = (left.get(3), left.get(4), right.first())
        else {
            continue;
        };
        let names: Vec<&str> = match *kind {
            "cgroup2" => vec![""],
            "cgroup" => {
                right.get(2).map(|options| options.split(',').collect()).unwrap_or_default()
            }
            _ => continue,
        };
        for name in names {
            let Some(path) = own.get(name) else { continue };
            // The mount shows the hierarchy from `root` on; a group outside of that is out of reach.
            let below = if *root == "/" { Some(path.as_str()) } else { path.strip_prefix(root) };
            let mount = PathBuf::from(mount);
            let own = mount.join(below.unwrap_or_default().trim_start_matches('/'));
            found.insert(name.to_owned(), Place { mount, own });
        }
    }
    found
}

/// Makes our directory in the version 2 hierarchy and returns it with the controllers usable in it.
fn open_unified(
    place: &Place,
    name: &str,
    trash: &mut Vec<Trash>,
) -> io::Result<(PathBuf, Vec<String>)> {
    // A server whose launcher moved it into the leaf starts the next launcher from there.
    let own = match place.own.parent() {
        Some(parent) if place.own.ends_with(SELF_LEAF) => parent,
        _ => &place.own,
    };
    let is_root = |dir: &Path| !dir.join("cgroup.type").exists();
    let delegated = ["user.delegate", "trusted.delegate"].iter().any(|xattr| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(own, *xattr, &mut value[..]).is_ok_and(|len| value[..len] == *b"1")
    });
    // Root without a delegated group of its own uses the top of the hierarchy, where inner processes are allowed,
    // instead of rearranging the processes of a login session.
    let as_root = rustix::process::geteuid().is_root();
    let parent =
        if !delegated && as_root && is_root(&place.mount) { place.mount.as_path() } else { own };
    let controllers = fs::read_to_string(parent.join("cgroup.controllers"))?;
    let wanted: Vec<&str> =
        controllers.split_whitespace().filter(|name| CONTROLLERS.contains(name)).collect();
    let base = make_base(&parent.join(name), trash)?;
    let delegate = || -> io::Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        if !is_root(parent) {
            move_processes(parent)?;
        }
        enable(parent, &wanted)?;
        enable(&base, &wanted)
    };
    if let Err(error) = delegate() {
        let _busy = fs::remove_dir(&base);
        return Err(error);
    }
    Ok((base, wanted.into_iter().map(str::to_owned).collect()))
}

/// Version 2 allows controllers below a group only if the group itself holds no process.
fn move_processes(group: &Path) -> io::Result<()> {
    let leaf = group.join(SELF_LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        match write(&leaf.join("cgroup.procs"), pid) {
            // The process ended in the meantime.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

fn enable(group: &Path, controllers: &[&str]) -> io::Result<()> {
    let all: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    write(&group.join("cgroup.subtree_control"), &all.join(" "))
}

/// Makes a launcher's directory, or empties the one an earlier launcher of this name left. Its sandboxes died with it.
/// Those whose last processes are still dying go to `trash`.
fn make_base(base: &Path, trash: &mut Vec<Trash>) -> io::Result<PathBuf> {
    match fs::create_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let children = fs::read_dir(base)?
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir());
            trash.extend(children.filter(|child| fs::remove_dir(child).is_err()).map(Trash::from));
        }
        other => other?,
    }
    Ok(base.to_owned())
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    // Never creates: in a cgroup every file is there already.
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(CONTROL_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// The value of `key` in a file of `key value` lines.
fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = read(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_hybrid_pure_and_contained_hosts() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "5:memory:/a/b\n2:cpu,cpuacct:/\n0::/user.slice/x\n";
        let found = parse_hierarchies(mounts, own);
        assert_eq!(found["memory"].own, Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(found["cpu"].own, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found[""].own, Path::new("/sys/fs/cgroup/unified/user.slice/x"));
        assert!(!found.contains_key("pids"));

        let mounts = "41 31 0:38 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let found = parse_hierarchies(mounts, "0::/docker/1/inner\n");
        assert_eq!(found[""].own, Path::new("/sys/fs/cgroup/inner"));
    }

    #[test]
    fn settings_say_what_was_asked() {
        let limits = Limits { cpu_millis: 500, pids_max: 7, ..Limits::default() };
        let v2 = settings("cpu", &Reach::V2, &limits);
        assert_eq!(v2, [("cpu.max", "50000 100000".to_owned(), false)]);
        let v1 = settings("cpu", &Reach::V1(PathBuf::new()), &limits);
        assert_eq!(v1[1], ("cpu.cfs_quota_us", "50000".to_owned(), false));
        assert_eq!(settings("pids", &Reach::V2, &limits)[0].1, "8");
    }

    #[test]
    fn counters_are_read_from_either_version() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("memory.events", "low 0\noom 1\noom_kill 2\noom_group_kill 0\n");
        put("memory.peak", "4096\n");
        put("cpu.stat", "usage_usec 77\nuser_usec 1\n");
        put("pids.events", "max 3\n");
        let group = Group {
            unified: Some(dir.path().to_owned()),
            v2_controllers: true,
            ..Group::default()
        };
        let expected = Counts {
            oom_killed: true,
            memory_peak_bytes: Some(4096),
            cpu_micros: Some(77),
            pids_refused: Some(3),
        };
        assert_eq!(group.counts(), expected);

        put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
        put("memory.max_usage_in_bytes", "8192\n");
        let v1 = BTreeMap::from([("memory", dir.path().to_owned())]);
        let group = Group { v1, ..Group::default() };
        assert_eq!(group.counts(), Counts { memory_peak_bytes: Some(8192), ..Counts::default() });
    }
}
