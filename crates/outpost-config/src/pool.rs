//! How many warm workers the operator wants, and what setup commands may reach.

use std::collections::BTreeMap;

use outpost_core::pool::{AskedSizes, Stage};
use outpost_runner::WarmSettings;
use outpost_types::AgentId;
use outpost_workspace::SetupNetwork;
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolFile {
    stage: Option<StageName>,
    total: Option<u32>,
    #[serde(default)]
    agents: BTreeMap<AgentId, SizesFile>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StageName {
    Dev,
    Staging,
    Prod,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SizesFile {
    min: Option<u32>,
    max: Option<u32>,
    warm_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupFile {
    #[serde(default)]
    pub(crate) network: SetupNetwork,
}

/// The fleet's word for it; bounds are checked where the agents are known.
pub(crate) fn settings(file: &PoolFile) -> WarmSettings {
    let agents = file.agents.iter().map(|(agent, sizes)| {
        let SizesFile { min, max, warm_seconds } = *sizes;
        (agent.clone(), AskedSizes { min, max, warm_seconds })
    });
    WarmSettings {
        stage: file.stage.map(|stage| match stage {
            StageName::Dev => Stage::Dev,
            StageName::Staging => Stage::Staging,
            StageName::Prod => Stage::Prod,
        }),
        total: file.total,
        agents: agents.collect(),
    }
}
