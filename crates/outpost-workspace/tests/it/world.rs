//! A server's directories, a source repository, and an agent, all in one temporary directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use outpost_workspace::{
    CollectError, Collected, PrepareError, PrepareRequest, Prepared, REPO_BYTES_MAX_DEFAULT,
    Workspaces, WorkspacesConfig,
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
        git: PathBuf::from("git"),
        token: None,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(config(dir.path())).unwrap();
        Self { dir, workspaces }
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
            tenant: "t1".to_owned(),
            source: source
                .map(|path| self.workspaces.parse_source(path.to_str().unwrap()).unwrap()),
            branch: None,
            // Without a sandbox the agent's view and the host's are the same.
            inside: dir.join("workspace"),
            dir,
            owner: None,
            task: "Do it.\n".to_owned(),
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
        let mut command = Command::new(&job.argv[0]);
        command.args(&job.argv[1..]).env_clear().envs(job.env).current_dir(&job.cwd);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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

/// Runs git as a user or an agent would; returns its trimmed output.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b.c"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b.c"),
        ])
        .output()
        .unwrap();
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
