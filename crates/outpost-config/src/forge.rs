//! The code hosts that promotions may push to: `[forge."host"]`.

use std::collections::BTreeMap;

use outpost_promote::{FORGES_COUNT_MAX, ForgeHost, ForgeKind, default_forges};
use serde::Deserialize;

use crate::error::ConfigError;

/// The entries by host.
pub(crate) type ForgesFile = BTreeMap<String, ForgeFile>;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgeFile {
    kind: KindFile,
    #[serde(default)]
    api_url: Option<String>,
    #[serde(default)]
    token_secret: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindFile {
    Github,
    Gitlab,
    None,
}

/// Those of the file, and github.com and gitlab.com where the file does not name them.
pub(crate) fn hosts(file: ForgesFile) -> Result<Vec<ForgeHost>, ConfigError> {
    let mut hosts = Vec::new();
    for (host, entry) in file {
        let kind = match entry.kind {
            KindFile::Github => ForgeKind::Github,
            KindFile::Gitlab => ForgeKind::Gitlab,
            KindFile::None => ForgeKind::None,
        };
        let (api, secret) = (entry.api_url.as_deref(), entry.token_secret.as_deref());
        let made = ForgeHost::new(&host, kind, api, secret).map_err(|error| {
            ConfigError::usage(format!("[forge] of the configuration: {error}"))
        })?;
        hosts.push(made);
    }
    let missing = |forge: &ForgeHost| !hosts.iter().any(|own| own.host == forge.host);
    let missing: Vec<_> = default_forges().into_iter().filter(missing).collect();
    hosts.extend(missing);
    if hosts.len() > FORGES_COUNT_MAX {
        let message = format!("[forge] names more than {FORGES_COUNT_MAX} hosts");
        return Err(ConfigError::usage(message));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_and_the_two_usual_hosts_are_always_there() {
        let text = "[\"git.example.com\"]\nkind = \"gitlab\"\ntoken_secret = \"WORK_TOKEN\"\n\
            [\"github.com\"]\nkind = \"none\"\n";
        let found = hosts(toml::from_str(text).unwrap()).unwrap();
        let shown: Vec<_> =
            found.iter().map(|it| (it.host.as_str(), it.kind, it.token_secret.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("git.example.com", ForgeKind::Gitlab, "WORK_TOKEN"),
                ("github.com", ForgeKind::None, "GIT_TOKEN"),
                ("gitlab.com", ForgeKind::Gitlab, "GITLAB_TOKEN"),
            ]
        );
        for (wrong, name) in [
            ("[\"a/b\"]\nkind = \"none\"", "a/b"),
            ("[\"h\"]\nkind = \"none\"\ntoken_secret = \"x\"", "token_secret of h"),
            ("[\"h\"]\nkind = \"github\"\napi_url = \"http://h\"", "api_url of h"),
        ] {
            let error = hosts(toml::from_str(wrong).unwrap()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(toml::from_str::<ForgesFile>("[\"h\"]\nkind = \"x\"").is_err());
    }
}
