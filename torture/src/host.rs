//! What a data directory's server leaves on the host: processes, control groups, mounts, directories.
//!
//! Only what carries the data directory's own name is looked at, so other servers on the machine do not
//! matter. Deliberately absent: anything that changes the host, but for the one kill.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use outpost_types::DispatchId;
use rustix::process::{Pid, Signal, kill_process};

/// Start of the names of warm workers.
const WARM_NAME: &str = "warm-";
/// Directory levels below the mount of the control groups that are searched.
const CGROUP_DEPTH_MAX: u32 = 6;

/// The host as seen from one data directory.
#[derive(Debug, Clone)]
pub struct Host {
    data_dir: PathBuf,
}

/// Name of the launcher's child that watches disks.
const METER_NAME: &str = "outpost-meter";

/// A process that has to do with the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    name: String,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Launcher,
    /// The launcher's child that watches disks; ends with it.
    Meter,
    /// Inside a sandbox, or on the way there.
    Inmate,
}

impl Host {
    /// `data_dir` is absolute and without links.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into() }
    }

    fn socket(&self) -> PathBuf {
        self.data_dir.join("launcher/socket")
    }

    /// The launcher's process id, if one lives.
    #[must_use]
    pub fn launcher(&self) -> Option<i32> {
        let is_launcher = |process: &Process| process.role == Role::Launcher;
        self.processes().into_iter().find(is_launcher).map(|process| process.pid)
    }

    /// Kills the launcher; `false` if there is none.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill_launcher(&self) -> anyhow::Result<bool> {
        let Some(pid) = self.launcher().and_then(Pid::from_raw) else { return Ok(false) };
        match kill_process(pid, Signal::KILL) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).context("the launcher cannot be killed"),
        }
    }

    /// What no run owns any more and is there nevertheless; call it when nothing runs. One sentence
    /// for each thing. So many workers are to be warm: with one more or less, each of them is named, since a
    /// worker that a run had is in a control group of the same kind of name.
    #[must_use]
    pub fn leftovers(&self, warm: usize) -> Vec<String> {
        let inmates = self.processes().into_iter().filter(|process| process.role == Role::Inmate);
        let (waiting, others): (Vec<_>, Vec<_>) = inmates.partition(|it| is_in_warm_group(it.pid));
        let unexpected = if waiting.len() == warm { Vec::new() } else { waiting };
        let mut left: Vec<String> = others
            .iter()
            .chain(&unexpected)
            .map(|it| format!("process {} ({}) is left", it.pid, it.name))
            .collect();
        left.extend(
            names_in(&self.data_dir.join("attempts"))
                .map(|name| format!("the directory {name} of an attempt is left")),
        );
        for group in self.groups() {
            let below = std::fs::read_dir(&group).into_iter().flatten().flatten();
            let dirs = below.map(|entry| entry.path()).filter(|path| path.is_dir());
            let (waiting, others): (Vec<_>, Vec<_>) = dirs.partition(|dir| {
                dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(WARM_NAME))
            });
            let unexpected = if waiting.len() == warm { Vec::new() } else { waiting };
            let dirs = others.into_iter().chain(unexpected);
            left.extend(dirs.map(|dir| format!("the control group {} is left", dir.display())));
        }
        if mounts_mention("/proc/self/mountinfo".as_ref(), &self.data_dir) {
            left.push("a mount of the data directory is left on the host".to_owned());
        }
        left
    }

    /// Processes of a run; call it when the run is over. One sentence for each.
    #[must_use]
    pub fn survivors(&self, id: DispatchId) -> Vec<String> {
        let group = self.group_name();
        let lives = |pid: &String| {
            let text = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
            let (Ok(cgroup), Ok(mounts), Ok(status)) =
                (text("cgroup"), text("mountinfo"), text("status"))
            else {
                return false;
            };
            !has_ended(&status) && belongs_to(id, &group, &cgroup, &mounts)
        };
        let pids = names_in("/proc".as_ref()).filter(|name| name.parse::<u32>().is_ok());
        pids.filter(lives).map(|pid| format!("{id} is over, but its process {pid} lives")).collect()
    }

    /// What is there though server and launcher have ended; one sentence for each thing.
    #[must_use]
    pub fn last_traces(&self) -> Vec<String> {
        let mut left = self.leftovers(0);
        let others = self.processes().into_iter().filter(|process| process.role != Role::Inmate);
        left.extend(others.map(|it| format!("the {:?} ({}) lives", it.role, it.pid)));
        let groups = self.groups();
        left.extend(
            groups.iter().map(|dir| format!("the control group {} is left", dir.display())),
        );
        if self.socket().exists() {
            left.push("the launcher's socket is left".to_owned());
        }
        left
    }

    fn processes(&self) -> Vec<Process> {
        let group = self.group_name();
        let pids = names_in("/proc".as_ref()).filter_map(|name| name.parse().ok());
        pids.filter_map(|pid| self.process(pid, &group)).collect()
    }

    /// Describes a process if it is one of this data directory.
    fn process(&self, pid: i32, group: &str) -> Option<Process> {
        if i64::from(pid) == i64::from(std::process::id()) {
            return None;
        }
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let cmdline = std::fs::read(dir.join("cmdline")).ok()?;
        let words: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
        let names_socket = words.contains(&self.socket().as_os_str().as_bytes());
        let status = std::fs::read_to_string(dir.join("status")).ok()?;
        if has_ended(&status) {
            return None;
        }
        // The launcher's children carry its words until they become something else, but they are the
        // first process of a namespace of their own.
        let nested = field(&status, "NSpid:").is_some_and(|ids| ids.split_whitespace().count() > 1);
        let in_group = std::fs::read_to_string(dir.join("cgroup"))
            .is_ok_and(|text| text.contains(&format!("/{group}/")));
        let name = field(&status, "Name:").unwrap_or_default().to_owned();
        let role = if names_socket && !nested && name == METER_NAME {
            Role::Meter
        } else if names_socket && !nested {
            Role::Launcher
        } else if names_socket || in_group || mounts_mention(&dir.join("mountinfo"), &self.data_dir)
        {
            Role::Inmate
        } else if self.is_server(pid) {
            Role::Server
        } else {
            return None;
        };
        Some(Process { pid, name, role })
    }

    fn is_server(&self, pid: i32) -> bool {
        let mut wanted = b"OUTPOST_DATA_DIR=".to_vec();
        wanted.extend_from_slice(self.data_dir.as_os_str().as_bytes());
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|text| text.split(|byte| *byte == 0).any(|variable| variable == wanted))
    }

    /// The launcher names its control groups after its socket (FNV-1a, 64 bits).
    fn group_name(&self) -> String {
        let hash = self
            .socket()
            .as_os_str()
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("outpost-{hash:016x}")
    }

    fn groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        search("/sys/fs/cgroup".as_ref(), &self.group_name(), CGROUP_DEPTH_MAX, &mut found);
        found
    }
}

fn names_in(dir: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Whether a process is in the control group of a worker that is warm, or was before a run had it.
fn is_in_warm_group(pid: i32) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.contains(&format!("/{WARM_NAME}"))
}

/// Whether it only waits for its parent to notice that it ended.
fn has_ended(status: &str) -> bool {
    field(status, "State:").is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// Whether a process with these control groups and mounts is one of the run.
fn belongs_to(id: DispatchId, group: &str, cgroup: &str, mounts: &str) -> bool {
    cgroup.contains(&format!("/{group}/{id}-")) || mounts.contains(&format!("/attempts/{id}-"))
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether a mount table shows something below `dir`, which is how a sandbox gets its workspace.
fn mounts_mention(table: &Path, dir: &Path) -> bool {
    // The root of a bind mount is told from the root of its file system on, which may be mounted
    // anywhere; the last two names are enough to tell.
    let tail: PathBuf =
        dir.components().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
    let tail = format!("{}/", tail.display());
    std::fs::read_to_string(table).is_ok_and(|text| text.contains(&tail))
}

fn search(dir: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() == name {
                found.push(entry.path());
            } else if depth > 0 {
                search(&entry.path(), name, depth - 1, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Ends(Child);

    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// A process that sleeps until its input ends; `what` says how it shows.
    fn process(words: &[&str], variable: Option<&Path>) -> Ends {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo up; read line", "sh"]).args(words);
        if let Some(dir) = variable {
            command.env("OUTPOST_DATA_DIR", dir);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 3];
        // It is what it will be once it speaks.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Ends(child)
    }

    #[test]
    fn what_is_left_is_found_and_what_is_not_ours_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path().join("data"));
        let other = Host::new(dir.path().join("other"));
        assert_eq!(host.last_traces(), [] as [String; 0]);
        std::fs::create_dir_all(dir.path().join("data/attempts/X-1")).unwrap();
        std::fs::create_dir(dir.path().join("data/launcher")).unwrap();
        std::fs::write(host.socket(), "").unwrap();
        let server = process(&[], Some(&dir.path().join("data")));
        let launcher = process(&[host.socket().to_str().unwrap()], None);
        assert_eq!(host.launcher(), Some(i32::try_from(launcher.0.id()).unwrap()));
        assert_eq!(other.launcher(), None);
        assert_eq!(host.leftovers(0), ["the directory X-1 of an attempt is left"]);
        let traces = host.last_traces().join("\n");
        for what in ["attempt", "socket", "the Server", "the Launcher"] {
            assert!(traces.contains(what), "{what}: {traces}");
        }
        assert_eq!(other.last_traces(), [] as [String; 0]);
        drop((server, launcher));
        assert_eq!(host.last_traces().len(), 2);
    }

    #[test]
    fn survivors_are_known_by_group_or_mount() {
        let (id, other) = (DispatchId::from_parts(1, 1), DispatchId::from_parts(1, 2));
        let cgroup = format!("5:memory:/outpost-a/{id}-1\n0::/\n");
        assert!(belongs_to(id, "outpost-a", &cgroup, ""));
        assert!(!belongs_to(id, "outpost-b", &cgroup, ""));
        assert!(!belongs_to(other, "outpost-a", &cgroup, ""));
        let mounts = format!("30 29 8:1 /data/attempts/{id}-2/home /home/agent rw - ext4 /d rw\n");
        assert!(belongs_to(id, "outpost-a", "", &mounts));
        assert!(!belongs_to(other, "outpost-a", "", &mounts));
        assert!(has_ended("Name:\tsh\nState:\tZ (zombie)\n"));
        assert!(!has_ended("Name:\tsh\nState:\tS (sleeping)\n"));
    }

    #[test]
    fn mounts_and_groups_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("mountinfo");
        let line =
            "30 29 8:1 /tmp/x1/data/attempts/A-1/workspace /workspace/A rw - ext4 /dev/a rw\n";
        std::fs::write(&table, line).unwrap();
        assert!(mounts_mention(&table, "/tmp/x1/data".as_ref()));
        assert!(!mounts_mention(&table, "/tmp/x2/data".as_ref()));
        std::fs::create_dir_all(dir.path().join("a/b/outpost-1")).unwrap();
        let mut found = Vec::new();
        search(dir.path(), "outpost-1", 3, &mut found);
        assert_eq!(found, [dir.path().join("a/b/outpost-1")]);
        search(dir.path(), "outpost-2", 3, &mut found);
        assert_eq!(found.len(), 1);
    }
}
