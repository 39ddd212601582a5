//! Setup commands of a repository or of the dispatch: run before the agent, in a sandbox of their own, and only where the layer they
//! made for an earlier run does not fit.
//!
//! They may be the repository's, so they get nothing of the tenant's: no secret, no model, no way out but what the
//! gateway's proxy opens to package registries and code hosts, and only if they ask for it and the dispatch or the
//! operator allows it. Bounded by the
//! workspace crate's bounds and the size of the dispatch. Absent: an agent's home; what they leave outside the
//! repository is gone.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::time::Instant;

use outpost_types::NetworkLevel;
use outpost_workspace::{Prepared, Setup, SetupJob, SetupNetwork, SetupRequest};

use crate::attempt::millis_since;
use crate::local::Parts;
use crate::provision::ProvisionError;
use crate::runner::Assignment;
use crate::side::{SideRun, run_aside};

/// Most of the file that names the host's userland, bytes.
const OS_RELEASE_BYTES_MAX: u64 = 4 * 1024;
/// Most of the commands' output that a failure tells, bytes.
const TOLD_BYTES_MAX: usize = 2 * 1024;

/// Sets the repository up, if it wants that. Returns how long commands ran, milliseconds; `None` when none did.
pub(crate) async fn set_up(
    parts: &Parts,
    assignment: &Assignment,
    prepared: &mut Prepared,
) -> Result<Option<u64>, ProvisionError> {
    let request = SetupRequest {
        spec: None,
        commands: assignment.spec.setup.clone(),
        network_max: match assignment.spec.network {
            NetworkLevel::Trusted => SetupNetwork::Trusted,
            _ => parts.config.setup_network,
        },
        userland: userland(),
    };
    let job = match parts.workspaces.setup(prepared, request).await? {
        Setup::Nothing | Setup::Ready => return Ok(None),
        Setup::Run(job) => *job,
    };
    let (started, closed) = (Instant::now(), job.network == SetupNetwork::None);
    let side = side_of(parts, assignment, prepared, &job)?;
    let ran = run_aside(parts, side).await;
    let ok = ran.as_ref().is_ok_and(|ran| ran.exit.success());
    let notes = parts.workspaces.keep_setup(prepared, job, ok).await?;
    prepared.notes.extend(notes);
    let ran = ran?;
    if !ok {
        let code = ran.exit.exit_code;
        return Err(ProvisionError::SetupFailed { code, closed, output: end_of(&ran.output) });
    }
    Ok(Some(millis_since(started)))
}

fn side_of(
    parts: &Parts,
    assignment: &Assignment,
    prepared: &Prepared,
    job: &SetupJob,
) -> Result<SideRun, ProvisionError> {
    let network = match job.network {
        SetupNetwork::None => None,
        SetupNetwork::Trusted => {
            let grant = parts.config.network.grant(NetworkLevel::Trusted, &[]);
            Some(grant.map_err(ProvisionError::Unavailable)?)
        }
    };
    Ok(SideRun {
        id: format!("{}-setup", assignment.attempt),
        argv: job.argv.clone(),
        env: Vec::new(),
        cwd: job.cwd.clone(),
        ro_binds: job.ro_binds.clone(),
        rw_binds: job.rw_binds.clone(),
        repository: job.overlay.clone().map(|overlay| (overlay, prepared.inside.clone())),
        network,
        tier: assignment.spec.tier,
        seconds_max: job.seconds,
    })
}

/// Names the programs that setup commands find: those of the host.
fn userland() -> String {
    let mut text = Vec::new();
    let read = File::open("/etc/os-release")
        .and_then(|file| file.take(OS_RELEASE_BYTES_MAX).read_to_end(&mut text));
    // A host that does not name itself is itself all the same.
    let _unnamed = read;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("host-{:016x}", hasher.finish())
}

/// The last of what was printed, from the start of a line where there is one.
fn end_of(output: &str) -> String {
    let output = output.trim();
    let start = output.len().saturating_sub(TOLD_BYTES_MAX);
    let start = (start..=output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(0);
    let end = &output[start..];
    match end.split_once('\n') {
        Some((_, rest)) if start > 0 && !rest.is_empty() => rest.to_owned(),
        _ => end.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_last_whole_lines() {
        assert_eq!(end_of(" one line\n"), "one line");
        let long = format!("{}\nthe last", "é".repeat(TOLD_BYTES_MAX));
        assert_eq!(end_of(&long), "the last");
        assert_eq!(end_of(&"é".repeat(TOLD_BYTES_MAX)).len(), TOLD_BYTES_MAX);
        assert_eq!(userland(), userland());
    }
}
