//! The configuration file: its format, its template, where it is looked for.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use outpost_agents::CustomAgentConfig;
use outpost_gateway::egress::EgressFloor;
use outpost_gateway::gateway::PriceEntry;
use outpost_types::{AgentId, Provider};
use serde::Deserialize;

use super::forge::ForgesFile;
use super::money::BudgetFile;
use super::pool::{PoolFile, SetupFile};
use super::profiles::ContextFile;
use super::retention::RetentionFile;
use super::webhooks::WebhooksFile;
use super::workspaces::WorkspacesFile;
use super::{IsolationMinimum, ModelSource, ProviderConfig, is_file};
use crate::datadir::DataDir;
use crate::error::ConfigError;
use outpost_args::GlobalArgs;

/// Largest configuration file, bytes.
const CONFIG_BYTES_MAX: u64 = 256 * 1024;
/// Longest address of a provider, bytes.
const BASE_URL_BYTES_MAX: usize = 2_048;

/// A configuration file with every entry explained and set to its default; `outpost serve
/// --print-config` prints it, and a test reads it back.
pub const TEMPLATE: &str = include_str!("template.toml");

/// The file as written. Unknown entries are refused by name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    #[serde(default)]
    pub(crate) data_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) agents_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) listen: Option<SocketAddr>,
    #[serde(default)]
    pub(crate) public_url: Option<String>,
    #[serde(default)]
    pub(crate) allowed_hosts: Vec<String>,
    #[serde(default)]
    pub(crate) admin_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) rate_limit_per_minute: Option<NonZeroU32>,
    #[serde(default)]
    pub(crate) allow_local_repos: Option<bool>,
    #[serde(default)]
    pub(crate) concurrency: ConcurrencyFile,
    #[serde(default)]
    pub(crate) pool: PoolFile,
    #[serde(default)]
    pub(crate) setup: SetupFile,
    #[serde(default)]
    pub(crate) retention: RetentionFile,
    #[serde(default)]
    pub(crate) webhooks: WebhooksFile,
    #[serde(default)]
    pub(crate) workspaces: WorkspacesFile,
    #[serde(default)]
    pub(crate) context: ContextFile,
    #[serde(default)]
    pub(crate) isolation: IsolationFile,
    #[serde(default)]
    pub(crate) model: ModelFile,
    #[serde(default)]
    pub(crate) secrets: SecretsFile,
    #[serde(default)]
    pub(crate) budget: BudgetFile,
    #[serde(default)]
    pub(crate) network: EgressFloor,
    #[serde(default)]
    pub(crate) prices: Vec<PriceEntry>,
    #[serde(default)]
    pub(crate) providers: BTreeMap<Provider, ProviderFile>,
    #[serde(default)]
    pub(crate) forge: ForgesFile,
    #[serde(default)]
    pub(crate) agents: Vec<CustomAgentConfig>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConcurrencyFile {
    #[serde(default)]
    pub(crate) host: Option<u32>,
    #[serde(default)]
    pub(crate) tenant: Option<u32>,
    #[serde(default)]
    pub(crate) agents: BTreeMap<AgentId, u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IsolationFile {
    #[serde(default)]
    pub(crate) minimum: Option<IsolationMinimum>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelFile {
    #[serde(default)]
    pub(crate) source: Option<ModelSource>,
    #[serde(default)]
    pub(crate) script: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretsFile {
    #[serde(default)]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderFile {
    #[serde(default)]
    base_url: Option<String>,
    #[serde(default)]
    key_env: Option<String>,
}

/// Finds and reads the file, and settles which data directory counts.
pub(crate) fn find(global: &GlobalArgs) -> Result<(ConfigFile, DataDir), ConfigError> {
    if let Some(path) = &global.config {
        let file = read(path)?;
        let named = global.data_dir.clone().or_else(|| file.data_dir.clone());
        return Ok((file, DataDir::locate(named.as_deref())?));
    }
    let dir = DataDir::locate(global.data_dir.as_deref())?;
    let path = dir.config_file();
    if !is_file(&path) {
        return Ok((ConfigFile::default(), dir));
    }
    let file = read(&path)?;
    if file.data_dir.as_deref().is_some_and(|named| named != dir.root()) {
        return Err(ConfigError::usage(format!(
            "data_dir in {} cannot move the directory it lies in",
            path.display()
        ))
        .with_hint("name the file with --config, or the directory with --data-dir"));
    }
    Ok((file, dir))
}

fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let wrong = |what: String| {
        ConfigError::usage(format!("the configuration file {} {what}", path.display()))
    };
    let mut text = String::new();
    let file =
        std::fs::File::open(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(wrong(format!("is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    parse(&text, path)
}

/// Reads the text of a file; errors show the line and name the entry.
pub(crate) fn parse(text: &str, path: &Path) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|error| {
        ConfigError::usage(format!(
            "the configuration file {} is wrong: {}",
            path.display(),
            error.to_string().trim_end()
        ))
        .with_hint("`outpost serve --print-config` prints every entry with its meaning")
    })
}

/// Checks the providers; the environment wins over the file.
pub(crate) fn providers(
    file: BTreeMap<Provider, ProviderFile>,
) -> Result<BTreeMap<Provider, ProviderConfig>, ConfigError> {
    let mut configs = BTreeMap::new();
    let mut file = file;
    for provider in Provider::ALL {
        let name = provider.as_str();
        let written = file.remove(&provider).unwrap_or_default();
        let variable = base_url_variable(provider);
        let (base_url, source) = match std::env::var(&variable) {
            Ok(value) if !value.is_empty() => (Some(value), variable),
            _ => (written.base_url, format!("providers.{name}.base_url")),
        };
        let config = ProviderConfig {
            base_url: base_url.map(|text| base_address(&source, &text)).transpose()?,
            key_env: written
                .key_env
                .map(|text| variable_name(&format!("providers.{name}.key_env"), text))
                .transpose()?,
        };
        if config != ProviderConfig::default() {
            configs.insert(provider, config);
        }
    }
    Ok(configs)
}

/// Environment variable with the address of a provider.
fn base_url_variable(provider: Provider) -> String {
    format!("OUTPOST_{}_BASE_URL", provider.as_str().to_ascii_uppercase())
}

fn base_address(source: &str, text: &str) -> Result<String, ConfigError> {
    let url = url::Url::parse(text).ok().filter(|url| {
        text.len() <= BASE_URL_BYTES_MAX
            && matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
    });
    url.map(|url| url.as_str().trim_end_matches('/').to_owned())
        .ok_or_else(|| {
            ConfigError::usage(format!(
                "{source} is no address: expected http:// or https:// without credentials, at most {BASE_URL_BYTES_MAX} bytes"
            ))
        })
}

fn variable_name(source: &str, text: String) -> Result<String, ConfigError> {
    let well_formed = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit());
    if well_formed {
        Ok(text)
    } else {
        Err(ConfigError::usage(format!("{source} is no name of an environment variable")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid_and_so_is_every_line_of_it() {
        parse(TEMPLATE, Path::new("template")).unwrap();
        // `#name = value` is an entry, `# text` is prose.
        let uncommented: String = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(entry) if entry.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                    entry
                }
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n");
        let file = parse(&uncommented, Path::new("template")).unwrap();
        assert_eq!(file.agents.len(), 1);
        assert!(file.listen.is_some() && file.model.source.is_some());
        providers(file.providers).unwrap();
    }

    #[test]
    fn unknown_entries_are_named_with_their_line() {
        for (text, name) in [
            ("lisen = 1", "lisen"),
            ("[concurrency]\nhots = 1", "hots"),
            ("[providers.open]\nbase_url = \"x\"", "open"),
            ("[isolation]\nminimum = \"none\"", "none"),
        ] {
            let error = parse(text, Path::new("c.toml")).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("line"), "{error}");
        }
    }
}
