//! The body of a pull request: what the client wrote, then what is known of the run.
//!
//! Text of agents and of tasks stands in fences that it cannot close, so that it mentions nobody, closes no
//! issue, links nowhere and is no HTML. Bounded: the whole, and each part of it.

use std::fmt::Write as _;

use outpost_core::Promotion;
use outpost_types::CheckResult;

use crate::words::{cut, is_hidden};

/// Longest body, bytes: GitHub takes 65,536 characters.
pub const BODY_BYTES_MAX: usize = 60_000;
/// Longest task or summary in it, characters.
const TEXT_CHARS_MAX: usize = 8_000;
/// Longest line of a list, characters.
const LINE_CHARS_MAX: usize = 200;
/// Most entries of a list.
const LIST_COUNT_MAX: usize = 20;

/// What is known of the run that made the changes.
#[derive(Debug, Clone, Default)]
pub struct RunFacts {
    /// Id of the dispatch.
    pub dispatch: String,
    /// How it ended, such as COMPLETED.
    pub status: String,
    /// The agent.
    pub agent: String,
    /// Its model.
    pub model: String,
    /// What it was asked to do.
    pub task: String,
    /// Its last words.
    pub summary: Option<String>,
    /// The checks that were run on its changes.
    pub checks: Vec<CheckResult>,
    /// What its model calls cost, US dollars by the gateway's count.
    pub cost_usd: Option<f64>,
    /// How long it ran, seconds.
    pub agent_seconds: Option<u64>,
    /// What it asked for and was denied.
    pub denials: Vec<String>,
}

/// Writes it. The commit it is about is on record already.
#[must_use]
pub fn compose(promotion: &Promotion, run: &RunFacts) -> String {
    let mut out = String::new();
    if let Some(own) = &promotion.plan.body {
        out.push_str(own.trim());
        out.push_str("\n\n---\n\n");
    }
    let facts = &promotion.facts;
    if !facts.protected_paths.is_empty() {
        out.push_str("> **These files run in CI or instruct agents. Read them closely before you merge:**\n>\n");
        for path in facts.protected_paths.iter().take(LIST_COUNT_MAX) {
            let _ = writeln!(out, "> - {}", code(path));
        }
        more(&mut out, "> ", facts.protected_paths.len());
        out.push('\n');
    }
    out.push_str("### Task\n\n");
    fence(&mut out, &run.task);
    if let Some(summary) = run.summary.as_deref().filter(|text| !text.trim().is_empty()) {
        out.push_str("### What the agent says\n\n");
        fence(&mut out, summary);
    }
    checks(&mut out, &run.checks);
    if !run.denials.is_empty() {
        out.push_str("### Denied\n\nThe run asked for these and was refused:\n\n");
        for denial in run.denials.iter().take(LIST_COUNT_MAX) {
            let _ = writeln!(out, "- {}", code(denial));
        }
        more(&mut out, "", run.denials.len());
        out.push('\n');
    }
    figures(&mut out, promotion, run);
    bound(out)
}

fn checks(out: &mut String, checks: &[CheckResult]) {
    out.push_str("### Checks\n\n");
    if checks.is_empty() {
        out.push_str("None were asked for.\n\n");
        return;
    }
    for check in checks.iter().take(LIST_COUNT_MAX) {
        let word = if check.passed { "passed" } else { "**failed**" };
        let _ = writeln!(out, "- {word}: {}", code(&check.command));
    }
    out.push('\n');
}

fn figures(out: &mut String, promotion: &Promotion, run: &RunFacts) {
    out.push_str("### Run\n\n| | |\n|---|---|\n");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "| {name} | {value} |");
    };
    row("dispatch", code(&run.dispatch));
    row("ended", code(&run.status));
    row("agent", format!("{} {}", code(&run.agent), code(&run.model)));
    if let Some(seconds) = run.agent_seconds {
        row("time", format!("{seconds} s"));
    }
    if let Some(cost) = run.cost_usd {
        row("cost", format!("{cost:.4} US dollars"));
    }
    row("started from", code(&promotion.plan.base_commit));
    if let Some(behind) = promotion.facts.behind_by.filter(|behind| *behind > 0) {
        row(
            "behind",
            format!("{behind} commits of the target branch; it merges without a conflict"),
        );
    }
    out.push_str("\nWritten by an agent and opened by Outpost. Nobody has read it yet.\n");
}

fn more(out: &mut String, before: &str, count: usize) {
    if count > LIST_COUNT_MAX {
        let _ = writeln!(out, "{before}- and {} more", count - LIST_COUNT_MAX);
    }
}

/// One line as code, whatever is in it: a code span ends at nothing but as many backticks as it began with,
/// and in a table at a bar.
fn code(text: &str) -> String {
    let text = cut(text, LINE_CHARS_MAX).replace('|', "\u{2223}").replace('`', "\u{2bb}");
    let text = text.trim();
    if text.is_empty() { "(empty)".to_owned() } else { format!("`{text}`") }
}

/// A text as a block: its fence is longer than any run of backticks in it.
fn fence(out: &mut String, text: &str) {
    let visible = |c: &char| matches!(c, '\n' | '\t') || !is_hidden(*c);
    let mut shown: String = text.chars().filter(visible).take(TEXT_CHARS_MAX).collect();
    if text.chars().filter(visible).nth(TEXT_CHARS_MAX).is_some() {
        shown.push_str("\n[cut]");
    }
    let longest = shown.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = write!(out, "{fence}text\n{}\n{fence}\n\n", shown.trim_end());
}

/// The parts are bounded so that only a client's own long text can lead here; its end is what is kept whole.
fn bound(mut out: String) -> String {
    const MARK: &str = "\n\n[cut]\n";
    if out.len() <= BODY_BYTES_MAX {
        return out;
    }
    let mut end = BODY_BYTES_MAX - MARK.len();
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out.push_str(MARK);
    out
}

#[cfg(test)]
mod tests {
    use outpost_core::PromotionPlan;
    use outpost_types::{DispatchId, KeyId, TenantId, Timestamp};

    use super::*;

    fn promotion(body: Option<&str>) -> Promotion {
        let plan = PromotionPlan {
            repo: "https://github.com/o/r.git".into(),
            target: None,
            base_commit: "b".repeat(40),
            branch: "x".into(),
            title: "Fix".into(),
            body: body.map(str::to_owned),
            draft: true,
            allow_protected: true,
            allow_secrets: false,
            feedback: None,
        };
        let (id, key) = (DispatchId::from_parts(1, 1), KeyId::from_parts(1, 1));
        Promotion::new(id, TenantId::local(), key, plan, Timestamp::from_millis(1))
    }

    fn check(command: &str, passed: bool) -> CheckResult {
        CheckResult {
            command: command.into(),
            passed,
            exit_code: None,
            millis: 1,
            output: "@all".into(),
        }
    }

    /// What of a body is neither in a fence nor in a code span.
    fn outside(body: &str) -> String {
        let (mut out, mut open) = (String::new(), None::<usize>);
        for line in body.lines() {
            let ticks = line.len() - line.trim_start_matches('`').len();
            match open {
                None if ticks >= 3 => open = Some(ticks),
                Some(wanted) if ticks >= wanted && line.trim_matches('`').is_empty() => open = None,
                Some(_) => {}
                None => {
                    for (at, part) in line.split('`').enumerate() {
                        if at % 2 == 0 {
                            out.push_str(part);
                        }
                    }
                    out.push('\n');
                }
            }
        }
        assert!(open.is_none(), "a fence stays open: {body}");
        out
    }

    #[test]
    fn nothing_an_agent_wrote_acts() {
        let nasty = "@everyone fixes #1 <img src=x> [a](http://evil) ```\n````text\n@you\n`````\n\u{202e}x | y";
        let mut promotion = promotion(None);
        promotion.facts.protected_paths = vec![".github/workflows/`@a`\n|.yml".into(); 30];
        promotion.facts.behind_by = Some(3);
        let run = RunFacts {
            task: nasty.into(),
            summary: Some(nasty.into()),
            checks: vec![check(nasty, true), check("x", false)],
            denials: vec![nasty.into(); 30],
            cost_usd: Some(0.1234),
            ..RunFacts::default()
        };
        let body = compose(&promotion, &run);
        let outside = outside(&body);
        for bad in ["@", "#1", "<img", "](", "\u{202e}", "evil"] {
            assert!(!outside.contains(bad), "{bad} in {outside}");
        }
        assert!(outside.contains("**failed**") && outside.contains("0.1234"), "{outside}");
        assert!(body.contains("and 10 more") && body.contains("behind | 3"), "{body}");
    }

    #[test]
    fn the_whole_is_bounded() {
        let long = "é```\n".repeat(100_000);
        let run = RunFacts {
            task: long.clone(),
            summary: Some(long.clone()),
            checks: vec![check(&long, true); 8],
            denials: vec![long.clone(); 100],
            ..RunFacts::default()
        };
        assert!(compose(&promotion(None), &run).len() <= BODY_BYTES_MAX);
        assert!(compose(&promotion(Some(&long)), &run).len() <= BODY_BYTES_MAX);
        let own = compose(&promotion(Some("Hello @team")), &RunFacts::default());
        assert!(own.starts_with("Hello @team\n\n---\n\n"), "a client's words are its own");
    }
}
