//! Other ways to start a program apart from the host, measured in turn with ours: bubblewrap, crun and runc, where they
//! are installed and can run here.
//!
//! Each gets namespaces of its own for everything, the host's userland read-only, no capabilities, and the same
//! program. The runtimes also get limits on memory and processes, as our sandboxes have; bubblewrap knows none.
//! Absent: images, daemons, and a seccomp filter, which their default configurations leave out: ours has one.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::PROGRAM_INSIDE;
use crate::histogram::Histogram;
use crate::options::create_private;

/// Memory and processes of a container, as of our sandboxes.
const MEMORY_BYTES: u64 = 2 << 30;
const PIDS_MAX: u64 = 1_024;
/// Directories of the host's userland; those a system does not have are left out.
const USERLAND: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

/// A peer that runs here, and how long its starts took.
pub(super) struct Peer {
    pub(super) name: &'static str,
    kind: Kind,
    dir: PathBuf,
    program: PathBuf,
    pub(super) first: Histogram,
    pub(super) end: Histogram,
}

#[derive(Clone, Copy)]
enum Kind {
    Bubblewrap,
    Runtime,
}

/// Those that can run here. `dir` is an empty place for their bundles.
pub(super) fn find(
    dir: &Path,
    program: &Path,
    note: &mut dyn FnMut(&str),
) -> io::Result<Vec<Peer>> {
    let known = [("bwrap", Kind::Bubblewrap), ("crun", Kind::Runtime), ("runc", Kind::Runtime)];
    let mut peers = Vec::new();
    for (name, kind) in known {
        let mut peer = Peer {
            name,
            kind,
            dir: dir.join(name),
            program: program.to_owned(),
            first: Histogram::new(),
            end: Histogram::new(),
        };
        peer.prepare()?;
        match peer.start("probe") {
            Ok(()) => peers.push(peer.fresh()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                note(&format!("{name} is not installed; it is not compared"));
            }
            Err(error) => note(&format!("{name} cannot run here ({error}); it is not compared")),
        }
    }
    Ok(peers)
}

impl Peer {
    fn fresh(self) -> Self {
        Self { first: Histogram::new(), end: Histogram::new(), ..self }
    }

    fn prepare(&self) -> io::Result<()> {
        create_private(&self.dir)?;
        if let Kind::Runtime = self.kind {
            std::fs::create_dir(self.dir.join("rootfs"))?;
            std::fs::write(self.dir.join("config.json"), bundle(&self.program).to_string())?;
        }
        Ok(())
    }

    /// One start, to the first byte and to the known end.
    pub(super) fn start(&mut self, id: &str) -> io::Result<()> {
        let mut command = self.command(id);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn()?;
        let mut byte = [0];
        let read = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut byte);
        let first = began.elapsed();
        let output = child.wait_with_output()?;
        if read.is_err() || !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(
                said.lines().next().unwrap_or("it said nothing").to_owned(),
            ));
        }
        self.first.add(first);
        self.end.add(began.elapsed());
        Ok(())
    }

    fn command(&self, id: &str) -> Command {
        let mut command = Command::new(self.name);
        match self.kind {
            Kind::Bubblewrap => {
                command.args(["--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]);
                for path in userland() {
                    command.args(["--ro-bind", path, path]);
                }
                command.arg("--ro-bind").arg(&self.program).arg(PROGRAM_INSIDE);
                command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
                command.arg(PROGRAM_INSIDE);
            }
            Kind::Runtime => {
                command.current_dir(&self.dir);
                command.args(["run", &format!("outpost-bench-{}-{id}", std::process::id())]);
            }
        }
        command
    }
}

fn userland() -> impl Iterator<Item = &'static str> {
    USERLAND.into_iter().filter(|path| Path::new(path).exists())
}

/// A bundle's configuration (OCI runtime specification 1.0): everything apart, nothing allowed.
fn bundle(program: &Path) -> Value {
    let bind = |source: &Path, destination: &str| {
        json!({"destination": destination, "type": "bind", "source": source,
               "options": ["bind", "ro", "nosuid", "nodev"]})
    };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}),
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}),
        bind(program, PROGRAM_INSIDE),
    ];
    mounts.extend(userland().map(|path| bind(Path::new(path), path)));
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces: Vec<_> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.0",
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": [PROGRAM_INSIDE],
                    "env": ["PATH=/usr/bin:/bin"], "cwd": "/", "noNewPrivileges": true,
                    "capabilities": {}},
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "bench",
        "mounts": mounts,
        "linux": {"namespaces": namespaces,
                  "resources": {"memory": {"limit": MEMORY_BYTES}, "pids": {"limit": PIDS_MAX}}},
    })
}
