//! What the agents print, and the names in a repository that reach their command lines.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use outpost_agents::parse::{
    self, ERROR_BYTES_MAX, EVENTS_PER_LINE_MAX, NAME_BYTES_MAX, RAW_BYTES_MAX, SUMMARY_BYTES_MAX,
    TEXT_BYTES_MAX,
};
use outpost_agents::{
    Agent, AgentProfile, AgentReport, CustomAgentConfig, Exit, FinalStatus, Installed,
    OutputFormat, OutputParser, Registry, RunSpec, TrackedFile, Verdict, aider, judge,
};
use outpost_runner::fuzzing::LineCutter;
use outpost_types::{BuiltinAgent, EventData, LogStreamName};

use crate::feed::{Feed, pieces};
use crate::text::{assert_line, assert_text};

/// What an event may hold beside what the agent printed: our own words and names, bytes.
const OWN_WORDS_BYTES_MAX: usize = 512;
/// Longest message of a failure: an agent's title, an error, our own words, bytes.
const FAILURE_BYTES_MAX: usize = ERROR_BYTES_MAX + 200;
/// A line that starts with this is printed to standard error.
const TO_STDERR: char = '\u{1}';

/// Aider's text.
pub fn agent_aider(data: &[u8]) {
    read_as(BuiltinAgent::Aider, data);
}

/// Claude Code's JSON lines, and Grok's, which have the same reader.
pub fn agent_claude(data: &[u8]) {
    let claude = read_as(BuiltinAgent::Claude, data);
    assert_eq!(read_as(BuiltinAgent::Grok, data), claude);
}

/// Codex's JSON lines.
pub fn agent_codex(data: &[u8]) {
    read_as(BuiltinAgent::Codex, data);
}

/// Gemini CLI's JSON lines.
pub fn agent_gemini(data: &[u8]) {
    read_as(BuiltinAgent::Gemini, data);
}

/// Any text, as of a command the operator declared.
pub fn agent_text(data: &[u8]) {
    let agent = AGENTS[0].iter().last().expect("it was declared");
    read(agent.as_ref(), data);
}

fn declared() -> CustomAgentConfig {
    CustomAgentConfig {
        name: "declared".to_owned(),
        command: vec!["/opt/agent".to_owned(), "{prompt_file}".to_owned()],
        env: std::collections::BTreeMap::new(),
        model: None,
        provider: None,
        base_url_env: None,
        base_url_suffix: String::new(),
        key_env: None,
        output: OutputFormat::Text,
        success: None,
        stdin_prompt: false,
        tier: None,
        ro_paths: Vec::new(),
        concurrency_max: None,
    }
}

/// Events with the offset their line ends at, and the report.
type Reading = (Vec<(usize, EventData)>, AgentReport);

/// The built-in agents and a declared one, and the same when nothing is spent.
static AGENTS: LazyLock<[Registry; 2]> = LazyLock::new(|| {
    let all = || Registry::new(vec![declared()]).expect("the declaration is lawful");
    [all(), all().rehearsing()]
});

fn read_as(agent: BuiltinAgent, data: &[u8]) -> Reading {
    let agent = AGENTS[0].get(&agent.into()).expect("it is built in");
    let reading = read(agent.as_ref(), data);
    rehearse(agent.profile(), data, &reading);
    reading
}

/// Without a model nothing is spent; everything else is as it was.
fn rehearse(profile: &AgentProfile, data: &[u8], (events, report): &Reading) {
    let agent = AGENTS[1].get(&profile.id).expect("it is built in");
    let (unpaid, unpaid_report) = run(agent.parser().as_mut(), [data.get(1..).unwrap_or_default()]);
    assert_eq!(unpaid.len(), events.len());
    for ((_, unpaid), (_, event)) in unpaid.iter().zip(events) {
        assert_eq!(*unpaid, without_cost(event.clone()));
    }
    assert!(unpaid_report.usage.is_none_or(|usage| usage.cost_usd.is_none()));
    assert_eq!(unpaid_report.finished, report.finished);
}

/// The first byte says how the rest, which is what the agent printed, reaches us.
fn read(agent: &dyn Agent, data: &[u8]) -> Reading {
    let mut feed = Feed(data);
    let seed = feed.byte();
    let printed = feed.0;
    let reading = run(agent.parser().as_mut(), [printed]);
    let (events, report) = &reading;
    let again = run(agent.parser().as_mut(), pieces(printed, seed));
    assert_eq!(again, reading, "what is read depends on how it arrives");

    // A byte that is no UTF-8 becomes a replacement character of three.
    let printed_bytes = String::from_utf8_lossy(printed).len();
    let shown: usize = events.iter().map(|(_, event)| check_event(event)).sum();
    assert!(
        shown <= printed_bytes + OWN_WORDS_BYTES_MAX * events.len(),
        "{shown} bytes of events from {printed_bytes} printed"
    );
    check_report(report);
    check_verdicts(agent.profile(), report);
    reading
}

/// Reads pieces of output as a runner does.
fn run<'a>(parser: &mut dyn OutputParser, printed: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut cutter = LineCutter::default();
    let (mut events, mut start) = (Vec::new(), 0);
    for piece in printed {
        for (line, passed) in cutter.push(piece) {
            events.extend(parse_line(parser, &line).map(|event| (start + passed, event)));
        }
        start += piece.len();
    }
    let last = cutter.finish();
    events
        .extend(last.iter().flat_map(|line| parse_line(parser, line)).map(|event| (start, event)));
    events.extend(parser.flush().into_iter().map(|event| (start, event)));
    (events, parser.finish())
}

fn parse_line(
    parser: &mut dyn OutputParser,
    line: &str,
) -> impl Iterator<Item = EventData> + use<> {
    let (stream, line) = match line.strip_prefix(TO_STDERR) {
        Some(line) => (LogStreamName::Stderr, line),
        None => (LogStreamName::Stdout, line),
    };
    let events = parser.line(stream, line);
    assert!(events.len() <= EVENTS_PER_LINE_MAX, "{} events of one line", events.len());
    if stream == LogStreamName::Stderr {
        let only_logs = events.iter().all(|event| matches!(event, EventData::Log { .. }));
        assert!(only_logs, "standard error was believed: {events:?}");
    }
    events.into_iter()
}

/// Checks bounds and characters; returns the bytes it shows, without the CLI's own line.
fn check_event(event: &EventData) -> usize {
    check_json(event);
    let (shown, raw) = match event {
        EventData::Log { text, .. } => {
            assert_text(text, TEXT_BYTES_MAX);
            (text.len(), None)
        }
        EventData::Message { text, raw } | EventData::Thought { text, raw } => {
            assert_text(text, TEXT_BYTES_MAX);
            assert!(!text.trim().is_empty());
            (text.len(), raw.as_ref())
        }
        EventData::Tool { name, call_id, summary, raw, .. } => {
            assert_line(name, NAME_BYTES_MAX);
            assert!(!name.is_empty());
            let call_id = call_id.as_deref().unwrap_or_default();
            assert_line(call_id, NAME_BYTES_MAX);
            let summary = summary.as_deref().unwrap_or_default();
            assert_line(summary, SUMMARY_BYTES_MAX);
            (name.len() + call_id.len() + summary.len(), raw.as_ref())
        }
        EventData::Usage { usage, raw } => {
            check_usage(usage);
            (0, raw.as_ref())
        }
        EventData::Attention(attention) => {
            assert_line(&attention.code, NAME_BYTES_MAX);
            assert_line(&attention.message, SUMMARY_BYTES_MAX + 200);
            (attention.message.len(), None)
        }
        other => panic!("no agent may say {other:?}"),
    };
    assert!(raw.is_none_or(|raw| raw.len() <= RAW_BYTES_MAX));
    shown
}

fn check_usage(usage: &outpost_types::Usage) {
    assert_line(usage.model_id.as_deref().unwrap_or_default(), NAME_BYTES_MAX);
    let believable = |cost: f64| cost.is_finite() && cost > 0.0 && cost < 1e6;
    assert!(usage.cost_usd.is_none_or(believable), "{:?}", usage.cost_usd);
}

/// An event is one line of `events.jsonl` and of an event stream, and reads back as it was.
fn check_json(event: &EventData) {
    let line = serde_json::to_string(event).expect("an event has a JSON form");
    assert!(!line.bytes().any(|byte| byte < b' '), "{line}");
    let back: EventData = serde_json::from_str(&line).expect("what we wrote is readable");
    // The last digit of a float may be lost.
    assert_eq!(without_cost(back), without_cost(event.clone()));
}

fn without_cost(mut event: EventData) -> EventData {
    if let EventData::Usage { usage, .. } = &mut event {
        usage.cost_usd = None;
    }
    event
}

fn check_report(report: &AgentReport) {
    assert_text(report.summary.as_deref().unwrap_or_default(), TEXT_BYTES_MAX);
    assert_line(report.session_id.as_deref().unwrap_or_default(), NAME_BYTES_MAX);
    assert_line(report.model_id.as_deref().unwrap_or_default(), NAME_BYTES_MAX);
    if let Some(usage) = &report.usage {
        check_usage(usage);
    }
    if let Some((_, message)) = &report.error {
        assert_line(message, ERROR_BYTES_MAX);
        assert!(!message.is_empty());
    }
}

/// Words alone never make a success of a process that failed, and failures can be shown.
fn check_verdicts(profile: &AgentProfile, report: &AgentReport) {
    let exits =
        [(Some(0), None), (Some(1), None), (Some(137), None), (None, Some(15)), (None, None)];
    for (code, signal) in exits {
        for changed in [false, true] {
            match judge(profile, report, &Exit { code, signal, ..Exit::default() }, changed) {
                Verdict::Completed => {
                    assert_eq!((code, signal), (Some(0), None));
                    assert_ne!(report.finished, Some(FinalStatus::Failed));
                    let needs_event = profile.success == outpost_agents::SuccessRule::FinalEvent;
                    assert!(!needs_event || report.finished.is_some());
                }
                Verdict::Failed(failure) => {
                    assert_line(&failure.message, FAILURE_BYTES_MAX);
                    assert_line(failure.hint.as_deref().unwrap_or_default(), FAILURE_BYTES_MAX);
                }
            }
        }
    }
}

/// A prompt, and the names of tracked files behind it, each after a NUL. Two bytes before each name
/// are the size of its file, KiB.
pub fn agent_files(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let prompt = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let tracked = parts.filter_map(|part| {
        let (size, name) = part.split_at_checked(2)?;
        let kib = u64::from(size[0].saturating_sub(b'0')) + u64::from(size[1].saturating_sub(b'0'));
        let path = std::str::from_utf8(name).ok()?.to_owned();
        Some(TrackedFile { path, size_bytes: kib * 1024 })
    });
    let tracked_files: Vec<TrackedFile> = tracked.collect();
    for agent in AGENTS[0].iter() {
        check_invocation(agent.as_ref(), &prompt, &tracked_files);
    }
}

fn check_invocation(agent: &dyn Agent, prompt: &str, tracked_files: &[TrackedFile]) {
    const INSTRUCTIONS: [&str; 3] = ["CLAUDE.md", ".claude/CLAUDE.md", "AGENTS.md"];
    let invoke = |tracked_files: Vec<TrackedFile>| {
        let run = RunSpec {
            prompt: prompt.to_owned(),
            prompt_path: "/workspace/a/task.md".to_owned(),
            model_id: agent.profile().default_model.clone(),
            gateway_url: "http://127.0.0.1:4100".to_owned(),
            handle: "handle".to_owned(),
            home: "/home/agent".to_owned(),
            workdir: "/workspace/a/repo".to_owned(),
            path: "/usr/bin".to_owned(),
            session_id: None,
            tracked_files,
        };
        agent.invocation(&run, &installed(agent)).expect("nothing in a repository refuses a run")
    };
    // Aider is given files; the others are told at most that there are instructions.
    let is_aider = agent.profile().id == BuiltinAgent::Aider.into();
    let mut known = tracked_files.to_vec();
    known.retain(|file| !is_aider && INSTRUCTIONS.contains(&file.path.as_str()));
    let (real, mut without) = (invoke(tracked_files.to_vec()), invoke(known));
    let added: Vec<&String> = real.argv.iter().skip(without.argv.len()).collect();
    if is_aider {
        assert_eq!(without.argv.last().map(String::as_str), Some("--"));
        check_chosen(&added, tracked_files);
        without.argv.extend(added.into_iter().cloned());
    }
    assert_eq!(real, without, "names in a repository change how the agent is started");
}

/// The files that Aider is given whole.
fn check_chosen(chosen: &[&String], tracked_files: &[TrackedFile]) {
    assert!(chosen.len() <= aider::FILES_MAX);
    for path in chosen {
        assert!(tracked_files.iter().any(|file| file.path == **path));
        assert!(!path.starts_with(['/', '.']) && !path.split('/').any(|part| part == ".."));
        assert_line(path, usize::MAX);
    }
    // A name that is listed twice is one file.
    let distinct: BTreeSet<&str> = chosen.iter().map(|path| path.as_str()).collect();
    let size = |path: &&str| {
        let sizes =
            tracked_files.iter().filter(|file| file.path == **path).map(|file| file.size_bytes);
        sizes.min().unwrap_or(0)
    };
    assert!(distinct.iter().map(size).sum::<u64>() <= aider::FILES_BYTES_MAX);
}

fn installed(agent: &dyn Agent) -> Installed {
    Installed {
        agent: agent.profile().id.clone(),
        version: String::new(),
        root: None,
        command: vec!["/opt/agent".to_owned()],
        path_dirs: Vec::new(),
        ro_paths: Vec::new(),
    }
}

/// What every text of an agent goes through. The first two bytes are the bound.
pub fn text_clean(data: &[u8]) {
    let mut feed = Feed(data);
    let bytes_max = usize::from(feed.byte()) * 8 + usize::from(feed.byte());
    let text = String::from_utf8_lossy(feed.0);
    let cleaned = parse::clean(&text, bytes_max);
    assert_text(&cleaned, bytes_max);
    assert_eq!(parse::clean(&cleaned, bytes_max), cleaned, "cleaning a clean text changes it");
    assert!(parse::clean(&text, usize::MAX).starts_with(&cleaned), "a bound changes what is kept");
    let line = parse::one_line(&text, bytes_max);
    // The sign of a cut is shown even where it has no room.
    assert_line(&line, bytes_max.max('…'.len_utf8()));
    assert!(!line.contains("  ") && line.trim() == line, "{line:?}");
    assert_eq!(parse::one_line(&line, bytes_max.max(line.len())), line);
}
