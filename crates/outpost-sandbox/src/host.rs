//! Can this host run sandboxes? Answered by running one, not by reading settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::error::SandboxError;
use crate::report::HostReport;
use crate::sandbox::Sandbox;
use crate::spec::{Payload, SandboxSpec};

/// How long the trial run may take.
const TRIAL_SECONDS_MAX: u64 = 30;

/// The result of a trial run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProbe {
    /// What the launcher found; `None` if it did not start.
    pub host: Option<HostReport>,
    /// Why no sandbox can be run here, with a remedy; `None` if the trial run succeeded.
    pub problem: Option<String>,
}

impl HostProbe {
    /// True if a real sandbox ran a real program.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.problem.is_none()
    }
}

/// Runs `/bin/true` in a real sandbox and says what was enforced or what went wrong. Never fails: a failure is the
/// answer.
pub async fn probe_host(sandbox: &dyn Sandbox) -> HostProbe {
    let host = match sandbox.host().await {
        Ok(host) => host,
        Err(error) => {
            return HostProbe { host: None, problem: Some(explain(&error)) };
        }
    };
    let problem = match timeout(Duration::from_secs(TRIAL_SECONDS_MAX), trial(sandbox)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(explain(&error)),
        Err(_) => Some(format!(
            "a trial sandbox did not end within {TRIAL_SECONDS_MAX} s; is this machine overloaded?"
        )),
    };
    HostProbe { host: Some(host), problem }
}

fn explain(error: &SandboxError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

async fn trial(sandbox: &dyn Sandbox) -> Result<(), SandboxError> {
    let spec = SandboxSpec::new(format!("probe-{}", std::process::id()));
    let running = sandbox.create(spec).await?.start(Payload::new(["true"])).await?;
    let report = running.wait().await?;
    running.release().await?;
    if report.success() {
        return Ok(());
    }
    Err(SandboxError::Start {
        message: format!("the trial program ended unexpectedly: {report:?}"),
    })
}
