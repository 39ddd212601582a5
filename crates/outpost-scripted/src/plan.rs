//! Decides what to answer: which rule, which step, which fault.
//!
//! A pure function of script and request, but for the counters of faults with `times`. Bounded: those
//! counters. Absent: IO and time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::conversation::{Conversation, Purpose};
use crate::fill;
use crate::reply::{Reply, Usage};
use crate::script::{Action, FaultKind, Pace, Rule, Script, Step};
use crate::text_edit;
use crate::tools::{self, ToolCall};

/// Most counters kept; when there are more, all start again.
const COUNTERS_MAX: usize = 10_000;
/// Characters per token, for estimates.
const TOKEN_CHARS: u64 = 4;
/// Claude Code's words when a file is written before it was read.
const UNREAD_FILE: &str = "has not been read yet";

const NO_RULE: &str = "I am Outpost's scripted provider, not a real model. No rule of my script matches \
    this task, so I changed nothing. Add a [[rule]] whose `when` matches it, or use a real provider.";
const NO_TOOLS: &str =
    "(This client offers no tools, so the script's actions were not carried out.)";
const DONE: &str = "Done.";

/// What to answer.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) reply: Reply,
    /// Name of the rule, if one matched.
    pub(crate) rule: Option<String>,
    /// Rounds of tool calls before this answer.
    pub(crate) step: usize,
    pub(crate) fault: Option<FaultKind>,
    pub(crate) delay: std::time::Duration,
    pub(crate) pace: Pace,
}

/// How often each rule's fault struck in each conversation.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<HashMap<(usize, u64), u32>>);

impl Counters {
    /// Counts one more, unless `times` is reached.
    fn take(&self, rule: usize, conversation: u64, times: u32) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= COUNTERS_MAX {
            counts.clear();
        }
        let count = counts.entry((rule, conversation)).or_insert(0);
        let left = *count < times;
        *count += u32::from(left);
        left
    }
}

/// One answer of a rule: texts, and at most one action.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Turn {
    think: String,
    say: String,
    action: Option<Action>,
}

/// Plans the answer to a request. `id` is made from the request, `created` is the time, seconds since 1970.
pub(crate) fn plan(
    script: &Script,
    conversation: &Conversation,
    counters: &Counters,
    id: u64,
    created: u64,
) -> Plan {
    let mut plan = Plan {
        reply: Reply {
            id,
            model: conversation.model.clone(),
            think: String::new(),
            say: String::new(),
            call: None,
            usage: Usage { input_tokens: 0, cached_input_tokens: 0, output_tokens: 0 },
            created,
            chunk_chars: Pace::default().chunk_chars,
        },
        rule: None,
        step: conversation.rounds.len(),
        fault: None,
        delay: std::time::Duration::ZERO,
        pace: Pace::default(),
    };
    let mut usage = None;
    match &conversation.purpose {
        Purpose::Work => {
            if let Some((rule, fault)) = choose(script, conversation, counters) {
                plan.rule = Some(rule.name.clone());
                plan.fault = fault;
                plan.delay = rule.delay;
                plan.pace = rule.pace;
                plan.reply.chunk_chars = rule.pace.chunk_chars;
                usage = rule.usage;
                plan.step = work(rule, conversation, &mut plan.reply);
            } else {
                plan.reply.say = NO_RULE.to_owned();
            }
        }
        aside => answer_aside(aside, conversation, &mut plan.reply),
    }
    plan.reply.usage = usage.unwrap_or_else(|| estimate(conversation, &plan.reply));
    plan
}

/// The first rule that holds. A rule that has only a fault is passed over once that is used up.
fn choose<'a>(
    script: &'a Script,
    conversation: &Conversation,
    counters: &Counters,
) -> Option<(&'a Rule, Option<FaultKind>)> {
    for (index, rule) in script.rules.iter().enumerate() {
        let (task, model) = (&conversation.task, &conversation.model);
        if !rule.when.holds(task, model, conversation.dialect) {
            continue;
        }
        let fault = rule.fault.as_ref().filter(|fault| {
            let here = |step| usize::try_from(step).ok() == Some(conversation.rounds.len());
            fault.at_step.is_none_or(here)
                && fault
                    .times
                    .is_none_or(|times| counters.take(index, conversation.identity(), times))
        });
        if fault.is_some() || !rule.steps.is_empty() {
            return Some((rule, fault.map(|fault| fault.kind.clone())));
        }
    }
    None
}

fn answer_aside(purpose: &Purpose, conversation: &Conversation, reply: &mut Reply) {
    let label = conversation.task.lines().next().unwrap_or("Scripted work");
    match purpose {
        Purpose::ForcedTool(name) => {
            let tool = conversation.tools.iter().find(|tool| tool.name == *name);
            if let Some(tool) = tool {
                reply.call = Some(ToolCall::Function {
                    name: name.clone(),
                    namespace: tool.namespace.clone(),
                    arguments: fill::value(&tool.schema, label),
                });
            } else {
                reply.say = label.to_owned();
            }
        }
        Purpose::Json(schema) => reply.say = fill::value(schema, label).to_string(),
        Purpose::Aside | Purpose::Work => reply.say = "Scripted work".to_owned(),
    }
}

/// Fills in the answer of a rule; returns the number of its turn.
fn work(rule: &Rule, conversation: &Conversation, reply: &mut Reply) -> usize {
    if !tools::able(conversation) {
        reply.say = match text_edit::format(conversation) {
            Some(format) => text_edit::answer(&rule.steps, format, conversation),
            None => spoken(&rule.steps),
        };
        return 0;
    }
    let turns = turns(&rule.steps, tools::must_read_first(conversation));
    let progress = progress(&conversation.rounds);
    let number = progress.turn.min(turns.len() - 1);
    let turn = &turns[number];
    if let (true, Some(Action::Write { path, .. } | Action::Edit { path, .. })) =
        (progress.must_read, &turn.action)
    {
        reply.call = tools::call(&Action::Read(path.clone()), conversation);
        return number;
    }
    reply.think.clone_from(&turn.think);
    reply.say.clone_from(&turn.say);
    reply.call = turn.action.as_ref().and_then(|action| tools::call(action, conversation));
    if reply.call.as_ref().is_some_and(ToolCall::is_search) {
        // What is to be said goes along with the call itself.
        reply.think.clear();
        reply.say.clear();
    }
    if reply.call.is_none() && reply.say.is_empty() {
        reply.say = DONE.to_owned();
    }
    number
}

fn spoken(steps: &[Step]) -> String {
    let mut texts: Vec<&str> = steps.iter().filter_map(|step| step.say.as_deref()).collect();
    if steps.iter().any(|step| step.action.is_some()) {
        texts.push(NO_TOOLS);
    }
    texts.join("\n\n")
}

/// Steps without an action go along with the next action; what remains is the last turn.
fn turns(steps: &[Step], read_first: bool) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut turn = Turn::default();
    let mut known: Vec<&str> = Vec::new();
    for step in steps {
        append(&mut turn.think, step.think.as_deref());
        append(&mut turn.say, step.say.as_deref());
        let Some(action) = &step.action else {
            continue;
        };
        if let Action::Edit { path, .. } = action
            && read_first
            && !known.contains(&path.as_str())
        {
            let mut before = std::mem::take(&mut turn);
            before.action = Some(Action::Read(path.clone()));
            turns.push(before);
        }
        match action {
            Action::Run(_) | Action::Call { .. } => {}
            Action::Read(path) | Action::Write { path, .. } | Action::Edit { path, .. } => {
                known.push(path);
            }
        }
        turn.action = Some(action.clone());
        turns.push(std::mem::take(&mut turn));
    }
    turns.push(turn);
    turns
}

fn append(text: &mut String, more: Option<&str>) {
    if let Some(more) = more {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(more);
    }
}

struct Progress {
    turn: usize,
    must_read: bool,
}

/// Which turn is due. A write that Claude Code refused because it had not read the file is followed by
/// a read, and then made again.
fn progress(rounds: &[String]) -> Progress {
    let mut progress = Progress { turn: 0, must_read: false };
    for round in rounds {
        if progress.must_read {
            progress.must_read = false;
        } else if round.contains(UNREAD_FILE) {
            progress.must_read = true;
        } else {
            progress.turn += 1;
        }
    }
    progress
}

fn estimate(conversation: &Conversation, reply: &Reply) -> Usage {
    let input = conversation.chars as u64;
    let call = reply.call.as_ref().map_or(0, |call| call.input().len() + call.name().len());
    let output = (reply.think.chars().count() + reply.say.chars().count() + call) as u64;
    Usage {
        input_tokens: input.div_ceil(TOKEN_CHARS).max(1),
        cached_input_tokens: 0,
        output_tokens: output.div_ceil(TOKEN_CHARS).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(say: Option<&str>, action: Option<Action>) -> Step {
        Step { think: None, say: say.map(str::to_owned), action }
    }

    fn edit(path: &str) -> Action {
        Action::Edit { path: path.into(), old: "a".into(), new: "b".into() }
    }

    #[test]
    fn texts_join_the_next_action() {
        let steps = [
            step(Some("one"), None),
            step(Some("two"), Some(Action::Run("ls".into()))),
            step(None, Some(edit("x"))),
            step(None, Some(edit("x"))),
            step(Some("end"), None),
        ];
        let plain = turns(&steps, false);
        assert_eq!(plain.len(), 4);
        assert_eq!(plain[0].say, "one\n\ntwo");
        assert_eq!(plain[3], Turn { say: "end".into(), ..Turn::default() });
        let reading = turns(&steps, true);
        assert_eq!(reading.len(), 5);
        assert_eq!(reading[1].action, Some(Action::Read("x".into())));
        assert_eq!(reading[2].action, Some(edit("x")));
        assert_eq!(reading[3].action, Some(edit("x")));
    }

    #[test]
    fn a_refused_write_is_made_again_after_reading() {
        let refused = format!("File {UNREAD_FILE}. Read it first");
        let at = |rounds: &[&str]| {
            let rounds: Vec<String> = rounds.iter().map(|text| (*text).to_owned()).collect();
            let progress = progress(&rounds);
            (progress.turn, progress.must_read)
        };
        assert_eq!(at(&["ok"]), (1, false));
        assert_eq!(at(&["ok", &refused]), (1, true));
        assert_eq!(at(&["ok", &refused, "content"]), (1, false));
        assert_eq!(at(&["ok", &refused, "content", "written"]), (2, false));
    }

    #[test]
    fn counters_count_per_rule_and_conversation() {
        let counters = Counters::default();
        assert!(counters.take(0, 1, 1));
        assert!(!counters.take(0, 1, 1));
        assert!(counters.take(0, 2, 1));
        assert!(counters.take(1, 1, 1));
        assert!(!counters.take(2, 1, 0));
    }
}
