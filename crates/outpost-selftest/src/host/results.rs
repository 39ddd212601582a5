//! What an agent leaves for the host to read: a repository full of traps, artifacts that are none, a patch that
//! writes elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outpost_sandbox::{Payload, SandboxSpec};
use outpost_workspace::{
    CACHE_BYTES_MAX_DEFAULT, Layers, PersistentConfig, PrepareRequest, Prepared,
    REPO_BYTES_MAX_DEFAULT, WORKSPACE_BYTES_MAX_DEFAULT, WORKSPACE_IDLE_SECONDS_DEFAULT,
    Workspaces, WorkspacesConfig, apply_patch_to,
};

use super::Mode;
use crate::attempt::{Attempt, Tries};
use crate::run::SelftestError;
use crate::stage::{Place, Stage};

/// Largest artifact that may be kept of what this agent made, bytes: all of it is a few bytes and one huge hole.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Most entries of the kept directory that are looked at.
const KEPT_ENTRIES_MAX: usize = 1_000;

/// What the hostile agent does to its repository; `$1` is the program that every trap calls.
const TRAPS: &str = r#"set -e
cd repo
git config user.name x; git config user.email x@y
for key in core.fsmonitor core.sshCommand core.pager core.editor core.askPass core.alternateRefsCommand \
    diff.external uploadpack.packObjectsHook filter.evil.clean filter.evil.smudge filter.evil.process \
    diff.evil.textconv diff.evil.command merge.evil.driver gpg.program credential.helper core.gitProxy; do
    git config "$key" "$1"
done
git config filter.evil.required true
git config commit.gpgSign true
mkdir -p .git/hooks
for hook in post-checkout pre-commit post-commit post-index-change reference-transaction post-update \
    fsmonitor-watchman post-merge pre-push; do
    printf '#!/bin/sh\n%s\n' "$1" > .git/hooks/$hook; chmod 755 .git/hooks/$hook
done
printf '* filter=evil diff=evil merge=evil text\n' > .gitattributes
echo work > work.txt
"#;

/// What it leaves as artifacts; `$1` is the host's path of a file that is none of its business.
const ARTIFACTS: &str = r#"set -e
echo work > repo/work.txt
cd artifacts
ln -s "$1" link
ln -s /etc etc
ln -s ../../../.. up
mkfifo pipe
mknod node c 1 3 2>/dev/null || true
truncate -s 8G huge
mkdir -p deep/deeper; echo fine > deep/deeper/fine.txt
printf x > "$(printf 'a\033[2Jb')"
printf x > '..%2fescape'
"#;

/// A workspace with an empty repository, prepared as for any agent.
struct Work {
    workspaces: Workspaces,
    prepared: Prepared,
    place: Place,
}

fn failed(name: &'static str) -> impl Fn(String) -> SelftestError {
    move |what| SelftestError::Host { name, what }
}

impl Work {
    async fn prepare(stage: &Stage, name: &'static str) -> Result<Self, SelftestError> {
        let place = stage.place()?;
        let config = WorkspacesConfig {
            cache_dir: stage.dir.path().join("cache"),
            allow_local: false,
            github_base: "https://github.invalid".to_owned(),
            repo_bytes_max: REPO_BYTES_MAX_DEFAULT,
            cache_bytes_max: CACHE_BYTES_MAX_DEFAULT,
            persistent: PersistentConfig {
                dir: stage.dir.path().join("workspaces"),
                bytes_max: WORKSPACE_BYTES_MAX_DEFAULT,
                idle_seconds_max: WORKSPACE_IDLE_SECONDS_DEFAULT,
            },
            git: PathBuf::from("git"),
            token: None,
        };
        let workspaces =
            Workspaces::new(config).map_err(|error| failed(name)(error.to_string()))?;
        let request = PrepareRequest {
            laid_out: false,
            tenant: "selftest".to_owned(),
            source: None,
            branch: None,
            dir: place.dir.join("attempt"),
            inside: PathBuf::from(&place.inside),
            owner: stage.root.then_some((stage.owner.uid, stage.owner.gid)),
            task: "Do as you like.".to_owned(),
            layers: Layers::Copy,
            persistent: None,
        };
        let prepared = Box::pin(workspaces.prepare(request)).await;
        let prepared = prepared.map_err(|error| failed(name)(error.to_string()))?;
        Ok(Self { workspaces, prepared, place })
    }

    /// The agent's part.
    async fn agent(
        &self,
        stage: &Stage,
        name: &'static str,
        script: &str,
        argument: &str,
    ) -> Result<(), SelftestError> {
        let mut spec = stage.agent_spec(&self.place);
        spec.binds.retain(|bind| bind.host != self.place.workspace);
        spec = spec.read_write(&self.prepared.dir, &self.prepared.inside);
        for (host, inside) in &self.prepared.ro_binds {
            spec = spec.read_only(host, inside);
        }
        let payload = Payload::new(["sh", "-c", script, "sh", argument]).cwd(&self.place.inside);
        let ended = stage.payload_to_end(spec, payload).await?;
        if ended.report.success() {
            return Ok(());
        }
        Err(failed(name)(format!("the agent's part ended early: {}", ended.stderr.trim())))
    }

    /// The host's part, as the runner does it: the job in a second sandbox, then the ingestion. Where what was kept is.
    async fn collect(&self, stage: &Stage, name: &'static str) -> Result<PathBuf, SelftestError> {
        let job = self.workspaces.collect_job(&self.prepared, &[]);
        let job = job.map_err(|error| failed(name)(error.to_string()))?;
        let mut spec = SandboxSpec::new(format!("{}-collect", self.place.id));
        for (host, inside) in &job.ro_binds {
            spec = spec.read_only(host, inside);
        }
        for (host, inside) in &job.rw_binds {
            spec = spec.read_write(host, inside);
        }
        let mut payload = Payload::new(job.argv).cwd(job.cwd);
        payload.env = job.env;
        stage.payload_to_end(spec, payload).await?;
        let kept = self.place.dir.join("kept");
        let taken = Box::pin(self.workspaces.ingest(&self.prepared, &kept)).await;
        let taken = taken.map_err(|error| failed(name)(error.to_string()))?;
        if !taken.changed {
            return Err(failed(name)("the agent's change was not found".to_owned()));
        }
        Ok(kept)
    }
}

pub(super) async fn git(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    const NAME: &str = "result.git";
    let work = Work::prepare(stage, NAME).await?;
    let marks = work.place.dir.join("marks");
    fs::create_dir(&marks)?;
    stage.give(&marks, 0o777)?;
    let mark = marks.join("mark");
    let trap = format!("touch '{}'", mark.display());
    work.agent(stage, NAME, TRAPS, &trap).await?;
    match mode {
        Mode::Real => drop(work.collect(stage, NAME).await?),
        Mode::Proof => {
            let mut command = Command::new("git");
            command.args(["-c", "safe.directory=*", "status"]).current_dir(&work.prepared.repo_dir);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        }
    }
    let ran = mark.exists().then(|| "a program of the agent ran on the host".to_owned());
    Ok(Attempt::found(ran, "collected, and nothing ran"))
}

pub(super) async fn artifacts(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    const NAME: &str = "result.artifacts";
    let work = Work::prepare(stage, NAME).await?;
    let neighbour = stage.neighbour_file();
    work.agent(stage, NAME, ARTIFACTS, &neighbour.to_string_lossy()).await?;
    let dir = match mode {
        Mode::Real => work.collect(stage, NAME).await?,
        Mode::Proof => work.prepared.dir.join("artifacts"),
    };
    let mut tries = Tries::default();
    let mut dirs = vec![dir];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)?.flatten().take(KEPT_ENTRIES_MAX) {
            seen += 1;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let regular = kind.is_file() || kind.is_dir();
            tries.add_found(&format!("{shown}: neither file nor directory"), !regular);
            let size = entry.metadata()?.len();
            tries.add_found(&format!("{shown}: {size} bytes"), size > KEPT_BYTES_MAX);
            tries.add_found(
                &format!("{shown}: a control character"),
                shown.contains(char::is_control),
            );
            if kind.is_dir() {
                dirs.push(path);
            } else if (kind.is_symlink() || kind.is_file()) && size <= KEPT_BYTES_MAX {
                let secret = fs::read(&path).is_ok_and(|bytes| bytes == stage.secret().as_bytes());
                tries.add_found(&format!("{shown}: another run's file"), secret);
            }
        }
    }
    tries.add_found("nothing kept", seen == 0);
    Ok(tries.end())
}

/// Patches that write where no patch may, and where that is, relative to the repository.
fn patches() -> Vec<(&'static str, String)> {
    let new = |path: &str| {
        format!(
            "diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
        )
    };
    let link = "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+..\n\
                \\ No newline at end of file\n";
    vec![
        ("../escaped", new("../escaped")),
        ("../deep-escaped", new("a/../../deep-escaped")),
        (".git/hooks/post-checkout", new(".git/hooks/post-checkout")),
        ("sub/.GIT/config", new("sub/.GIT/config")),
        ("../through-link", format!("{link}{}", new("link/through-link"))),
    ]
}

pub(super) async fn patch(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    let place = stage.place()?;
    let repo = place.dir.join("users-repository");
    fs::create_dir(&repo)?;
    let git = |arguments: &[&str], dir: &Path| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(dir).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    if mode == Mode::Real {
        git(&["init", "-q"], &repo)?;
    }
    let mut tries = Tries::default();
    for (index, (lands, patch)) in patches().into_iter().enumerate() {
        match mode {
            Mode::Real => drop(apply_patch_to(&repo, patch.as_bytes(), false)),
            Mode::Proof => {
                let file = place.dir.join(format!("{index}.patch"));
                fs::write(&file, patch)?;
                git(&["apply", "--unsafe-paths", &file.to_string_lossy()], &repo)?;
            }
        }
        tries.add_found(lands, repo.join(lands).exists());
    }
    Ok(tries.end())
}
