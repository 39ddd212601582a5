//! What the host lays out: an attempt's directories as the runner makes them, a neighbour's, and baits to be found.
//!
//! Everything is in one temporary directory and goes with it. Unlike the product's data directory it may be entered by
//! everybody: what keeps a payload out must be the sandbox, not the rights of a directory above.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use outpost_sandbox::{
    GATEWAY_PORT, HOME_INSIDE, LauncherOptions, Limits, LinuxSandbox, Owner, Payload, Sandbox as _,
    SandboxSpec,
};
use outpost_types::{Resources, Tier};

use crate::probe::{Bait, PROBE_ARGUMENT, Probe};
use crate::run::{Options, SelftestError};

/// Where the probe is shown inside.
pub(crate) const PROBE_INSIDE: &str = "/opt/outpost-probe";
/// Where the setuid copy is shown inside.
const SETUID_INSIDE: &str = "/opt/outpost-setuid";
/// Where the stand-in of a repository mirror is shown inside.
const MIRROR_INSIDE: &str = "/srv/mirror";
/// Time limit of a sandbox, seconds.
const WALL_SECONDS: u32 = 120;
/// How long a flood waits whether it may keep what it got, where a limit ends it and where there is none, milliseconds.
const HOLD_MILLIS_LIMITED: u64 = 60_000;
const HOLD_MILLIS_FREE: u64 = 2_500;

/// The host's side of all probes.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sandbox: LinuxSandbox,
    pub(crate) launcher_socket: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) root: bool,
    tcp: TcpListener,
    _abstract_socket: UnixListener,
    _path_socket: UnixListener,
    abstract_name: String,
    secret: String,
    counter: AtomicU32,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("dir", &self.dir.path()).finish_non_exhaustive()
    }
}

/// The directories of one attempt.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) workspace: PathBuf,
    pub(crate) inside: String,
}

impl Stage {
    pub(crate) async fn build(options: &Options) -> Result<Self, SelftestError> {
        let dir = tempfile::Builder::new().prefix("outpost-selftest-").tempdir()?;
        open_to_all(dir.path())?;
        let launcher_dir = dir.path().join("launcher");
        fs::create_dir(&launcher_dir)?;
        fs::set_permissions(&launcher_dir, fs::Permissions::from_mode(0o700))?;
        let launcher_socket = launcher_dir.join("s");
        let launcher = LauncherOptions {
            program: options.launcher_program.clone(),
            arguments: options.launcher_arguments.clone(),
            ..LauncherOptions::new(&launcher_socket)
        };
        let sandbox = LinuxSandbox::new(launcher, options.policy);
        let host = sandbox.host().await?;
        let abstract_name = format!("outpost-selftest-{}", dir.path().display());
        let abstract_socket =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?;
        let path_socket = UnixListener::bind(dir.path().join("socket"))?;
        fs::set_permissions(dir.path().join("socket"), fs::Permissions::from_mode(0o777))?;
        let stage = Self {
            secret: format!("secret of {}", dir.path().display()),
            sandbox,
            launcher_socket,
            program: options.probe_program.canonicalize()?,
            owner: host.payload_owner,
            root: !host.rootless,
            tcp: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            _abstract_socket: abstract_socket,
            _path_socket: path_socket,
            abstract_name,
            counter: AtomicU32::new(0),
            dir,
        };
        stage.lay_out()?;
        Ok(stage)
    }

    fn lay_out(&self) -> io::Result<()> {
        let attempts = self.dir.path().join("attempts");
        fs::create_dir(&attempts)?;
        open_to_all(&attempts)?;
        let neighbour = self.neighbour_file();
        let dirs = neighbour.ancestors().skip(1).take(2).map(Path::to_owned).collect::<Vec<_>>();
        for dir in dirs.iter().rev() {
            fs::create_dir(dir)?;
            self.give(dir, 0o755)?;
        }
        fs::write(&neighbour, &self.secret)?;
        self.give(&neighbour, 0o644)?;
        let mirror = self.dir.path().join("mirror");
        fs::create_dir(&mirror)?;
        self.give(&mirror, 0o777)?;
        fs::write(mirror.join("open-to-all"), "mirror")?;
        self.give(&mirror.join("open-to-all"), 0o666)?;
        if self.root {
            let copy = self.setuid_program();
            fs::copy(&self.program, &copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755))?;
        }
        Ok(())
    }

    /// A file of another run, whose content is [`Self::secret`].
    pub(crate) fn neighbour_file(&self) -> PathBuf {
        self.dir.path().join("attempts/neighbour/workspace/secret")
    }

    /// What is in the neighbour's file.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    fn setuid_program(&self) -> PathBuf {
        self.dir.path().join("setuid-probe")
    }

    /// Gives a path to the payload's user.
    pub(crate) fn give(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if self.root {
            std::os::unix::fs::chown(path, Some(self.owner.uid), Some(self.owner.gid))?;
            // Changing the owner clears some bits.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Makes the directories of one more attempt.
    pub(crate) fn place(&self) -> io::Result<Place> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        // Unique on this host, so that what is left of it can be told.
        let name = self.dir.path().file_name().unwrap_or_default().to_string_lossy();
        let id = format!("{name}-{number}");
        let dir = self.dir.path().join("attempts").join(&id);
        fs::create_dir(&dir)?;
        open_to_all(&dir)?;
        for name in ["workspace", "home"] {
            fs::create_dir(dir.join(name))?;
            self.give(&dir.join(name), 0o700)?;
        }
        let workspace = dir.join("workspace");
        let inside = format!("/workspace/{id}");
        Ok(Place { id, dir, workspace, inside })
    }

    /// A sandbox as the runner makes it for an agent: see `make_sandbox` in `outpost-runner`.
    pub(crate) fn agent_spec(&self, place: &Place) -> SandboxSpec {
        let mut spec = SandboxSpec::new(&place.id)
            .read_write(&place.workspace, &place.inside)
            .read_write(place.dir.join("home"), HOME_INSIDE)
            .read_only(&self.program, PROBE_INSIDE)
            .read_only(self.dir.path().join("mirror"), MIRROR_INSIDE);
        if self.root {
            spec = spec.read_only(self.setuid_program(), SETUID_INSIDE);
        }
        spec.limits = agent_limits();
        spec.listener_port = Some(GATEWAY_PORT);
        spec
    }

    /// True for what every sandbox is made with, whoever it is for.
    pub(crate) fn is_program(&self, host: &Path) -> bool {
        host == self.program || host == self.setuid_program()
    }

    /// The probe as a payload.
    pub(crate) fn payload(&self, probe: &Probe, bait: &Bait) -> Result<Payload, SelftestError> {
        let text = serde_json::to_vec(bait).map_err(io::Error::other)?;
        Ok(Payload::new([PROBE_INSIDE, PROBE_ARGUMENT, probe.name])
            .cwd(&bait.workspace)
            .stdin(text))
    }

    /// What the attack may find. `limited` says whether a flood's limit is in force.
    pub(crate) fn bait(&self, place: &Place, probe: &Probe, limited: bool) -> io::Result<Bait> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let variables = Payload::new(["x"]).env.into_iter().map(|(name, _)| name).collect();
        Ok(Bait {
            host_pid: i32::try_from(std::process::id()).map_err(io::Error::other)?,
            tcp_port: self.tcp.local_addr()?.port(),
            abstract_name: self.abstract_name.clone(),
            socket_path: text(&self.dir.path().join("socket")),
            launcher_socket: text(&self.launcher_socket),
            neighbour_file: text(&self.neighbour_file()),
            secret: self.secret.clone(),
            workspace: place.inside.clone(),
            workspace_on_host: text(&place.workspace),
            mirror: MIRROR_INSIDE.to_owned(),
            setuid_program: self.root.then(|| SETUID_INSIDE.to_owned()),
            namespaces: namespaces(),
            variables,
            amount: probe.flood.map_or(0, |(_, amount)| amount),
            hold_millis: if limited { HOLD_MILLIS_LIMITED } else { HOLD_MILLIS_FREE },
        })
    }

    /// The same for a probe that runs without a sandbox.
    pub(crate) fn bait_outside(&self, place: &Place, probe: &Probe) -> io::Result<Bait> {
        let mut bait = self.bait(place, probe, false)?;
        bait.workspace = bait.workspace_on_host.clone();
        bait.setuid_program = Some(self.setuid_program().to_string_lossy().into_owned());
        Ok(bait)
    }
}

/// An agent's limits, at the size of the middle tier.
fn agent_limits() -> Limits {
    let Resources { cpu_millis, memory_bytes, disk_bytes } = Tier::Balanced.resources();
    Limits::of_agent(cpu_millis, memory_bytes, disk_bytes, Some(WALL_SECONDS))
}

fn open_to_all(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

fn namespaces() -> Vec<(String, String)> {
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter_map(|name| {
            let link = fs::read_link(Path::new("/proc/self/ns").join(name)).ok()?;
            Some((name.to_owned(), link.into_os_string().into_string().ok()?))
        })
        .collect()
}
