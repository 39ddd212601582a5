//! What pushes branches and opens pull requests, from the configuration and the environment.

use std::path::Path;

use outpost_config::Config;
use outpost_promote::{POLL_MILLIS, Promoter, PromoterConfig};
use outpost_workspace::{REPO_BYTES_MAX_DEFAULT, Secret as Token, Workspaces};

/// Makes it. The operator's tokens are in variables of the same names as the secrets; one that is named for
/// Outpost alone goes first.
pub(crate) fn promoter(
    config: &Config,
    data_dir: &Path,
    workspaces: Workspaces,
) -> std::io::Result<Promoter> {
    let mut tokens = Vec::new();
    for forge in &config.forges {
        let name = forge.token_secret.as_str();
        let own = format!("OUTPOST_{name}");
        let set = |name: &str| std::env::var(name).ok().map(|value| value.trim().to_owned());
        let found = [own.as_str(), name].into_iter().filter_map(set).find(|it| !it.is_empty());
        tokens.extend(found.map(|token| (name.to_owned(), Token::new(token))));
    }
    let config = PromoterConfig {
        dir: data_dir.join("promotions"),
        forges: config.forges.clone(),
        tokens,
        clone_bytes_max: REPO_BYTES_MAX_DEFAULT,
        poll_millis: POLL_MILLIS,
    };
    Promoter::new(config, workspaces)
}
