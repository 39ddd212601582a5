//! What the caller asks for: the sandbox, its limits, and the program to run in it. Every field has a bound.
//!
//! Deliberately absent: network rules (a sandbox has loopback only, all else is the gateway's business) and images
//! (the root is the host's own userland, read-only).

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::SandboxError;
pub use crate::sys::Owner;
use crate::weakness::Weakness;

/// Longest sandbox id, in bytes. It becomes part of a cgroup's name.
pub const ID_BYTES_MAX: usize = 64;
/// Most binds of one sandbox.
pub const BINDS_MAX: usize = 64;
/// Most layers below the upper directory of one overlay.
pub const OVERLAY_LOWER_MAX: usize = 8;
/// Longest path, in bytes (the kernel's own bound).
pub const PATH_BYTES_MAX: usize = 4096;
/// Arguments and environment together, in bytes.
pub const ARGS_AND_ENV_BYTES_MAX: usize = 256 * 1024;
/// Most arguments, and most environment variables.
pub const ARGS_COUNT_MAX: usize = 4096;
/// Most bytes given to the payload on standard input.
pub const STDIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Where the payload's home directory is.
pub const HOME_INSIDE: &str = "/home/agent";
/// Port of the gateway's listener in an agent's sandbox. The network is the sandbox's own, so it is always free.
pub const GATEWAY_PORT: u16 = 8_787;
/// Most processes and threads of an agent's sandbox.
const AGENT_PIDS_MAX: u32 = 1_024;
/// Most files and directories of an agent's sandbox.
const AGENT_DISK_FILES_MAX: u64 = 2_000_000;
/// Longest time limit of the launcher's own, seconds.
const WALL_SECONDS_MAX: u32 = 30 * 86_400;
/// User and group id of the payload as it sees itself; agents refuse to run as root.
pub const PAYLOAD_ID_INSIDE: u32 = 1000;

/// Host user and group that a root launcher runs payloads as unless told otherwise.
///
/// 0x7000_0001: just above the range that systemd reserves for containers (up to 0x6FFF_FFFF), so no account of a
/// normal system has it.
pub const DEFAULT_PAYLOAD_OWNER: Owner = Owner { uid: 1_879_048_193, gid: 1_879_048_193 };

/// What may be done with a bound path inside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read and execute.
    ReadOnly,
    /// Everything. The path must belong to [`crate::Sandbox::payload_owner`].
    ReadWrite,
}

/// Directories that are shown as one tree together with a bind's own, which is the upper one: overlayfs of the kernel,
/// mounted in the sandbox's own user namespace. What is written goes into the upper directory, deletions too; a
/// directory of a lower layer cannot be renamed (EXDEV, as between file systems). See [`crate::HostReport::overlay`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Directories that are never written, the topmost first; 1 to [`OVERLAY_LOWER_MAX`]. The payload has its own
    /// rights on what is in them, so what it shall be able to change must belong to it.
    pub lower: Vec<PathBuf>,
    /// For [`Access::ReadWrite`]: a directory beside the upper one, in the same parent, that belongs to
    /// [`crate::Sandbox::payload_owner`] and to which nobody else writes; the kernel prepares changes in it. `None` for
    /// [`Access::ReadOnly`].
    pub work: Option<PathBuf>,
}

/// A directory or regular file of the host shown inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host without any symbolic link; canonicalise what you trust. Not the root, and nothing
    /// below /proc, /sys or /dev.
    pub host: PathBuf,
    /// Absolute path inside. Missing parents are made as empty directories.
    pub inside: PathBuf,
    /// What may be done with it.
    pub access: Access,
    /// Layers below `host`, which is a directory then: what is read-write is written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
}

impl Bind {
    /// A path that can only be read and executed.
    #[must_use]
    pub fn read_only(host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        let (host, inside) = (host.into(), inside.into());
        Self { host, inside, access: Access::ReadOnly, overlay: None }
    }

    /// A path that can be changed.
    #[must_use]
    pub fn read_write(host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        Self { access: Access::ReadWrite, ..Self::read_only(host, inside) }
    }

    /// `upper` above `lower`, the topmost first: read-write with `work`, read-only without. See [`Overlay`].
    #[must_use]
    pub fn overlay(
        upper: impl Into<PathBuf>,
        work: Option<PathBuf>,
        lower: Vec<PathBuf>,
        inside: impl Into<PathBuf>,
    ) -> Self {
        let access = if work.is_some() { Access::ReadWrite } else { Access::ReadOnly };
        Self { access, overlay: Some(Overlay { lower, work }), ..Self::read_only(upper, inside) }
    }

    fn validate(&self) -> Result<(), SandboxError> {
        check_path("bind inside path", &self.inside)?;
        let inside = self.inside.display();
        require(!is_reserved(&self.inside), || {
            format!("bind inside path {inside} is the sandbox's own; choose another")
        })?;
        let layers =
            self.overlay.iter().flat_map(|overlay| overlay.lower.iter().chain(&overlay.work));
        for host in [&self.host].into_iter().chain(layers) {
            check_path("bind host path", host)?;
            require(!is_kernels(host), || {
                format!("bind host path {} would open the host; choose another", host.display())
            })?;
        }
        let Some(Overlay { lower, work }) = &self.overlay else { return Ok(()) };
        require((1..=OVERLAY_LOWER_MAX).contains(&lower.len()), || {
            format!("overlay at {inside}: 1 to {OVERLAY_LOWER_MAX} lower layers")
        })?;
        let work_fits = match (self.access, work) {
            (Access::ReadOnly, None) => true,
            (Access::ReadWrite, Some(work)) => {
                work.parent() == self.host.parent() && *work != self.host
            }
            _ => false,
        };
        require(work_fits, || {
            format!(
                "overlay at {inside}: work must be another directory in the upper directory's parent if the \
                 overlay is read-write, and absent if it is read-only"
            )
        })
    }
}

/// Checks binds that come together.
fn check_binds(binds: &[Bind]) -> Result<(), SandboxError> {
    require(binds.len() <= BINDS_MAX, || format!("binds: at most {BINDS_MAX}"))?;
    let mut seen = BTreeSet::new();
    for bind in binds {
        bind.validate()?;
        require(seen.insert(&bind.inside), || format!("two binds at {}", bind.inside.display()))?;
    }
    Ok(())
}

/// Checks the name of a sandbox.
fn check_id(id: &str) -> Result<(), SandboxError> {
    let fits = (1..=ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    require(fits, || format!("id must be 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 _ -"))
}

/// Limits of one sandbox. All are enforced where the host allows it; see [`crate::Isolation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processor time in thousandths of one processor, 10 to 1,000,000.
    pub cpu_millis: u32,
    /// Memory in bytes, at least 16 MiB; covers /tmp and HOME too, swap is off.
    pub memory_bytes: u64,
    /// Processes and threads, 4 to 1,000,000.
    pub pids_max: u32,
    /// Open files per process, 64 to 1,048,576; never above what the host already allows.
    pub open_files_max: u32,
    /// Size of the private HOME in bytes, at least 64 KiB.
    pub home_bytes: u64,
    /// Size of the private /tmp in bytes, at least 64 KiB.
    pub tmp_bytes: u64,
    /// Seconds after the start at which the launcher itself kills the sandbox, whether or not a server is there:
    /// the backstop behind the server's own timeout. `None` for no backstop.
    pub wall_seconds: Option<u32>,
    /// Bytes on disk in all read-write binds together, and of one file; at least 1 MiB. One file cannot grow beyond
    /// it; the sum is watched, and beyond it the sandbox is ended with SIGXFSZ. `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Files and directories in all read-write binds together, at least 64; watched in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_files: Option<u64>,
}

impl Limits {
    /// An agent's, of this size: processor in thousandths, memory and disk in bytes; `wall_seconds` as in the
    /// field.
    #[must_use]
    pub fn of_agent(
        cpu_millis: u32,
        memory_bytes: u64,
        disk_bytes: u64,
        wall_seconds: Option<u32>,
    ) -> Self {
        Self {
            cpu_millis,
            memory_bytes,
            pids_max: AGENT_PIDS_MAX,
            home_bytes: memory_bytes / 2,
            tmp_bytes: memory_bytes / 2,
            disk_bytes: Some(disk_bytes),
            disk_files: Some(AGENT_DISK_FILES_MAX),
            wall_seconds,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_millis: 1000,
            memory_bytes: 2 << 30,
            pids_max: 1024,
            open_files_max: 65_536,
            home_bytes: 1 << 30,
            tmp_bytes: 1 << 30,
            wall_seconds: None,
            disk_bytes: None,
            disk_files: None,
        }
    }
}

/// A sandbox to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Unique name: 1 to 64 of `A-Z a-z 0-9 _ -`. Use one that names the attempt, so that a second start collides.
    pub id: String,
    /// Host paths to show, in the order they are mounted.
    pub binds: Vec<Bind>,
    /// Limits.
    pub limits: Limits,
    /// `Some(port)` makes a TCP listener on 127.0.0.1 inside; 0 lets the kernel choose the port.
    pub listener_port: Option<u16>,
    /// Host user to run as, for a launcher that runs as root; `None` is [`DEFAULT_PAYLOAD_OWNER`]. An ordinary
    /// user's launcher always runs payloads as that user and refuses anything else.
    pub payload_owner: Option<Owner>,
    /// Protections left off; see [`Weakness`]. Only a launcher made for proofs accepts any.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub weakened: BTreeSet<Weakness>,
}

impl SandboxSpec {
    /// True if this protection is left off.
    pub(crate) fn lacks(&self, protection: Weakness) -> bool {
        self.weakened.contains(&protection)
    }

    /// A sandbox with default limits, no binds and no listener.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            binds: Vec::new(),
            limits: Limits::default(),
            listener_port: None,
            payload_owner: None,
            weakened: BTreeSet::new(),
        }
    }

    /// Adds a read-only bind.
    #[must_use]
    pub fn read_only(self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.bind(Bind::read_only(host, inside))
    }

    /// Adds a read-write bind.
    #[must_use]
    pub fn read_write(self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.bind(Bind::read_write(host, inside))
    }

    /// Adds an overlay; see [`Bind::overlay`].
    #[must_use]
    pub fn overlay(
        self,
        upper: impl Into<PathBuf>,
        work: Option<PathBuf>,
        lower: Vec<PathBuf>,
        inside: impl Into<PathBuf>,
    ) -> Self {
        self.bind(Bind::overlay(upper, work, lower, inside))
    }

    /// Adds a bind.
    #[must_use]
    pub fn bind(mut self, bind: Bind) -> Self {
        self.binds.push(bind);
        self
    }

    /// Checks every field against its bound.
    ///
    /// # Errors
    /// [`SandboxError::InvalidSpec`] naming the field.
    pub fn validate(&self) -> Result<(), SandboxError> {
        check_id(&self.id)?;
        check_binds(&self.binds)?;
        if let Some(owner) = self.payload_owner {
            require(owner.uid != 0 && owner.gid != 0, || {
                "payload_owner may not be root".to_owned()
            })?;
        }
        self.limits.validate()
    }
}

impl Limits {
    fn validate(&self) -> Result<(), SandboxError> {
        let within = |name: &str, value: u64, min: u64, max: u64| {
            require((min..=max).contains(&value), || {
                format!("limits.{name} must be {min} to {max}, is {value}")
            })
        };
        within("cpu_millis", self.cpu_millis.into(), 10, 1_000_000)?;
        within("memory_bytes", self.memory_bytes, 16 << 20, 1 << 50)?;
        within("pids_max", self.pids_max.into(), 4, 1_000_000)?;
        within("open_files_max", self.open_files_max.into(), 64, 1 << 20)?;
        within("home_bytes", self.home_bytes, 64 << 10, 1 << 50)?;
        within("tmp_bytes", self.tmp_bytes, 64 << 10, 1 << 50)?;
        within("disk_bytes", self.disk_bytes.unwrap_or(1 << 20), 1 << 20, 1 << 50)?;
        within("disk_files", self.disk_files.unwrap_or(64), 64, 1 << 40)?;
        check_wall(self.wall_seconds)
    }
}

fn check_wall(seconds: Option<u32>) -> Result<(), SandboxError> {
    require(seconds.is_none_or(|seconds| (1..=WALL_SECONDS_MAX).contains(&seconds)), || {
        format!("wall_seconds must be 1 to {WALL_SECONDS_MAX}")
    })
}

/// What a parked sandbox gets when it is taken for an attempt; see [`crate::ParkedSandbox::claim`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The name it has from then on, bounded as [`SandboxSpec::id`].
    pub id: String,
    /// Binds besides those it was made with, at other places, in the order they are mounted. One at [`HOME_INSIDE`] or
    /// `/tmp` takes the place of the private one.
    pub binds: Vec<Bind>,
    /// As [`Limits::wall_seconds`], counted from the start of the payload; `None` leaves the limit it was made with.
    pub wall_seconds: Option<u32>,
}

impl Claim {
    /// Checks every field against its bound.
    ///
    /// # Errors
    /// [`SandboxError::InvalidSpec`] naming the field.
    pub fn validate(&self) -> Result<(), SandboxError> {
        check_id(&self.id)?;
        check_binds(&self.binds)?;
        check_wall(self.wall_seconds)
    }
}

/// True if some of `binds` covers `inside` exactly.
pub(crate) fn binds_exactly(binds: &[Bind], inside: &str) -> bool {
    binds.iter().any(|bind| bind.inside == Path::new(inside))
}

fn require(ok: bool, message: impl FnOnce() -> String) -> Result<(), SandboxError> {
    if ok { Ok(()) } else { Err(SandboxError::InvalidSpec { message: message() }) }
}

fn check_path(what: &str, path: &Path) -> Result<(), SandboxError> {
    let shown = path.display();
    let Some(text) = path.to_str() else {
        return Err(SandboxError::InvalidSpec {
            message: format!("{what} {shown} is not valid UTF-8"),
        });
    };
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    require(path.is_absolute() && plain, || {
        format!("{what} {shown} must be absolute, without . or ..")
    })?;
    require(text.len() <= PATH_BYTES_MAX && !text.contains('\0'), || {
        format!("{what} must be at most {PATH_BYTES_MAX} bytes, without NUL")
    })
}

/// Paths of the host that would give away more than files.
fn is_kernels(host: &Path) -> bool {
    host == Path::new("/") || ["/proc", "/sys", "/dev"].iter().any(|path| host.starts_with(path))
}

/// Paths that the sandbox builds itself and a bind may not replace.
fn is_reserved(inside: &Path) -> bool {
    let exact =
        ["/", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/home"];
    let whole = ["/proc", "/dev", "/sys"];
    exact.iter().any(|p| inside == Path::new(p)) || whole.iter().any(|p| inside.starts_with(p))
}

/// The program to run in a parked sandbox.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Program and arguments. A program without `/` is looked up in the `PATH` of [`Payload::env`].
    pub argv: Vec<String>,
    /// The whole environment; nothing of the host's is added.
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub cwd: String,
    /// Bytes on standard input; empty means `/dev/null`. They travel as a file, not inside the message.
    #[serde(skip)]
    pub stdin: Vec<u8>,
}

impl fmt::Debug for Payload {
    /// Values of variables and the input may be secret, so only their names and sizes are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Payload")
            .field("program", &self.argv.first())
            .field("args", &self.argv.len().saturating_sub(1))
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("stdin_bytes", &self.stdin.len())
            .finish()
    }
}

impl Payload {
    /// A program with its arguments, in the home directory with a minimal environment (HOME, USER, PATH, LANG).
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let env = [
            ("HOME", HOME_INSIDE),
            ("USER", "agent"),
            ("LOGNAME", "agent"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
        ];
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            cwd: HOME_INSIDE.to_owned(),
            stdin: Vec::new(),
        }
    }

    /// Sets one variable, replacing an earlier value.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.env.retain(|(old, _)| *old != name);
        self.env.push((name, value.into()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.cwd = cwd.into();
        self
    }

    /// Sets what the program reads on standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Checks every field against its bound.
    ///
    /// # Errors
    /// [`SandboxError::InvalidSpec`] naming the field.
    pub fn validate(&self) -> Result<(), SandboxError> {
        require(self.argv.first().is_some_and(|program| !program.is_empty()), || {
            "argv must name a program".to_owned()
        })?;
        require(self.argv.len() <= ARGS_COUNT_MAX && self.env.len() <= ARGS_COUNT_MAX, || {
            format!("at most {ARGS_COUNT_MAX} arguments and variables each")
        })?;
        let args: usize = self.argv.iter().map(|arg| arg.len() + 1).sum();
        let env: usize = self.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        require(args + env <= ARGS_AND_ENV_BYTES_MAX, || {
            format!(
                "arguments and environment: at most {ARGS_AND_ENV_BYTES_MAX} bytes together; use stdin or a file"
            )
        })?;
        let nul = self.argv.iter().any(|arg| arg.contains('\0'))
            || self.env.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
        require(!nul, || "arguments and environment may not contain NUL".to_owned())?;
        require(self.env.iter().all(|(name, _)| !name.is_empty() && !name.contains('=')), || {
            "names of variables must be non-empty, without =".to_owned()
        })?;
        check_path("cwd", Path::new(&self.cwd))?;
        require(self.stdin.len() <= STDIN_BYTES_MAX, || {
            format!("stdin: at most {STDIN_BYTES_MAX} bytes")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_out_of_bounds() {
        assert!(SandboxSpec::new("a-1_B").validate().is_ok());
        for id in ["", "a/b", "..", "ü", &"x".repeat(65)] {
            assert!(SandboxSpec::new(id).validate().is_err(), "{id}");
        }
        for inside in ["/", "/proc/x", "/usr", "relative", "/a/../b", "/dev/null", "/etc"] {
            assert!(
                SandboxSpec::new("a").read_only("/opt", inside).validate().is_err(),
                "{inside}"
            );
        }
        assert!(SandboxSpec::new("a").read_only("/opt", "/etc/gitconfig").validate().is_ok());
        for host in ["/", "/proc/1/root", "/sys", "/dev/kvm", "etc"] {
            assert!(SandboxSpec::new("a").read_only(host, "/x").validate().is_err(), "{host}");
        }
        let overlay = |work: Option<&str>, lower: &[&str]| {
            let lower = lower.iter().map(PathBuf::from).collect();
            SandboxSpec::new("a").overlay("/d/up", work.map(PathBuf::from), lower, "/x").validate()
        };
        assert!(overlay(Some("/d/work"), &["/l"]).is_ok() && overlay(None, &["/l"; 8]).is_ok());
        for (work, lower) in [
            (None, &[][..]),
            (None, &["/l"; 9]),
            (Some("/e/work"), &["/l"]),
            (Some("/d/up"), &["/l"]),
            (None, &["/proc/self/root"]),
            (None, &["l"]),
        ] {
            assert!(overlay(work, lower).is_err(), "{work:?} {lower:?}");
        }
        let mut bind = Bind::read_write("/d/up", "/x");
        bind.overlay = Some(Overlay { lower: vec!["/l".into()], work: None });
        let claim = |id: &str, bind, wall_seconds| {
            Claim { id: id.to_owned(), binds: vec![bind], wall_seconds }.validate()
        };
        assert!(claim("a", bind.clone(), None).is_err(), "read-write without work");
        bind.overlay = None;
        assert!(claim("a", bind.clone(), Some(1)).is_ok());
        assert!(claim("", bind.clone(), None).is_err() && claim("a", bind, Some(0)).is_err());
        let twice = SandboxSpec::new("a").read_only("/opt", "/x").read_write("/opt", "/x");
        assert!(twice.validate().is_err());
        let mut root = SandboxSpec::new("a");
        root.payload_owner = Some(Owner { uid: 0, gid: 5 });
        assert!(root.validate().is_err());
        let mut tiny = SandboxSpec::new("a");
        tiny.limits.memory_bytes = 1;
        assert!(tiny.validate().is_err());
    }

    #[test]
    fn payload_bounds_and_secrecy() {
        let payload = Payload::new(["true"]).env("KEY", "hunter2");
        assert!(payload.validate().is_ok());
        assert!(!format!("{payload:?}").contains("hunter2"));
        assert!(Payload::new(Vec::<String>::new()).validate().is_err());
        assert!(Payload::new(["a\0b"]).validate().is_err());
        assert!(Payload::new(["a"]).env("A=B", "c").validate().is_err());
        assert!(Payload::new(["a"]).cwd("x").validate().is_err());
        assert!(Payload::new(["x".repeat(ARGS_AND_ENV_BYTES_MAX)]).validate().is_err());
    }
}
