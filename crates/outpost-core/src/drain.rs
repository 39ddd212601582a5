//! Hosts and agents of which nothing new is started, by the operator's wish.

use std::collections::BTreeMap;

use outpost_types::{AgentId, Timestamp};
use serde::{Deserialize, Serialize};

/// A wish that nothing new be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Since when.
    pub since: Timestamp,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All of them: of the host and of single agents, each for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drains {
    /// Of the whole host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Drain>,
    /// Of single agents; as many as somebody named of those there are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<AgentId, Drain>,
}

impl Drains {
    /// Whether nothing of this agent is started.
    #[must_use]
    pub fn hold(&self, agent: &AgentId) -> bool {
        self.host.is_some() || self.agents.contains_key(agent)
    }

    /// Adds a wish for an agent, or for the host. Of one that is there already, the reason changes.
    pub fn begin(&mut self, agent: Option<AgentId>, reason: Option<String>, now: Timestamp) {
        let drain = match agent {
            Some(agent) => self.agents.entry(agent).or_insert(Drain { since: now, reason: None }),
            None => self.host.get_or_insert(Drain { since: now, reason: None }),
        };
        drain.reason = reason;
    }

    /// Takes one back; whether there was one.
    pub fn end(&mut self, agent: Option<&AgentId>) -> bool {
        match agent {
            Some(agent) => self.agents.remove(agent).is_some(),
            None => self.host.take().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_agents_are_drained_each_for_itself() {
        let agent = |name: &str| name.parse::<AgentId>().unwrap();
        let (early, late) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
        let mut drains = Drains::default();
        assert!(!drains.hold(&agent("claude")) && !drains.end(None));
        drains.begin(Some(agent("claude")), None, early);
        drains.begin(Some(agent("claude")), Some("upgrade".into()), late);
        assert_eq!(drains.agents[&agent("claude")].since, early, "it goes on");
        assert_eq!(drains.agents[&agent("claude")].reason.as_deref(), Some("upgrade"));
        assert!(drains.hold(&agent("claude")) && !drains.hold(&agent("codex")));
        drains.begin(None, None, late);
        assert!(drains.hold(&agent("codex")));
        let text = serde_json::to_string(&drains).unwrap();
        assert_eq!(serde_json::from_str::<Drains>(&text).unwrap(), drains);
        assert!(drains.end(None) && drains.hold(&agent("claude")));
        assert!(drains.end(Some(&agent("claude"))));
        assert_eq!(drains, Drains::default());
    }
}
