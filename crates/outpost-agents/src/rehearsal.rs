//! Agents that talk to a script instead of a model: nothing is spent, so none of them reports dollars.
//!
//! The CLIs cannot know: they multiply tokens by a price list of their own. Their own lines, which are
//! kept raw, still hold what they believe.

use std::sync::Arc;

use outpost_types::{EventData, LogStreamName, Provider};

use crate::agent::{Agent, AgentError, AgentProfile, Invocation, RunSpec};
use crate::custom::CustomAgentConfig;
use crate::installed::Installed;
use crate::parse::{AgentReport, OutputParser};
use crate::plan::InstallPlan;

/// The same agent; only the reader of its output differs.
#[derive(Debug)]
pub(crate) struct Rehearsal(pub(crate) Arc<dyn Agent>);

impl Agent for Rehearsal {
    fn profile(&self) -> &AgentProfile {
        self.0.profile()
    }

    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
        self.0.install_plan()
    }

    fn bring_your_own(&self) -> Option<&CustomAgentConfig> {
        self.0.bring_your_own()
    }

    fn provider(&self, model_id: &str) -> Option<Provider> {
        self.0.provider(model_id)
    }

    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError> {
        self.0.invocation(run, installed)
    }

    fn session_paths(&self) -> &'static [&'static str] {
        self.0.session_paths()
    }

    fn parser(&self) -> Box<dyn OutputParser> {
        Box::new(Unpaid(self.0.parser()))
    }
}

/// A reader that believes no dollars.
struct Unpaid(Box<dyn OutputParser>);

impl OutputParser for Unpaid {
    fn line(&mut self, stream: LogStreamName, line: &str) -> Vec<EventData> {
        unpaid(self.0.line(stream, line))
    }

    fn flush(&mut self) -> Vec<EventData> {
        unpaid(self.0.flush())
    }

    fn finish(&mut self) -> AgentReport {
        let mut report = self.0.finish();
        if let Some(usage) = &mut report.usage {
            usage.cost_usd = None;
        }
        report
    }
}

fn unpaid(mut events: Vec<EventData>) -> Vec<EventData> {
    for event in &mut events {
        if let EventData::Usage { usage, .. } = event {
            usage.cost_usd = None;
        }
    }
    events
}
