//! What every agent gets: the base environment and the git identity.

use crate::agent::{GIT_EMAIL, GIT_NAME, HomeFile, Invocation, RunSpec};
use crate::installed::Installed;

/// Permission bits of files put under HOME.
pub(crate) const FILE_MODE: u32 = 0o644;

/// An invocation with what all agents share; the adapter adds its own.
pub(crate) fn base(run: &RunSpec, installed: &Installed) -> Invocation {
    let mut path = String::new();
    for dir in &installed.path_dirs {
        path.push_str(&dir.to_string_lossy());
        path.push(':');
    }
    path.push_str(&run.path);
    let env = [
        ("HOME", run.home.as_str()),
        ("PATH", &path),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
        ("TERM", "dumb"),
        ("NO_COLOR", "1"),
        // The gateway is on loopback; no proxy may get between, whatever the repository says.
        ("NO_PROXY", "127.0.0.1,localhost"),
        ("no_proxy", "127.0.0.1,localhost"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_EDITOR", "true"),
        ("GIT_PAGER", "cat"),
        ("PAGER", "cat"),
    ];
    Invocation {
        argv: installed.command.clone(),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        home_files: vec![git_config()],
        stdin_prompt: false,
        ro_paths: installed.ro_paths.clone(),
        repo_masks: Vec::new(),
        litter: Vec::new(),
    }
}

/// The identity of the agent's commits. The checkout may belong to another user id than the agent's,
/// which git refuses unless told that the directory is safe.
fn git_config() -> HomeFile {
    HomeFile {
        path: ".gitconfig".to_owned(),
        contents: format!(
            "[user]\n\tname = {GIT_NAME}\n\temail = {GIT_EMAIL}\n[safe]\n\tdirectory = *\n\
             [commit]\n\tgpgsign = false\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n\
             [advice]\n\tdetachedHead = false\n"
        ),
        mode: FILE_MODE,
    }
}

impl Invocation {
    /// Sets a variable, replacing an earlier value.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.retain(|(existing, _)| existing != name);
        self.env.push((name.to_owned(), value.into()));
    }

    /// Adds arguments.
    pub(crate) fn args<'a>(&mut self, args: impl IntoIterator<Item = &'a str>) {
        self.argv.extend(args.into_iter().map(str::to_owned));
    }

    /// Adds a file under HOME.
    pub(crate) fn home_file(&mut self, path: &str, contents: impl Into<String>) {
        self.home_files.push(HomeFile {
            path: path.to_owned(),
            contents: contents.into(),
            mode: FILE_MODE,
        });
    }

    /// Covers a file of the repository.
    pub(crate) fn mask(&mut self, path: &str, contents: &str) {
        self.repo_masks
            .push(crate::agent::RepoMask { path: path.to_owned(), contents: contents.to_owned() });
    }
}
