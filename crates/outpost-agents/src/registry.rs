//! All agents of one Outpost: the five built in and those of its configuration.
//!
//! Bounded: [`CUSTOM_AGENTS_MAX`].

use std::collections::BTreeMap;
use std::sync::Arc;

use outpost_types::{AgentId, BuiltinAgent};
use thiserror::Error;

use crate::agent::Agent;
use crate::custom::{Custom, CustomAgentConfig, CustomError};
use crate::rehearsal::Rehearsal;

/// Most agents a configuration may declare.
pub const CUSTOM_AGENTS_MAX: usize = 64;

/// Every agent that can be named in a request.
#[derive(Debug, Clone)]
pub struct Registry {
    agents: Vec<Arc<dyn Agent>>,
    by_id: BTreeMap<AgentId, usize>,
}

/// Why the agents of a configuration are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// One of them is not valid.
    #[error("agents[{index}]: {error}")]
    Custom {
        /// Its place in the configuration, from 0.
        index: usize,
        /// What is wrong with it.
        error: CustomError,
    },
    /// Two have the same name.
    #[error("agents[{index}].name: {name} is already taken; choose another name")]
    Duplicate {
        /// Place of the second one, from 0.
        index: usize,
        /// The name.
        name: AgentId,
    },
    /// There are too many.
    #[error("agents: {0} are declared, at most {CUSTOM_AGENTS_MAX} are allowed; remove some")]
    TooMany(usize),
}

impl Registry {
    /// The built-in agents and `custom`.
    ///
    /// # Errors
    /// [`RegistryError`] naming the entry and field that is wrong.
    pub fn new(custom: Vec<CustomAgentConfig>) -> Result<Self, RegistryError> {
        if custom.len() > CUSTOM_AGENTS_MAX {
            return Err(RegistryError::TooMany(custom.len()));
        }
        let mut registry = Self { agents: Vec::new(), by_id: BTreeMap::new() };
        for agent in BuiltinAgent::ALL {
            registry.add(builtin(agent));
        }
        for (index, config) in custom.into_iter().enumerate() {
            let agent =
                Custom::new(config).map_err(|error| RegistryError::Custom { index, error })?;
            let name = agent.profile().id.clone();
            if registry.by_id.contains_key(&name) {
                return Err(RegistryError::Duplicate { index, name });
            }
            registry.add(Arc::new(agent));
        }
        Ok(registry)
    }

    /// The same agents for a model that is a script: what they say of dollars is not reported, since
    /// nothing is spent.
    #[must_use]
    pub fn rehearsing(mut self) -> Self {
        for agent in &mut self.agents {
            *agent = Arc::new(Rehearsal(Arc::clone(agent)));
        }
        self
    }

    fn add(&mut self, agent: Arc<dyn Agent>) {
        self.by_id.insert(agent.profile().id.clone(), self.agents.len());
        self.agents.push(agent);
    }

    /// The agent of that name.
    #[must_use]
    pub fn get(&self, id: &AgentId) -> Option<&Arc<dyn Agent>> {
        self.by_id.get(id).and_then(|index| self.agents.get(*index))
    }

    /// All of them: the built-in ones first, then as configured.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Agent>> {
        self.agents.iter()
    }
}

/// The adapter of a built-in agent.
#[must_use]
pub fn builtin(agent: BuiltinAgent) -> Arc<dyn Agent> {
    match agent {
        BuiltinAgent::Claude => Arc::new(crate::claude::Claude::default()),
        BuiltinAgent::Codex => Arc::new(crate::codex::Codex::default()),
        BuiltinAgent::Gemini => Arc::new(crate::gemini::Gemini::default()),
        BuiltinAgent::Aider => Arc::new(crate::aider::Aider::default()),
        BuiltinAgent::Grok => Arc::new(crate::grok::Grok::default()),
    }
}
