//! Whether a run succeeded, from what the agent reported, how its process ended, and whether it
//! changed anything.
//!
//! Exit codes alone say little: several CLIs exit 0 on refused credentials, denied tools or SIGTERM,
//! so an agent with a final event must have sent one that says it is done.

use outpost_types::{Failure, FailureCode, Provider};

use crate::agent::{AgentProfile, SuccessRule};
use crate::parse::{AgentReport, FinalStatus};

/// How the agent's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if one killed it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the sandbox for memory.
    pub oom: bool,
    /// It was ended for writing more to disk than its tier allows.
    pub disk_full: bool,
}

/// Outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it was asked, by its own account and without contradiction.
    Completed,
    /// It did not.
    Failed(Failure),
}

/// Exit code of a shell's child killed by SIGKILL, which a memory limit sends.
const CODE_KILLED: i32 = 137;
const SIGKILL: i32 = 9;

/// Judges a run. Timeouts and cancels are the caller's: it knows that it ended the run.
#[must_use]
pub fn judge(agent: &AgentProfile, report: &AgentReport, exit: &Exit, changed: bool) -> Verdict {
    let ended_well = exit.code == Some(0) && exit.signal.is_none();
    let finished_well = match agent.success {
        SuccessRule::ExitCode => {
            report.error.is_none() && report.finished != Some(FinalStatus::Failed)
        }
        SuccessRule::FinalEvent => report.finished == Some(FinalStatus::Completed),
    };
    if ended_well && finished_well {
        return Verdict::Completed;
    }
    if ended_well && report.finished == Some(FinalStatus::Denied) && changed {
        // Something was refused, yet work came of it: the diff decides, not the refusal.
        return Verdict::Completed;
    }
    Verdict::Failed(failure(agent, report, exit))
}

fn failure(agent: &AgentProfile, report: &AgentReport, exit: &Exit) -> Failure {
    let killed = exit.code == Some(CODE_KILLED) || exit.signal == Some(SIGKILL);
    if exit.disk_full {
        let what = "was ended for writing more to disk than its sandbox may";
        return too_small(agent, FailureCode::DiskFull, what);
    }
    if exit.oom || exit.code == Some(CODE_KILLED) {
        let what = "was killed for using more memory than its sandbox has";
        return too_small(agent, FailureCode::Oom, what);
    }
    if let Some((code, message)) = &report.error {
        let failure = Failure::new(*code, format!("{}: {message}", agent.title));
        return match hint(agent, report, *code) {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        };
    }
    if report.finished == Some(FinalStatus::Denied) {
        return Failure::new(
            FailureCode::PolicyDenied,
            format!("{} was refused a tool it needed and changed nothing", agent.title),
        )
        .with_hint("See the run's events for what was refused, and word the task without it.");
    }
    let how = how_it_ended(exit);
    let message = match report.finished {
        Some(FinalStatus::Completed) => {
            format!("{} reported success but {how}", agent.title)
        }
        Some(FinalStatus::Cancelled) => format!("{} was interrupted and {how}", agent.title),
        Some(_) => format!("{} reported failure and {how}", agent.title),
        None if agent.success == SuccessRule::ExitCode => format!("{} {how}", agent.title),
        None => format!("{} {how} without its final event (killed or crashed)", agent.title),
    };
    let hint = if killed {
        "If this repeats, give the run a larger tier."
    } else {
        "Read the run's log for the agent's last lines."
    };
    Failure::new(FailureCode::AgentExit, message).with_hint(hint)
}

fn how_it_ended(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(code), None) => format!("ended with exit code {code}"),
        (None, None) => "ended without an exit code".to_owned(),
    }
}

fn too_small(agent: &AgentProfile, code: FailureCode, what: &str) -> Failure {
    let hint = match agent.tier.next() {
        Some(tier) => format!("Dispatch it again with tier {}.", tier.as_str()),
        None => "Split the task: there is no larger tier.".to_owned(),
    };
    Failure::new(code, format!("{} {what}", agent.title)).with_hint(hint)
}

fn hint(agent: &AgentProfile, report: &AgentReport, code: FailureCode) -> Option<String> {
    let provider =
        report.model_id.as_deref().and_then(crate::aider::provider_of_prefixed).or(agent.provider);
    match code {
        FailureCode::AgentAuth => Some(auth_hint(provider)),
        FailureCode::RateLimited => Some(
            "Wait for the provider's limit to reset, or use another key or a smaller model."
                .to_owned(),
        ),
        FailureCode::BudgetExceeded => {
            Some("Raise budgetUsd, or split the task into smaller ones.".to_owned())
        }
        FailureCode::PolicyDenied => {
            Some("See the run's events for what was refused and by which policy.".to_owned())
        }
        _ => Some("Read the run's log for the agent's last lines.".to_owned()),
    }
}

fn auth_hint(provider: Option<Provider>) -> String {
    let Some(provider) = provider else {
        return "Check the key the command is given.".to_owned();
    };
    let variable = provider.key_variables().first().copied().unwrap_or("the provider's key");
    format!("Set {variable} to a valid key where Outpost runs, restart it, and dispatch again.")
}
