//! Every way a run can end.

use outpost_agents::{AgentReport, Exit, FinalStatus, Registry, Verdict, judge};
use outpost_types::FailureCode;

fn exit(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

fn report(finished: Option<FinalStatus>) -> AgentReport {
    AgentReport { finished, ..AgentReport::default() }
}

fn failure(
    agent: &str,
    report: &AgentReport,
    exit: Exit,
    changed: bool,
) -> (FailureCode, String, String) {
    let registry = Registry::new(Vec::new()).unwrap();
    let profile = registry.get(&agent.parse().unwrap()).unwrap().profile().clone();
    match judge(&profile, report, &exit, changed) {
        Verdict::Completed => panic!("{agent} completed"),
        Verdict::Failed(failure) => {
            (failure.code, failure.message, failure.hint.unwrap_or_default())
        }
    }
}

fn completes(agent: &str, report: &AgentReport, exit: Exit, changed: bool) -> bool {
    let registry = Registry::new(Vec::new()).unwrap();
    let profile = registry.get(&agent.parse().unwrap()).unwrap().profile().clone();
    judge(&profile, report, &exit, changed) == Verdict::Completed
}

#[test]
fn success_needs_the_final_event_and_a_good_exit() {
    let done = report(Some(FinalStatus::Completed));
    assert!(completes("claude", &done, exit(0), true));
    assert!(completes("claude", &done, exit(0), false), "a question changes nothing");
    let (code, message, _) = failure("claude", &done, exit(3), true);
    assert_eq!(code, FailureCode::AgentExit);
    assert!(message.contains("reported success but ended with exit code 3"), "{message}");
}

#[test]
fn exit_0_without_a_final_event_is_no_success() {
    // Gemini after SIGTERM, Claude after SIGINT.
    let (code, message, hint) = failure("gemini", &report(None), exit(0), true);
    assert_eq!(code, FailureCode::AgentExit);
    assert!(message.contains("without its final event (killed or crashed)"), "{message}");
    assert!(!hint.is_empty());
}

#[test]
fn memory_kills_name_the_next_tier() {
    let killed = Exit { signal: Some(9), oom: true, ..Exit::default() };
    let (code, _, hint) = failure("aider", &report(None), killed, false);
    assert_eq!((code, hint.contains("tier balanced")), (FailureCode::Oom, true));
    let (code, _, hint) = failure("claude", &report(None), exit(137), false);
    assert_eq!((code, hint.contains("Split the task")), (FailureCode::Oom, true));
    let full = Exit { signal: Some(25), disk_full: true, ..Exit::default() };
    let (code, _, hint) = failure("aider", &report(None), full, false);
    assert_eq!((code, hint.contains("tier balanced")), (FailureCode::DiskFull, true));
    // A tool of the agent was killed, and the agent coped.
    let coped = Exit { oom: true, ..exit(0) };
    assert!(completes("claude", &report(Some(FinalStatus::Completed)), coped, true));
    let signal = Exit { signal: Some(9), ..Exit::default() };
    assert_eq!(failure("codex", &report(None), signal, false).0, FailureCode::AgentExit);
}

#[test]
fn refused_tools_fail_only_what_changed_nothing() {
    let denied = report(Some(FinalStatus::Denied));
    assert!(completes("claude", &denied, exit(0), true));
    assert_eq!(failure("claude", &denied, exit(0), false).0, FailureCode::PolicyDenied);
    let cancelled = report(Some(FinalStatus::Cancelled));
    let (code, message, _) = failure("grok", &cancelled, exit(0), true);
    assert_eq!(code, FailureCode::AgentExit);
    assert!(message.contains("interrupted"), "{message}");
}

#[test]
fn hints_name_the_key_of_the_model() {
    let refused = |model: Option<&str>| AgentReport {
        finished: Some(FinalStatus::Failed),
        error: Some((FailureCode::AgentAuth, "no".into())),
        model_id: model.map(Into::into),
        ..AgentReport::default()
    };
    for (agent, model, variable) in [
        ("claude", None, "ANTHROPIC_API_KEY"),
        ("codex", None, "OPENAI_API_KEY"),
        ("gemini", None, "GEMINI_API_KEY"),
        ("grok", None, "XAI_API_KEY"),
        ("aider", None, "DEEPSEEK_API_KEY"),
        ("aider", Some("openai/gpt-4o"), "OPENAI_API_KEY"),
    ] {
        let (code, _, hint) = failure(agent, &refused(model), exit(1), false);
        assert_eq!(code, FailureCode::AgentAuth);
        assert!(hint.contains(variable), "{agent}: {hint}");
    }
}
