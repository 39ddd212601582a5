//! Agents, the model providers behind them, and the sizes they run in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{IdError, is_name};
use crate::limits::AGENT_ID_BYTES_MAX;

/// Name of an agent: one of the five built in, or one the operator declared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(String);

impl AgentId {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The built-in agent of that name.
    #[must_use]
    pub fn builtin(&self) -> Option<BuiltinAgent> {
        BuiltinAgent::ALL.into_iter().find(|agent| agent.as_str() == self.0)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for AgentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_name(text, AGENT_ID_BYTES_MAX) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::NotAName(AGENT_ID_BYTES_MAX))
        }
    }
}

impl TryFrom<String> for AgentId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.0
    }
}

impl From<BuiltinAgent> for AgentId {
    fn from(agent: BuiltinAgent) -> Self {
        Self(agent.as_str().to_owned())
    }
}

/// The agents Outpost knows how to drive without configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltinAgent {
    /// Claude Code.
    Claude,
    /// Codex CLI.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Aider.
    Aider,
    /// xAI's Grok CLI.
    Grok,
}

impl BuiltinAgent {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 5] = [Self::Claude, Self::Codex, Self::Gemini, Self::Aider, Self::Grok];

    /// As in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Aider => "aider",
            Self::Grok => "grok",
        }
    }
}

/// A company whose model API an agent talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses and Chat Completions.
    Openai,
    /// Google Gemini.
    Google,
    /// DeepSeek, Chat Completions.
    Deepseek,
    /// xAI, Responses and Chat Completions.
    Xai,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Anthropic, Self::Openai, Self::Google, Self::Deepseek, Self::Xai];

    /// As in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Openai => "openai",
            Self::Google => "google",
            Self::Deepseek => "deepseek",
            Self::Xai => "xai",
        }
    }

    /// Environment variables of the host that may hold its key; the first one set wins.
    #[must_use]
    pub const fn key_variables(self) -> &'static [&'static str] {
        match self {
            Self::Anthropic => &["ANTHROPIC_API_KEY"],
            Self::Openai => &["OPENAI_API_KEY"],
            Self::Google => &["GEMINI_API_KEY"],
            Self::Deepseek => &["DEEPSEEK_API_KEY"],
            Self::Xai => &["XAI_API_KEY", "GROK_API_KEY"],
        }
    }
}

/// Size class of an agent's sandbox.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// 0.5 cpu, 1,024 MB, 5 GB.
    Fast,
    /// 1 cpu, 2,048 MB, 10 GB.
    Balanced,
    /// 2 cpu, 4,096 MB, 20 GB.
    Flagship,
}

impl Tier {
    /// What a sandbox of this tier may use.
    #[must_use]
    pub const fn resources(self) -> Resources {
        const MIB: u64 = 1024 * 1024;
        const GIB: u64 = 1024 * MIB;
        match self {
            Self::Fast => {
                Resources { cpu_millis: 500, memory_bytes: 1024 * MIB, disk_bytes: 5 * GIB }
            }
            Self::Balanced => {
                Resources { cpu_millis: 1000, memory_bytes: 2048 * MIB, disk_bytes: 10 * GIB }
            }
            Self::Flagship => {
                Resources { cpu_millis: 2000, memory_bytes: 4096 * MIB, disk_bytes: 20 * GIB }
            }
        }
    }

    /// The tier with more memory, if there is one.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Fast => Some(Self::Balanced),
            Self::Balanced => Some(Self::Flagship),
            Self::Flagship => None,
        }
    }

    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Flagship => "flagship",
        }
    }
}

/// Limits of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Disk, bytes.
    pub disk_bytes: u64,
}
