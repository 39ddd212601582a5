//! The host itself: kernel, cgroups, data directory, and whether a sandbox really starts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use outpost_sandbox::{IsolationLevel, LauncherOptions, LinuxSandbox, SandboxPolicy, probe_host};
use outpost_terminal::format::bytes;

use super::{Finding, State};
use outpost_args::IsolationMinimum;
use outpost_config::Config;

/// Free space below which installing an agent is likely to fail, bytes.
const FREE_BYTES_MIN: u64 = 2 * 1024 * 1024 * 1024;
/// Oldest kernel: Landlock (5.13) and `cgroup.kill` (5.14).
const KERNEL_MIN: (u32, u32) = (5, 13);

/// The kernel's version.
pub(super) fn kernel() -> Finding {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']).map(str::parse::<u32>);
    let number = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if number >= KERNEL_MIN {
        return Finding::new("kernel", State::Ok, release);
    }
    let (major, minor) = KERNEL_MIN;
    Finding::new("kernel", State::Warn, format!("{release} is old"))
        .hint(format!("Linux {major}.{minor} or newer can enforce more"))
}

/// Whether the data directory can be written to and has space.
pub(super) fn data_dir(config: &Config) -> Finding {
    const NAME: &str = "data directory";
    let dir = config.dir();
    if let Err(error) = dir.create() {
        let hint = error.hint.clone().unwrap_or_default();
        return Finding::new(NAME, State::Fail, error.to_string()).hint(hint);
    }
    let path = dir.root();
    if let Err(error) = tempfile::tempfile_in(path) {
        let what = format!("{} cannot be written to: {error}", path.display());
        return Finding::new(NAME, State::Fail, what).hint("name another one with --data-dir");
    }
    let free = rustix::fs::statvfs(path)
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
        .unwrap_or(0);
    let what = format!("{}, {} free", path.display(), bytes(free));
    if free < FREE_BYTES_MIN {
        return Finding::new(NAME, State::Warn, what)
            .hint("an agent's CLI takes up to 700 MB, a repository its own size");
    }
    Finding::new(NAME, State::Ok, what)
}

/// Which cgroups there are. What of them can be used, the sandbox itself finds out.
pub(super) fn cgroups() -> Finding {
    const NAME: &str = "cgroups";
    let root = Path::new("/sys/fs/cgroup");
    if let Ok(controllers) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        let missing: Vec<&str> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|name| !controllers.split_whitespace().any(|found| found == *name))
            .collect();
        if missing.is_empty() {
            return Finding::new(NAME, State::Ok, "version 2 with cpu, memory, pids");
        }
        let what = format!("version 2 without {}", missing.join(", "));
        return Finding::new(NAME, State::Warn, what)
            .hint("resource limits need these controllers; see /sys/fs/cgroup/cgroup.controllers");
    }
    let found: Vec<&str> =
        ["cpu", "memory", "pids"].into_iter().filter(|name| root.join(name).is_dir()).collect();
    if found.is_empty() {
        return Finding::new(NAME, State::Warn, "none found below /sys/fs/cgroup")
            .hint("without cgroups, cpu, memory and processes of an agent are not limited");
    }
    Finding::new(NAME, State::Ok, format!("version 1 with {}", found.join(", ")))
}

/// Runs a program in a real sandbox.
pub(super) async fn sandbox(config: &Config) -> Finding {
    const NAME: &str = "sandbox";
    // A directory of its own: a running server's launcher serves one client at a time. Sockets have
    // short paths only.
    let mode = std::fs::Permissions::from_mode(0o700);
    let dir = match tempfile::Builder::new().prefix("outpost-doctor-").permissions(mode).tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            return Finding::new(NAME, State::Fail, format!("no temporary directory: {error}"));
        }
    };
    let socket: PathBuf = dir.path().join("launcher.sock");
    let policy = SandboxPolicy::allow_missing_limits();
    let sandbox = LinuxSandbox::new(LauncherOptions::new(socket), policy);
    let probe = probe_host(&sandbox).await;
    // It would end by itself a few seconds later.
    let _ = sandbox.shut_down().await;
    if let Some(problem) = probe.problem {
        return Finding::new(NAME, State::Fail, problem)
            .hint("dispatches cannot run here before this is solved");
    }
    let Some(host) = probe.host else {
        return Finding::new(NAME, State::Fail, "the launcher did not start");
    };
    let who = if host.rootless { "as an ordinary user" } else { "as root" };
    let what = format!("works {who}: {}", host.isolation.enforced.join(", "));
    let missing = host.isolation.missing;
    let lacks: String = missing.iter().map(|what| format!("\nmissing: {what}")).collect();
    if host.isolation.level < required(config.isolation_minimum) {
        return Finding::new(NAME, State::Fail, what + &lacks).hint(
            "start Outpost where cgroups can be used, or set isolation.minimum = \"namespaces\"",
        );
    }
    if missing.is_empty() {
        return Finding::new(NAME, State::Ok, what);
    }
    if host.isolation.level < IsolationLevel::Limits {
        return Finding::new(NAME, State::Warn, what + &lacks).hint(
            "as root, or under `systemd-run --user --scope -p Delegate=yes`, limits work too",
        );
    }
    Finding::new(NAME, State::Ok, what + &lacks)
}

const fn required(minimum: IsolationMinimum) -> IsolationLevel {
    match minimum {
        IsolationMinimum::Namespaces => IsolationLevel::Namespaces,
        IsolationMinimum::Limits => IsolationLevel::Limits,
    }
}
