//! A server's directories, a source repository, and an agent, all in one temporary directory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use outpost_workspace::{
    CACHE_BYTES_MAX_DEFAULT, CollectError, Collected, Layers, PersistentConfig, PrepareError,
    PrepareRequest, Prepared, REPO_BYTES_MAX_DEFAULT, RepoOverlay, SetupJob,
    WORKSPACE_BYTES_MAX_DEFAULT, Workspaces, WorkspacesConfig,
};

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) workspaces: Workspaces,
}

pub(crate) fn config(dir: &Path) -> WorkspacesConfig {
    WorkspacesConfig {
        cache_dir: dir.join("cache"),
        allow_local: true,
        github_base: "https://github.invalid".to_owned(),
        repo_bytes_max: REPO_BYTES_MAX_DEFAULT,
        cache_bytes_max: CACHE_BYTES_MAX_DEFAULT,
        persistent: PersistentConfig {
            dir: dir.join("workspaces"),
            bytes_max: WORKSPACE_BYTES_MAX_DEFAULT,
            idle_seconds_max: 3600,
        },
        git: PathBuf::from("git"),
        token: None,
    }
}

/// A git that first runs `lines` of shell.
pub(crate) fn stand_in(dir: &Path, lines: &str) -> PathBuf {
    let program = dir.join("git");
    std::fs::write(&program, format!("#!/bin/sh\n{lines}\nexec git \"$@\"\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(config(dir.path())).unwrap();
        Self { dir, workspaces }
    }

    /// As [`World::new`], with a git that notes the subcommand of each call in `calls`, and `origin` in the place of the
    /// repository `octo/hello` of the code host.
    pub(crate) fn noting(origin: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let origin = dir.path().join(origin);
        let git = stand_in(
            dir.path(),
            &format!(
                "echo \"$1\" >> '{}'\nset -- -c protocol.file.allow=always -c 'url.file://{}.insteadOf=https://github.invalid/octo/hello.git' \"$@\"",
                dir.path().join("calls").display(),
                origin.display()
            ),
        );
        let workspaces = Workspaces::new(WorkspacesConfig { git, ..config(dir.path()) }).unwrap();
        Self { dir, workspaces }
    }

    /// The git processes since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.path("calls");
        let calls = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn layered(&self, name: &str, source: Option<&Path>) -> Prepared {
        let request = PrepareRequest { layers: Layers::Overlay, ..self.request(name, source) };
        self.workspaces.prepare(request).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A source with two commits on `main` and a branch `feature/login`.
    pub(crate) fn source(&self) -> PathBuf {
        let source = self.path("source");
        std::fs::create_dir(&source).unwrap();
        git(&source, &["init", "-q", "-b", "main"]);
        write(&source, "README.md", "hello\n");
        commit(&source, "one");
        git(&source, &["tag", "-a", "v1", "-m", "v1"]);
        git(&source, &["branch", "feature/login"]);
        write(&source, "src/lib.rs", "fn main() {}\n");
        commit(&source, "two");
        source
    }

    pub(crate) fn request(&self, name: &str, source: Option<&Path>) -> PrepareRequest {
        let dir = self.path(name);
        PrepareRequest {
            laid_out: false,
            tenant: "t1".to_owned(),
            source: source
                .map(|path| self.workspaces.parse_source(path.to_str().unwrap()).unwrap()),
            branch: None,
            // Without a sandbox the agent's view and the host's are the same.
            inside: dir.join("workspace"),
            dir,
            owner: None,
            task: "Do it.\n".to_owned(),
            layers: Layers::Copy,
            persistent: None,
        }
    }

    pub(crate) async fn prepare(
        &self,
        name: &str,
        source: Option<&Path>,
    ) -> Result<Prepared, PrepareError> {
        self.workspaces.prepare(self.request(name, source)).await
    }

    /// Runs the collect job without a sandbox and takes its result in.
    pub(crate) async fn collect(&self, prepared: &Prepared) -> Result<Collected, CollectError> {
        self.run_job(prepared);
        self.workspaces.ingest(prepared, &self.kept(prepared)).await
    }

    pub(crate) fn run_job(&self, prepared: &Prepared) {
        let job = self.workspaces.collect_job(prepared, &[".litter*".to_owned()]).unwrap();
        let argv: Vec<&str> = job.argv.iter().map(String::as_str).collect();
        let mut command = shown(prepared, job.overlay.as_ref(), &argv);
        command.env_clear().envs(job.env);
        let output = command.current_dir(&job.cwd).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a shell script in the repository as the agent sees it; returns its trimmed output.
    pub(crate) fn agent(&self, prepared: &Prepared, script: &str) -> String {
        self.in_layers(prepared, prepared.overlay.as_ref(), script)
    }

    /// Runs a script in the overlay as another user of the host, who mounts it; for root only. What lies around the layers'
    /// own directories is opened up, as the launcher hands them over by descriptor.
    pub(crate) fn as_owner(
        &self,
        overlay: &RepoOverlay,
        owner: (u32, u32),
        script: &str,
    ) -> String {
        let lower: Vec<String> =
            overlay.lower.iter().map(|layer| layer.display().to_string()).collect();
        for layer in overlay.lower.iter().chain([&overlay.upper]) {
            let around = layer.parent().unwrap().ancestors().skip(1);
            for dir in around.take_while(|dir| dir.starts_with(self.dir.path())) {
                std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap();
            }
        }
        let (upper, work) = (overlay.upper.display(), overlay.work.as_ref().unwrap().display());
        let options =
            format!("userxattr,lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        let inside = format!("mount -t overlay overlay -o {options} /mnt; cd /mnt; {script}");
        let (uid, gid) = (format!("--reuid={}", owner.0), format!("--regid={}", owner.1));
        let mut command = Command::new("setpriv");
        command.args([&uid, &gid, "--clear-groups", "unshare", "--user", "--map-root-user"]);
        command.args(["--mount", "sh", "-ec", &inside]).envs(GIT_ENV).env("HOME", "/");
        let output = command.current_dir("/").output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {words}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs setup commands as a sandbox would; whether they succeeded.
    pub(crate) fn run_setup(&self, prepared: &Prepared, job: &SetupJob) -> bool {
        let script = ["sh", "-ec", "cd \"$1\"; shift; exec \"$@\"", "sh", &job.cwd];
        let argv: Vec<&str> =
            script.into_iter().chain(job.argv.iter().map(String::as_str)).collect();
        let mut command = shown(prepared, job.overlay.as_ref(), &argv);
        command.envs(GIT_ENV).output().unwrap().status.success()
    }

    pub(crate) fn in_layers(
        &self,
        prepared: &Prepared,
        overlay: Option<&RepoOverlay>,
        script: &str,
    ) -> String {
        let argv = ["sh", "-ec", "cd \"$1\"; shift; eval \"$1\"", "sh"];
        let repo = prepared.repo_dir.to_str().unwrap();
        let mut command = shown(prepared, overlay, &[&argv[..], &[repo, script]].concat());
        let output = command.envs(GIT_ENV).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {words}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn kept(&self, prepared: &Prepared) -> PathBuf {
        prepared.attempt_dir.with_extension("kept")
    }

    pub(crate) fn diff(&self, prepared: &Prepared) -> Vec<u8> {
        std::fs::read(self.kept(prepared).join("diff.patch")).unwrap()
    }

    /// A plain clone of the source at the base commit with the patch applied must have the files of the result commit, and the
    /// bundle must carry it.
    pub(crate) fn check_round_trip(
        &self,
        source: &Path,
        prepared: &Prepared,
        collected: &Collected,
    ) -> PathBuf {
        let clone = prepared.attempt_dir.with_extension("clone");
        git(self.dir.path(), &["clone", "-q", source.to_str().unwrap(), clone.to_str().unwrap()]);
        git(&clone, &["checkout", "-q", "--detach", &prepared.base_commit]);
        let kept = self.kept(prepared);
        git(&clone, &["apply", "--index", kept.join("diff.patch").to_str().unwrap()]);
        let bundle = kept.join("changes.bundle");
        git(
            &clone,
            &["fetch", "-q", bundle.to_str().unwrap(), "refs/heads/outpost:refs/heads/result"],
        );
        let result = collected.result_commit.clone().unwrap();
        assert_eq!(git(&clone, &["rev-parse", "refs/heads/result"]), result);
        assert_eq!(git(&clone, &["write-tree"]), git(&clone, &["rev-parse", "result^{tree}"]));
        clone
    }
}

/// A command that sees the overlay where a sandbox would show it: in a user namespace of its own, mounted as there.
fn shown(prepared: &Prepared, overlay: Option<&RepoOverlay>, argv: &[&str]) -> Command {
    const MOUNT: &str = "mount -t overlay overlay -o \"$1\" \"$2\"; shift 2; exec \"$@\"";
    let Some(overlay) = overlay else {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]);
        return command;
    };
    let mut lower: Vec<String> =
        overlay.lower.iter().map(|layer| layer.display().to_string()).collect();
    let options = match &overlay.work {
        Some(work) => {
            let (upper, work) = (overlay.upper.display(), work.display());
            format!("userxattr,lowerdir={},upperdir={upper},workdir={work}", lower.join(":"))
        }
        None => {
            lower.insert(0, overlay.upper.display().to_string());
            format!("ro,userxattr,lowerdir={}", lower.join(":"))
        }
    };
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", MOUNT, "sh", &options]);
    command.arg(&prepared.repo_dir).args(argv);
    command
}

const GIT_ENV: [(&str, &str); 6] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_AUTHOR_NAME", "a"),
    ("GIT_AUTHOR_EMAIL", "a@b.c"),
    ("GIT_COMMITTER_NAME", "a"),
    ("GIT_COMMITTER_EMAIL", "a@b.c"),
];

/// Runs git as a user or an agent would; returns its trimmed output.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git").args(args).current_dir(dir).envs(GIT_ENV).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(crate) fn commit(dir: &Path, message: &str) {
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", message]);
}

pub(crate) fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub(crate) fn codes(notes: &[outpost_workspace::Note]) -> Vec<&str> {
    notes.iter().map(|note| note.code.as_ref()).collect()
}
