//! Overlays as a whole: what an upper directory may hold, what a kill leaves, what is measured.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use outpost_sandbox::{ExitReport, LinuxSandbox, Payload, Sandbox, SandboxSpec};
use tokio::io::AsyncReadExt as _;

use crate::Bed;

/// The directories of one overlay; all but the lower one belong to the payload.
pub(crate) struct Dirs {
    pub(crate) dir: PathBuf,
}

impl Dirs {
    pub(crate) async fn new(bed: &Bed, sandbox: &LinuxSandbox) -> Self {
        let this = Self { dir: bed.scratch() };
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(this.path(name)).unwrap();
            this.give(sandbox, &this.path(name)).await;
        }
        std::fs::write(this.path("lower/given"), "given\n").unwrap();
        this.give(sandbox, &this.path("lower/given")).await;
        this
    }

    pub(crate) async fn give(&self, sandbox: &LinuxSandbox, path: &Path) {
        let owner = sandbox.payload_owner().await.unwrap();
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn spec(&self, id: &str) -> SandboxSpec {
        let work = Some(self.path("work"));
        SandboxSpec::new(id).overlay(self.path("upper"), work, vec![self.path("lower")], "/w")
    }

    /// Where the kernel marks what is not to be used again.
    fn mark(&self) -> PathBuf {
        self.path("work").join("work").join("incompat")
    }

    /// The kernel's own directories are closed to everybody, their owner included.
    fn open_work(&self) -> std::io::Result<()> {
        let (mark, open) = (self.mark(), std::fs::Permissions::from_mode(0o700));
        let all = [self.path("work").join("work"), mark.clone(), mark.join("volatile")];
        all.iter().try_for_each(|dir| std::fs::set_permissions(dir, open.clone()))
    }

    fn lower(&self) -> String {
        std::fs::read_to_string(self.path("lower/given")).unwrap()
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        let _never_mounted = self.open_work();
    }
}

async fn run(sandbox: &LinuxSandbox, spec: SandboxSpec, script: &str) -> (ExitReport, String) {
    let parked = sandbox.create(spec).await.unwrap();
    let mut running = parked.start(Payload::new(["sh", "-c", script]).cwd("/w")).await.unwrap();
    let mut stdout = String::new();
    running.take_stdout().unwrap().read_to_string(&mut stdout).await.unwrap();
    let report = running.wait().await.unwrap();
    running.release().await.unwrap();
    (report, stdout)
}

#[tokio::test]
async fn a_kill_leaves_layers_that_can_be_used_again() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    assert!(sandbox.host().await.unwrap().overlay, "this kernel has overlays");
    assert!(!bed.socket().with_extension("overlay").exists());
    let dirs = Dirs::new(&bed, &sandbox).await;
    let running = sandbox.create(dirs.spec("killed")).await.unwrap();
    let script = "echo changed > given; mkdir d; echo ready; sleep 1000";
    let mut running = running.start(Payload::new(["sh", "-c", script]).cwd("/w")).await.unwrap();
    let mut ready = [0; 6];
    running.take_stdout().unwrap().read_exact(&mut ready).await.unwrap();
    running.kill().await.unwrap();
    running.wait().await.unwrap();
    running.release().await.unwrap();
    dirs.open_work().unwrap();
    assert!(dirs.mark().join("volatile").exists(), "or there is nothing to be mended");
    let (_, said) = run(&sandbox, dirs.spec("again"), "cat given; ls; rmdir d; rm given; ls").await;
    assert_eq!(said, "changed\nd\ngiven\n");
    assert_eq!(dirs.lower(), "given\n");
    // A link in the mark's place leads nowhere.
    dirs.open_work().unwrap();
    let mark = dirs.mark();
    std::fs::remove_dir_all(&mark).unwrap();
    std::fs::create_dir_all(dirs.path("elsewhere/volatile")).unwrap();
    std::fs::write(dirs.path("elsewhere/volatile/dirty"), "").unwrap();
    std::os::unix::fs::symlink(dirs.path("elsewhere"), &mark).unwrap();
    let error = sandbox.create(dirs.spec("linked")).await.unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    assert!(dirs.path("elsewhere/volatile/dirty").exists());
    sandbox.shut_down().await.unwrap();
}

#[tokio::test]
async fn a_link_among_the_layers_is_refused() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dirs = Dirs::new(&bed, &sandbox).await;
    let link = dirs.path("link");
    std::os::unix::fs::symlink(&dirs.dir, &link).unwrap();
    let (lower, work) = (vec![dirs.path("lower")], Some(dirs.path("work")));
    for (upper, work, lower) in [
        (link.join("upper"), Some(link.join("work")), lower.clone()),
        (dirs.path("link"), work.clone(), lower.clone()),
        (dirs.path("upper"), Some(dirs.path("link")), lower.clone()),
        (dirs.path("upper"), work, vec![link.join("lower")]),
        (dirs.path("upper"), None, vec![link.clone()]),
        (link.clone(), None, lower),
    ] {
        let spec = SandboxSpec::new("linked").overlay(&upper, work.clone(), lower.clone(), "/w");
        let error = sandbox.create(spec).await.unwrap_err().to_string();
        let told = error.contains("symbolic link") || error.contains("Not a directory");
        assert!(told, "{upper:?} {work:?} {lower:?}: {error}");
    }
    sandbox.shut_down().await.unwrap();
}

/// What an agent left in its upper directory is shown, and leads nowhere: to be read as a layer, it needs no trust.
#[tokio::test]
async fn attributes_of_a_hostile_layer_redirect_nothing() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dirs = Dirs::new(&bed, &sandbox).await;
    std::fs::create_dir_all(dirs.path("lower/private")).unwrap();
    std::fs::write(dirs.path("lower/private/key"), "key").unwrap();
    for name in ["upper/redirected", "upper/opaque"] {
        std::fs::create_dir(dirs.path(name)).unwrap();
        dirs.give(&sandbox, &dirs.path(name)).await;
    }
    std::fs::write(dirs.path("upper/meta"), "").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    for (path, name, value) in [
        ("upper/redirected", "user.overlay.redirect", &b"/private"[..]),
        ("upper/meta", "user.overlay.metacopy", b""),
        ("upper/meta", "user.overlay.redirect", b"/private/key"),
    ] {
        rustix::fs::setxattr(dirs.path(path), name, value, flags).unwrap();
    }
    let look = "ls redirected; cat meta; for f in redirected meta; do echo x >> $f/y; done 2>/dev/null; exit 0";
    for work in [Some(dirs.path("work")), None] {
        let layers = vec![dirs.path("lower")];
        let spec = SandboxSpec::new("led").overlay(dirs.path("upper"), work, layers, "/w");
        let (report, said) = run(&sandbox, spec, look).await;
        assert!(!said.contains("key"), "{said} {report:?}");
    }
    sandbox.shut_down().await.unwrap();
}

/// The upper directory is measured, not what shines through; files that are deleted and still open are, too.
#[tokio::test]
async fn the_disk_limit_is_about_the_upper_directory() {
    const FOREVER: &str = "while :; do read -r _ < /dev/zero; done";
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dirs = Dirs::new(&bed, &sandbox).await;
    std::fs::write(dirs.path("lower/big"), vec![1; 4 << 20]).unwrap();
    dirs.give(&sandbox, &dirs.path("lower/big")).await;
    let spec = |id: &str| {
        let mut spec = dirs.spec(id);
        spec.limits.disk_bytes = Some(2 << 20);
        spec
    };
    let (report, _) = run(&sandbox, spec("reads"), "cat big > /dev/null; echo x > new").await;
    assert!(report.success(), "{report:?}");
    for (id, flood) in [
        ("writes", "for i in 1 2 3; do head -c 1000000 /dev/zero > $i; done"),
        (
            "deletes",
            "for i in 3 4 5; do eval \"exec $i> f\"; head -c 1000000 /dev/zero >&$i; rm f; done",
        ),
    ] {
        let (report, _) = run(&sandbox, spec(id), &format!("{flood}; {FOREVER}")).await;
        assert!(report.disk_limit_hit, "{id}: {report:?}");
        for name in ["1", "2", "3"] {
            let _of_the_first_only = std::fs::remove_file(dirs.path("upper").join(name));
        }
    }
    sandbox.shut_down().await.unwrap();
}

/// As on most systems, where everything is shared: what is mounted inside must not appear outside.
#[tokio::test]
async fn a_mount_inside_is_not_passed_on_to_the_host() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can make a shared mount to be bound");
        return;
    }
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let dirs = Dirs::new(&bed, &sandbox).await;
    let shared = dirs.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let mount = |arguments: &[&str]| {
        let ended = std::process::Command::new("mount").args(arguments).arg(&shared).status();
        assert!(ended.unwrap().success());
    };
    mount(&["-t", "tmpfs", "none"]);
    mount(&["--make-shared"]);
    std::fs::create_dir(shared.join("cover")).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o755)).unwrap();
    dirs.give(&sandbox, &shared).await;
    let spec = SandboxSpec::new("covers").read_write(&shared, "/w");
    let parked = sandbox.create(spec.read_only(dirs.path("lower"), "/w/cover")).await.unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    parked.discard().await.unwrap();
    let ended = std::process::Command::new("umount").args(["-R", "-l"]).arg(&shared).status();
    assert!(ended.unwrap().success());
    let inside = shared.join("cover");
    assert!(!mounts.contains(inside.to_str().unwrap()), "the cover is on the host");
    sandbox.shut_down().await.unwrap();
}
