//! Setup commands of a repository: what they are, whether their result is there already, what to run, what to keep.
//!
//! A repository says in `outpost.toml` how its dependencies are installed; a request may say it instead. The file is read at the
//! base commit from what this crate made, never from an agent's tree. What the commands leave is kept as a layer by a key of
//! tenant, source, commands, lock files and userland. Of several who need the same at once one runs it, and the others wait: an
//! agent without its dependencies would only install them again. Bounded: every field, the files read, the wait, what is kept.
//! Deliberately absent: running anything (the caller has the sandbox), and patterns in names of lock files.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cache::{Cache, Entry, EntryLock, Kind, Scratch, digest};
use crate::checkout;
use crate::git::GitError;
use crate::layers::RepoOverlay;
use crate::remote::note;
use crate::snapshot::{self, Facts, Survey};
use crate::{
    Inner, Note, PrepareError, Prepared, TRACKED_FILES_MAX, artifacts, inspect, persistent,
};

/// Name of the file at the top of a repository.
pub const SETUP_FILE: &str = "outpost.toml";
/// Largest such file, bytes.
pub const SETUP_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Most commands, and the longest, bytes.
pub const SETUP_COMMANDS_MAX: usize = 16;
pub const SETUP_COMMAND_BYTES_MAX: usize = 4 * 1024;
/// Most lock files, and the longest name of one, bytes.
pub const SETUP_LOCKFILES_MAX: usize = 16;
pub const SETUP_LOCKFILE_NAME_BYTES_MAX: usize = 255;
/// Longest time of all commands together, seconds; others wait as long as for a clone.
pub const SETUP_SECONDS_MAX: u64 = 840;
/// The same for a setup that says nothing of it, seconds.
pub const SETUP_SECONDS_DEFAULT: u64 = 300;
/// Largest lock file that is read, bytes; a larger one counts as one that always changes.
const LOCKFILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest name of a userland, bytes.
const USERLAND_BYTES_MAX: usize = 256;
/// Lock files that are looked for where none are named: those of npm, pnpm, Yarn, Cargo, uv, Poetry, pip, Go, Bundler, Composer.
const LOCKFILES_DEFAULT: [&str; 10] = [
    "package-lock.json",
    "pnpm-lock.yaml",
    "yarn.lock",
    "Cargo.lock",
    "uv.lock",
    "poetry.lock",
    "requirements.txt",
    "go.sum",
    "Gemfile.lock",
    "composer.lock",
];
/// Runs its arguments one after the other until one fails.
const SCRIPT: &str =
    "for command do printf '+ %s\\n' \"$command\"; /bin/sh -c \"$command\" || exit; done";

/// Which network setup commands get.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SetupNetwork {
    /// None at all.
    #[default]
    None,
    /// Package registries and code hosts.
    Trusted,
}

/// How a repository is set up: the table `setup` of `outpost.toml`, or a request's own.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SetupSpec {
    /// Shell commands, run in order in the repository until one fails; 1 to [`SETUP_COMMANDS_MAX`], none of them empty or
    /// longer than [`SETUP_COMMAND_BYTES_MAX`].
    pub commands: Vec<String>,
    /// Files of the base commit whose change asks for a new setup, relative, with `/`; at most [`SETUP_LOCKFILES_MAX`].
    /// Without any, the usual ones at the top of the repository.
    #[serde(default)]
    pub lockfiles: Vec<String>,
    /// The network they ask for.
    #[serde(default)]
    pub network: SetupNetwork,
    /// Time for all of them together, seconds, 1 to [`SETUP_SECONDS_MAX`].
    #[serde(default = "seconds_default")]
    pub timeout_seconds: u64,
}

fn seconds_default() -> u64 {
    SETUP_SECONDS_DEFAULT
}

/// The part of `outpost.toml` that this crate reads.
#[derive(Deserialize)]
struct File {
    setup: Option<SetupSpec>,
}

/// What [`crate::Workspaces::setup`] is to look for.
#[derive(Clone, Debug, Default)]
pub struct SetupRequest {
    /// The request's own setup, which takes the place of the repository's.
    pub spec: Option<SetupSpec>,
    /// The request's own commands, which take the place of the repository's: lock files and time limit stay those
    /// of `outpost.toml`, if it has a table. They ask for [`SetupNetwork::Trusted`]. None: the repository's own.
    pub commands: Vec<String>,
    /// The most the commands may have of what they ask for.
    pub network_max: SetupNetwork,
    /// Names the programs the commands find, so that another set of them is another key; at most 256 bytes.
    pub userland: String,
}

/// Why there is no setup.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A field breaks a bound.
    #[error("{origin}: {why}")]
    Invalid {
        /// Where it stands: `outpost.toml` or `setup`.
        origin: &'static str,
        /// What is wrong, and with which field.
        why: String,
    },
    /// Somebody else's setup of the same takes too long.
    #[error(
        "another run has been setting up the same repository for too long: try again in a minute"
    )]
    Busy,
    /// Git failed.
    #[error("git failed while reading outpost.toml: {source}")]
    Git {
        /// What git said.
        #[from]
        source: GitError,
    },
    /// The disk.
    #[error("{what} failed: check free space and permissions of the data directory")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl SetupError {
    /// Whether the same request may succeed later without anyone changing anything.
    pub fn retry(&self) -> bool {
        match self {
            Self::Busy | Self::Io { .. } => true,
            Self::Git { source } => source.timed_out(),
            Self::Invalid { .. } => false,
        }
    }
}

/// What is to be done before the agent starts.
#[derive(Debug)]
pub enum Setup {
    /// The repository needs none.
    Nothing,
    /// It was done before: [`Prepared::overlay`] has its layer now.
    Ready,
    /// These commands are to be run, then [`crate::Workspaces::keep_setup`] is to be told.
    Run(Box<SetupJob>),
}

/// Commands to run once in a sandbox of their own, as the agent's user, before the agent starts. Others who need the same wait
/// until this is given back or dropped.
pub struct SetupJob {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory inside: the repository.
    pub cwd: String,
    /// What to show read-write at `<inside>/repo`; none for a workspace that is a copy.
    pub overlay: Option<RepoOverlay>,
    /// (host, inside) pairs to bind read-only.
    pub ro_binds: Vec<(PathBuf, PathBuf)>,
    /// (host, inside) pairs to bind read-write: the workspace, if it is a copy.
    pub rw_binds: Vec<(PathBuf, PathBuf)>,
    /// The network to give them.
    pub network: SetupNetwork,
    /// Time limit, seconds.
    pub seconds: u64,
    place: Option<Place>,
}

/// Where the result of a job goes.
struct Place {
    keys: Keys,
    scratch: Scratch,
    lock: EntryLock,
}

impl fmt::Debug for SetupJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments of commands may be anything.
        let (seconds, network) = (self.seconds, self.network);
        formatter
            .debug_struct("SetupJob")
            .field("seconds", &seconds)
            .field("network", &network)
            .finish_non_exhaustive()
    }
}

/// The two names of a result: for all commits with these lock files, and for one checkout only.
#[derive(Debug)]
struct Keys {
    shared: String,
    own: String,
}

fn entry(key: &str) -> Entry {
    Entry { kind: Kind::Snapshot, key: key.to_owned() }
}

impl SetupSpec {
    /// Reads `outpost.toml`; none if it has no table `setup`.
    ///
    /// # Errors
    /// It is no TOML, or the table breaks a bound; says which field.
    pub fn parse(text: &str) -> Result<Option<Self>, SetupError> {
        let origin = SETUP_FILE;
        let file: File = toml::from_str(text).map_err(|error| SetupError::Invalid {
            origin,
            why: error.message().chars().filter(|c| !c.is_control()).take(300).collect(),
        })?;
        file.setup.map(|spec| spec.checked(origin)).transpose()
    }

    /// The repository's, if it has one, with other commands.
    fn with_commands(of_repository: Option<Self>, commands: Vec<String>) -> Self {
        let (lockfiles, timeout_seconds) = match of_repository {
            Some(spec) => (spec.lockfiles, spec.timeout_seconds),
            None => (Vec::new(), SETUP_SECONDS_DEFAULT),
        };
        Self { commands, lockfiles, network: SetupNetwork::Trusted, timeout_seconds }
    }

    fn checked(self, origin: &'static str) -> Result<Self, SetupError> {
        let invalid = |why: String| Err(SetupError::Invalid { origin, why });
        let count = self.commands.len();
        if !(1..=SETUP_COMMANDS_MAX).contains(&count) {
            return invalid(format!(
                "setup.commands has {count} commands; give 1 to {SETUP_COMMANDS_MAX}"
            ));
        }
        let fits = |text: &str| {
            !text.trim().is_empty() && text.len() <= SETUP_COMMAND_BYTES_MAX && !text.contains('\0')
        };
        if !self.commands.iter().all(|command| fits(command)) {
            return invalid(format!(
                "a command of setup.commands is empty or longer than {SETUP_COMMAND_BYTES_MAX} bytes"
            ));
        }
        if self.lockfiles.len() > SETUP_LOCKFILES_MAX {
            return invalid(format!("setup.lockfiles has more than {SETUP_LOCKFILES_MAX} names"));
        }
        if let Some(name) = self.lockfiles.iter().find(|name| !is_plain(name)) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
            return invalid(format!(
                "setup.lockfiles: {shown} is no name of a file in the repository"
            ));
        }
        if !(1..=SETUP_SECONDS_MAX).contains(&self.timeout_seconds) {
            return invalid(format!("setup.timeout_seconds is not 1 to {SETUP_SECONDS_MAX}"));
        }
        Ok(self)
    }

    fn lockfiles(&self) -> Vec<&str> {
        if self.lockfiles.is_empty() {
            return LOCKFILES_DEFAULT.to_vec();
        }
        self.lockfiles.iter().map(String::as_str).collect()
    }
}

/// A relative path of plain parts.
fn is_plain(name: &str) -> bool {
    name.len() <= SETUP_LOCKFILE_NAME_BYTES_MAX
        && !name.contains(|c: char| c.is_control())
        && name.split('/').all(|part| !matches!(part, "" | "." | ".." | ".git"))
}

/// See [`crate::Workspaces::setup`].
pub(crate) async fn setup(
    inner: &Inner,
    prepared: &mut Prepared,
    request: SetupRequest,
) -> Result<Setup, SetupError> {
    let io = |source| SetupError::Io { what: "looking for an earlier setup", source };
    if prepared.persistent.as_ref().is_some_and(|used| used.resumed) {
        if !request.commands.is_empty() {
            let message =
                "Setup commands did not run: the persistent workspace is one that was worked in.";
            prepared.notes.push(note("setup_not_run", message.to_owned()));
        }
        return Ok(Setup::Nothing);
    }
    if request.userland.len() > USERLAND_BYTES_MAX {
        let why = format!("the name of the userland is longer than {USERLAND_BYTES_MAX} bytes");
        return Err(SetupError::Invalid { origin: "setup", why });
    }
    let spec = match request.spec {
        Some(spec) => Some(spec.checked("setup")?),
        None => from_repository(inner, prepared).await?,
    };
    let spec = match request.commands {
        own if own.is_empty() => spec,
        own => Some(SetupSpec::with_commands(spec, own).checked("setup")?),
    };
    let Some(spec) = spec else { return Ok(Setup::Nothing) };
    let network = spec.network.min(request.network_max);
    let Some(overlay) = prepared.overlay.clone() else {
        return Ok(Setup::Run(Box::new(plain_job(prepared, &spec, network))));
    };
    let tree = overlay.lower.last().cloned().unwrap_or_default();
    let keys = keys(&tree, prepared, &spec, network, &request.userland).map_err(io)?;
    if layered(inner, prepared, &keys, &tree).await? {
        return Ok(Setup::Ready);
    }
    let lock = locked(inner, &keys.shared).await?;
    if layered_locked(inner, prepared, &keys, &tree).map_err(io)? {
        return Ok(Setup::Ready);
    }
    let scratch = inner.cache.scratch(&keys.shared);
    std::fs::create_dir(scratch.path()).map_err(io)?;
    let above = RepoOverlay::make(scratch.path(), overlay.lower, prepared.owner).map_err(io)?;
    let place = Some(Place { keys, scratch, lock });
    let job = plain_job(prepared, &spec, network);
    Ok(Setup::Run(Box::new(SetupJob { overlay: Some(above), rw_binds: Vec::new(), place, ..job })))
}

async fn locked(inner: &Inner, key: &str) -> Result<EntryLock, SetupError> {
    inner.cache.lock(key, "").await.map_err(|error| match error {
        PrepareError::Io { what, source } => SetupError::Io { what, source },
        _ => SetupError::Busy,
    })
}

/// The commands, to be run in the workspace's own files.
fn plain_job(prepared: &Prepared, spec: &SetupSpec, network: SetupNetwork) -> SetupJob {
    let argv = ["/bin/sh", "-c", SCRIPT, "setup"].map(str::to_owned).into_iter();
    SetupJob {
        argv: argv.chain(spec.commands.iter().cloned()).collect(),
        cwd: prepared.inside.join("repo").display().to_string(),
        overlay: None,
        ro_binds: prepared.ro_binds.clone(),
        rw_binds: vec![(prepared.dir.clone(), prepared.inside.clone())],
        network,
        seconds: spec.timeout_seconds,
        place: None,
    }
}

/// Reads the file of the base commit: from the checkout, which no agent writes, or else from the mirror.
async fn from_repository(
    inner: &Inner,
    prepared: &Prepared,
) -> Result<Option<SetupSpec>, SetupError> {
    let bytes = match prepared.overlay.as_ref().and_then(|overlay| overlay.lower.last()) {
        Some(tree) => match read_below(tree, SETUP_FILE, SETUP_FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|_| unreadable())?,
        },
        None => match from_mirror(inner, prepared).await? {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
    };
    SetupSpec::parse(std::str::from_utf8(&bytes).map_err(|_| unreadable())?)
}

fn unreadable() -> SetupError {
    let why = format!(
        "it must be a regular file of UTF-8 text, at most {SETUP_FILE_BYTES_MAX} bytes long"
    );
    SetupError::Invalid { origin: SETUP_FILE, why }
}

/// Asks git for the file: its answer begins with a line of `<id> <type> <size>`, or says that it is missing.
async fn from_mirror(inner: &Inner, prepared: &Prepared) -> Result<Option<Vec<u8>>, SetupError> {
    let asked = format!("{}:{SETUP_FILE}\n", prepared.base_commit);
    let bound = usize::try_from(SETUP_FILE_BYTES_MAX).unwrap_or(usize::MAX) + 256;
    let call = inner.git.run("cat-file").arg("--batch").stdin(asked.into_bytes());
    let answer = call.git_dir(&prepared.mirror).output_bytes_max(bound).output().await;
    let answer = match answer {
        Err(GitError::TooMuchOutput { .. }) => return Err(unreadable()),
        answer => answer?,
    };
    let line_end = answer.iter().position(|byte| *byte == b'\n').unwrap_or(answer.len());
    let (line, rest) = answer.split_at(line_end);
    if line.ends_with(b" missing") {
        return Ok(None);
    }
    if !line.windows(6).any(|part| part == b" blob ") {
        return Err(unreadable());
    }
    Ok(Some(rest.strip_prefix(b"\n").unwrap_or_default().to_vec()))
}

fn read_below(dir: &Path, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    artifacts::open_below(dir, name, bytes_max)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Names the result.
fn keys(
    tree: &Path,
    prepared: &Prepared,
    spec: &SetupSpec,
    network: SetupNetwork,
    userland: &str,
) -> io::Result<Keys> {
    let owner = prepared.owner.map(|(uid, gid)| format!("{uid}:{gid}")).unwrap_or_default();
    let network = format!("{network:?}");
    let count = spec.commands.len().to_string();
    let mut parts: Vec<Vec<u8>> = ["setup 1", &prepared.scope, &owner, userland, &network, &count]
        .map(|part| part.as_bytes().to_vec())
        .to_vec();
    parts.extend(spec.commands.iter().map(|command| command.as_bytes().to_vec()));
    for name in spec.lockfiles() {
        parts.push(format!("lock file {name}").into_bytes());
        parts.push(match read_below(tree, name, LOCKFILE_BYTES_MAX) {
            Ok(bytes) => Sha256::digest(&bytes).to_vec(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            // Too large, or a link: only the same checkout has the same one for sure.
            Err(_) => tree.as_os_str().as_encoded_bytes().to_vec(),
        });
    }
    let shared = digest(parts.iter().map(Vec::as_slice));
    let own = digest([b"own".as_slice(), shared.as_bytes(), tree.as_os_str().as_encoded_bytes()]);
    Ok(Keys { shared, own })
}

/// Puts the layer of an earlier setup into the workspace, if there is one that fits.
async fn layered(
    inner: &Inner,
    prepared: &mut Prepared,
    keys: &Keys,
    tree: &Path,
) -> Result<bool, SetupError> {
    let there = |key: &str| inner.cache.path(&entry(key)).is_dir();
    if !there(&keys.shared) && !there(&keys.own) {
        return Ok(false);
    }
    let _lock = locked(inner, &keys.shared).await?;
    layered_locked(inner, prepared, keys, tree)
        .map_err(|source| SetupError::Io { what: "looking for an earlier setup", source })
}

fn layered_locked(
    inner: &Inner,
    prepared: &mut Prepared,
    keys: &Keys,
    tree: &Path,
) -> io::Result<bool> {
    for key in [&keys.own, &keys.shared] {
        let dir = inner.cache.path(&entry(key));
        if !dir.is_dir() {
            continue;
        }
        // The own one has a lock of its own: whoever has it is making room, and takes it away.
        let own = (key == &keys.own).then(|| inner.cache.try_lock(key));
        if matches!(own, Some(None)) {
            continue;
        }
        inner.cache.leases.hold(key, &prepared.attempt_dir)?;
        match Facts::read(&dir, key, &inner.cache.boot) {
            Some(Facts { adds: None, .. }) => {}
            Some(Facts { adds: Some(adds), .. }) if fits(inner, tree, &adds) => {}
            found => {
                inner.cache.leases.release(key, &prepared.attempt_dir);
                if found.is_none() && dir.is_dir() {
                    inner.cache.set_aside(&entry(key))?;
                }
                continue;
            }
        }
        Cache::touch(&dir);
        put(prepared, snapshot::layer(&dir));
        persistent::note_snapshot(inner, prepared, key)?;
        return Ok(true);
    }
    Ok(false)
}

/// Whether what a layer adds lies beside the files of this checkout.
fn fits(inner: &Inner, tree: &Path, adds: &[String]) -> bool {
    checkout::files_of(inner, tree).is_ok_and(|facts| {
        facts.files.len() < TRACKED_FILES_MAX && snapshot::lies_beside(adds, &facts.files)
    })
}

fn put(prepared: &mut Prepared, layer: PathBuf) {
    if let Some(overlay) = &mut prepared.overlay {
        overlay.lower.insert(0, layer);
    }
}

/// See [`crate::Workspaces::keep_setup`].
pub(crate) async fn keep(
    inner: &Inner,
    prepared: &mut Prepared,
    job: SetupJob,
    ok: bool,
) -> Result<Vec<Note>, SetupError> {
    let io = |source| SetupError::Io { what: "keeping the setup", source };
    let (Some(place), Some(overlay)) = (job.place, job.overlay) else { return Ok(Vec::new()) };
    if !ok {
        return Ok(Vec::new());
    }
    let tree = overlay.lower.last().cloned().unwrap_or_default();
    let facts = checkout::files_of(inner, &tree).map_err(io)?;
    let (layer, known) = (overlay.upper.clone(), std::sync::Arc::clone(&facts));
    let looked = tokio::task::spawn_blocking(move || {
        snapshot::survey(&layer, &known.files, snapshot::LAYER_BYTES_MAX)
    })
    .await;
    let survey = looked.map_err(io::Error::other).and_then(|survey| survey).map_err(io)?;
    let mut notes = Vec::new();
    let changed = survey.changes.iter().filter(|path| *path != ".git").cloned();
    let changed: Vec<String> = changed.collect();
    if !changed.is_empty() {
        let message = format!(
            "The setup commands changed files of the repository, which are part of the changes of each run: {}.",
            inspect::names(&changed)
        );
        notes.push(note("setup_changes_files", message));
    }
    if survey.too_large {
        let message = format!(
            "What the setup commands left is too large or too deep to be kept for later runs (at most {} bytes).",
            snapshot::LAYER_BYTES_MAX
        );
        notes.push(note("setup_not_kept", message));
        let own = match &prepared.persistent {
            Some(used) => used.dir.join(persistent::SETUP),
            None => prepared.attempt_dir.join(persistent::SETUP),
        };
        crate::remove::remove_tree(&own).map_err(io)?;
        std::fs::rename(&overlay.upper, &own).map_err(io)?;
        put(prepared, own);
        return Ok(notes);
    }
    let whole = facts.files.len() >= TRACKED_FILES_MAX;
    publish(inner, prepared, place, &overlay, survey, whole).map_err(io)?;
    Ok(notes)
}

/// Lets the snapshot appear, and puts it into the workspace.
fn publish(
    inner: &Inner,
    prepared: &mut Prepared,
    place: Place,
    overlay: &RepoOverlay,
    survey: Survey,
    unlisted: bool,
) -> io::Result<()> {
    let Place { keys, scratch, lock } = place;
    // A shared one that is there does not fit this commit: both stay.
    let shared = survey.changes.is_empty()
        && !survey.unlisted
        && !unlisted
        && !inner.cache.path(&entry(&keys.shared)).exists();
    let key = if shared { &keys.shared } else { &keys.own };
    let _own = if shared { None } else { inner.cache.try_lock(key) };
    std::fs::rename(&overlay.upper, scratch.path().join(snapshot::LAYER))?;
    crate::remove::remove_tree(&scratch.path().join("work"))?;
    let facts = Facts::new(key, &inner.cache.boot, shared.then_some(survey.adds));
    std::fs::write(scratch.path().join(snapshot::FACTS), serde_json::to_vec(&facts)?)?;
    let dir = inner.cache.path(&entry(key));
    if dir.exists() {
        inner.cache.set_aside(&entry(key))?;
    }
    inner.cache.leases.hold(key, &prepared.attempt_dir)?;
    inner.cache.publish_whole(&scratch, &entry(key), survey.bytes)?;
    put(prepared, snapshot::layer(&dir));
    persistent::note_snapshot(inner, prepared, key)?;
    drop(lock);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{SetupNetwork, SetupSpec};

    fn error(table: &str) -> String {
        SetupSpec::parse(&format!("[setup]\n{table}\n")).unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_read_within_bounds() {
        let text = "name = 1\n[other]\nx = 2\n[setup]\ncommands = [\"npm ci\"]\nlockfiles = [\"web/a.lock\"]\n\
                    network = \"trusted\"\ntimeout_seconds = 60\n";
        let spec = SetupSpec::parse(text).unwrap().unwrap();
        assert_eq!((spec.network, spec.timeout_seconds), (SetupNetwork::Trusted, 60));
        assert_eq!(spec.lockfiles(), ["web/a.lock"]);
        let short = SetupSpec::parse("[setup]\ncommands = [\"make\"]").unwrap().unwrap();
        assert_eq!((short.network, short.timeout_seconds), (SetupNetwork::None, 300));
        assert!(short.lockfiles().contains(&"Cargo.lock"));
        assert_eq!(SetupSpec::parse("").unwrap(), None);
        assert_eq!(SetupSpec::parse("[other]").unwrap(), None);
        let long = "x".repeat(5000);
        for (table, field) in [
            ("commands = []", "setup.commands"),
            ("lockfiles = []", "commands"),
            (&format!("commands = [{}]", "\"a\",".repeat(17)), "setup.commands"),
            ("commands = [\" \"]", "setup.commands"),
            (&format!("commands = [\"{long}\"]"), "setup.commands"),
            ("commands = [\"a\\u0000b\"]", "setup.commands"),
            ("commands = [\"a\"]\nlockfiles = [\"../x\"]", "setup.lockfiles"),
            ("commands = [\"a\"]\nlockfiles = [\"/x\"]", "setup.lockfiles"),
            ("commands = [\"a\"]\nlockfiles = [\".git/x\"]", "setup.lockfiles"),
            (
                &format!("commands = [\"a\"]\nlockfiles = [{}]", "\"a\",".repeat(17)),
                "setup.lockfiles",
            ),
            ("commands = [\"a\"]\ntimeout_seconds = 0", "setup.timeout_seconds"),
            ("commands = [\"a\"]\ntimeout_seconds = 9999", "setup.timeout_seconds"),
            ("commands = [\"a\"]\nnetwork = \"all\"", "all"),
            ("commands = [\"a\"]\nnetworks = \"none\"", "networks"),
            ("commands = \"a", "outpost.toml"),
        ] {
            assert!(error(table).contains(field), "{table}: {}", error(table));
        }
    }
}
