//! Output of the real CLIs, captured against a server that answers well, refuses the key, limits the
//! rate, fails, or cuts its streams. With `OUTPOST_BLESS=1` the readings are written anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use outpost_agents::{AgentReport, Exit, FinalStatus, OutputParser, Registry, Verdict, judge};
use outpost_types::{EventData, FailureCode, LogStreamName};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn events(parser: &mut dyn OutputParser, output: &str) -> Vec<EventData> {
    let mut events: Vec<EventData> =
        output.lines().flat_map(|line| parser.line(LogStreamName::Stdout, line)).collect();
    events.extend(parser.flush());
    events
}

fn describe(event: &EventData) -> String {
    match event {
        EventData::Log { text, .. } => format!("log      {text:?}"),
        EventData::Message { text, .. } => format!("message  {text:?}"),
        EventData::Thought { text, .. } => format!("thought  {text:?}"),
        EventData::Tool { name, call_id, phase, summary, is_error, .. } => {
            format!("tool     {phase:?} {name} {call_id:?} {summary:?} error={is_error:?}")
        }
        EventData::Usage { usage, .. } => format!("usage    {usage:?}"),
        other => format!("other    {other:?}"),
    }
}

fn reading(name: &str) -> (String, AgentReport, Vec<EventData>) {
    let output = std::fs::read_to_string(dir().join(format!("{name}.txt"))).unwrap();
    let agent_name = name.split('-').next().unwrap();
    let registry = Registry::new(Vec::new()).unwrap();
    let agent = registry.get(&agent_name.parse().unwrap()).unwrap();
    let mut parser = agent.parser();
    let events = events(parser.as_mut(), &output);
    let report = parser.finish();
    let mut text = String::new();
    for event in &events {
        writeln!(text, "{}", describe(event)).unwrap();
    }
    writeln!(text, "{report:#?}").unwrap();
    (text, report, events)
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".txt").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

#[test]
fn real_output_is_read_as_recorded() {
    let bless = std::env::var_os("OUTPOST_BLESS").is_some();
    let names = names();
    assert!(names.len() >= 25, "fixtures are missing: {names:?}");
    for name in names {
        let (reading, ..) = reading(&name);
        let path = dir().join(format!("{name}.golden"));
        if bless {
            std::fs::write(&path, &reading).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(reading, golden, "{name}: run with OUTPOST_BLESS=1 and look at the difference");
    }
}

#[test]
fn each_agent_succeeds_with_tokens_tool_and_message() {
    for agent in ["claude", "codex", "gemini", "grok", "aider"] {
        let (text, report, events) = reading(&format!("{agent}-success"));
        assert_eq!(report.finished, Some(FinalStatus::Completed), "{agent}\n{text}");
        assert_eq!(report.error, None, "{agent}");
        assert!(report.summary.is_some(), "{agent}");
        assert_eq!(report.session_id.is_some(), agent != "aider", "{agent}");
        let usage = report.usage.unwrap();
        assert!(usage.input_tokens > 0 && usage.output_tokens > 0, "{agent}");
        for kind in ["agent.tool", "agent.message", "agent.usage"] {
            assert!(events.iter().any(|event| event.kind() == kind), "{agent} {kind}");
        }
    }
}

#[test]
fn failures_are_told_apart() {
    let cases = [
        ("refused", FailureCode::AgentAuth),
        ("limited", FailureCode::RateLimited),
        ("broken", FailureCode::AgentExit),
        ("cut", FailureCode::AgentExit),
    ];
    for agent in ["claude", "codex", "gemini", "grok", "aider"] {
        for (case, code) in cases {
            // Claude Code recovers from cut streams; Grok's 500 is not captured.
            if matches!((agent, case), ("claude", "cut") | ("grok", "broken")) {
                continue;
            }
            let (text, report, _) = reading(&format!("{agent}-{case}"));
            assert_eq!(report.finished, Some(FinalStatus::Failed), "{agent} {case}\n{text}");
            let registry = Registry::new(Vec::new()).unwrap();
            let profile = registry.get(&agent.parse().unwrap()).unwrap().profile().clone();
            // Aider exits 0 on all of them.
            let exit = Exit { code: Some(i32::from(agent != "aider")), ..Exit::default() };
            for changed in [false, true] {
                let Verdict::Failed(failure) = judge(&profile, &report, &exit, changed) else {
                    panic!("{agent} {case} passed");
                };
                assert_eq!(failure.code, code, "{agent} {case}: {}", failure.message);
                assert!(failure.hint.is_some(), "{agent} {case}");
            }
        }
    }
}

#[test]
fn output_that_is_cut_off_has_no_final_event() {
    for agent in ["claude", "codex", "gemini", "grok", "aider"] {
        let name = format!("{agent}-success");
        let output = std::fs::read_to_string(dir().join(format!("{name}.txt"))).unwrap();
        let registry = Registry::new(Vec::new()).unwrap();
        let agent = registry.get(&agent.parse().unwrap()).unwrap();
        let mut parser = agent.parser();
        let end =
            output.rfind(if agent.profile().id.as_str() == "aider" { "Tokens:" } else { "\n{" });
        events(parser.as_mut(), &output[..end.unwrap()]);
        assert_eq!(parser.finish().finished, None, "{name}");
    }
}

#[test]
fn a_rehearsal_reads_the_same_but_no_dollars() {
    let output = std::fs::read_to_string(dir().join("claude-success.txt")).unwrap();
    let read = |registry: Registry| {
        let agent = registry.get(&"claude".parse().unwrap()).unwrap();
        let mut parser = agent.parser();
        (events(parser.as_mut(), &output), parser.finish())
    };
    let (mut paid_events, mut paid) = read(Registry::new(Vec::new()).unwrap());
    let costs = |events: &[EventData]| -> Vec<Option<f64>> {
        let cost = |event: &EventData| match event {
            EventData::Usage { usage, .. } => Some(usage.cost_usd),
            _ => None,
        };
        events.iter().filter_map(cost).collect()
    };
    assert!(costs(&paid_events).iter().all(Option::is_some) && !costs(&paid_events).is_empty());
    for event in &mut paid_events {
        if let EventData::Usage { usage, .. } = event {
            usage.cost_usd = None;
        }
    }
    assert!(paid.usage.as_mut().unwrap().cost_usd.take().is_some());
    let rehearsed = read(Registry::new(Vec::new()).unwrap().rehearsing());
    assert_eq!(rehearsed, (paid_events, paid));
}
