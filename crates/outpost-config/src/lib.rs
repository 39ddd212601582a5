//! What the operator decided: flag over environment over file over default.

pub mod datadir;
mod error;
mod file;
mod forge;
mod money;
mod pool;
mod profiles;
mod retention;
mod secret;
mod secrets;
mod webhooks;
mod workspaces;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use outpost_agents::{CustomAgentConfig, Registry};
use outpost_core::RetentionRules;
use outpost_gateway::egress::{Cidr, EgressFloor};
use outpost_runner::Money;
use outpost_types::{AgentId, Provider};

use outpost_args::{GlobalArgs, IsolationMinimum, ModelSource, ServeArgs};

use datadir::DataDir;

pub use error::{ConfigError, ConfigErrorKind};
pub use file::{ConfigFile, TEMPLATE};
pub use secret::Secret;
pub use workspaces::WorkspaceBounds;

/// Port when none is configured.
pub const PORT_DEFAULT: u16 = 7711;
/// Dispatches at once on this host when not configured.
pub const CONCURRENCY_DEFAULT: u32 = 10;
/// Most dispatches at once on one host.
pub const CONCURRENCY_MAX: u32 = 1_000;
/// Most host names that may be allowed.
const ALLOWED_HOSTS_MAX: usize = 64;

/// A model provider as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProviderConfig {
    /// Address instead of the provider's own.
    pub base_url: Option<String>,
    /// Environment variable that holds the key, instead of the usual ones.
    pub key_env: Option<String>,
}

/// Everything that is needed to start a server. Relative paths are made absolute when it is read.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where agent CLIs are installed.
    pub agents_dir: PathBuf,
    /// Address to listen on; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// The listen address was chosen by the operator.
    pub listen_chosen: bool,
    /// Address clients use, without a slash at the end.
    pub public_url: Option<String>,
    /// Host names accepted beside the server's own.
    pub allowed_hosts: Vec<String>,
    /// File with the admin key.
    pub admin_key_file: PathBuf,
    /// Requests per key and minute.
    pub rate_limit_per_minute: Option<NonZeroU32>,
    /// Most dispatches at once on this host.
    pub concurrency: u32,
    /// Most dispatches at once of a tenant that has no quota of its own.
    pub tenant_concurrency: Option<u32>,
    /// Most dispatches at once of single agents; others have their profile's own number.
    pub agent_concurrency: BTreeMap<AgentId, u32>,
    /// Repositories may be paths of this machine.
    pub allow_local_repos: bool,
    /// Least isolation.
    pub isolation_minimum: IsolationMinimum,
    /// Which models answer.
    pub model: ModelSource,
    /// Script of the scripted provider; the demo's when absent.
    pub script: Option<PathBuf>,
    /// Providers as configured; absent ones have their defaults.
    pub providers: BTreeMap<Provider, ProviderConfig>,
    /// Agents the operator declared.
    pub custom_agents: Vec<CustomAgentConfig>,
    /// What sandboxes may reach at most.
    pub network: EgressFloor,
    /// Prices, and what may be spent.
    pub money: Money,
    pub pool: outpost_runner::WarmSettings,
    /// What the setup commands of repositories may reach.
    pub setup_network: outpost_workspace::SetupNetwork,
    /// For how long records and files are kept.
    pub retention: RetentionRules,
    /// Addresses that are not public and that webhooks may lead to.
    pub webhook_ranges: Vec<Cidr>,
    /// How much workspaces may take, and for how long.
    pub workspaces: WorkspaceBounds,
    /// Files with what agents are told of how the operator and the tenants work.
    pub profiles: profiles::ProfileFiles,
    /// Code hosts that promotions may push to.
    pub forges: Vec<outpost_promote::ForgeHost>,
    /// File with the key of the secrets, where one was named.
    pub secrets_key_file: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration of `outpost serve` with these flags, or of any other command.
    pub fn load(global: &GlobalArgs, serve: &ServeArgs) -> Result<Self, ConfigError> {
        let (file, dir) = file::find(global)?;
        Self::merge(file, &dir, serve)
    }

    /// The configuration of a fresh directory, without file and flags.
    pub fn for_dir(dir: &DataDir) -> Result<Self, ConfigError> {
        Self::merge(ConfigFile::default(), dir, &ServeArgs::default())
    }

    fn merge(file: ConfigFile, dir: &DataDir, flags: &ServeArgs) -> Result<Self, ConfigError> {
        let chosen = flags.listen.or(file.listen);
        let listen =
            chosen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT)));
        let loopback = listen.ip().is_loopback();
        let script = flags.script.clone().or(file.model.script);
        let model = flags.model.or(file.model.source).unwrap_or_default();
        let config = Self {
            data_dir: dir.root().to_owned(),
            agents_dir: absolute(
                flags.agents_dir.clone().or_else(agents_dir_of_environment).or(file.agents_dir),
            )?
            .unwrap_or_else(|| dir.agents_dir()),
            listen,
            listen_chosen: chosen.is_some(),
            public_url: file.public_url,
            allowed_hosts: file.allowed_hosts,
            admin_key_file: absolute(flags.admin_key_file.clone().or(file.admin_key_file))?
                .unwrap_or_else(|| dir.admin_key_file()),
            rate_limit_per_minute: file.rate_limit_per_minute,
            concurrency: flags.concurrency.or(file.concurrency.host).unwrap_or(CONCURRENCY_DEFAULT),
            tenant_concurrency: file.concurrency.tenant,
            agent_concurrency: file.concurrency.agents,
            allow_local_repos: flags
                .allow_local_repos
                .or(file.allow_local_repos)
                .unwrap_or(loopback),
            isolation_minimum: flags.isolation_minimum.or(file.isolation.minimum).unwrap_or(
                // On a loopback address the operator is the only user and sees in each run what is
                // missing; a server for others must not start weaker than it promises.
                if loopback { IsolationMinimum::Namespaces } else { IsolationMinimum::Limits },
            ),
            model,
            network: file.network,
            money: money::money(&file.budget, &file.prices, model)?,
            pool: pool::settings(&file.pool),
            setup_network: file.setup.network,
            retention: retention::rules(file.retention)?,
            webhook_ranges: webhooks::ranges(file.webhooks)?,
            workspaces: workspaces::bounds(file.workspaces)?,
            profiles: file.context.files()?,
            script: absolute(script)?,
            providers: file::providers(file.providers)?,
            forges: forge::hosts(file.forge)?,
            custom_agents: file.agents,
            secrets_key_file: absolute(flags.secrets_key_file.clone().or(file.secrets.key_file))?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bounds = |name: &str, value: u32| {
            if (1..=CONCURRENCY_MAX).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::usage(format!(
                    "{name} is {value}; expected 1 to {CONCURRENCY_MAX}"
                )))
            }
        };
        bounds("concurrency", self.concurrency)?;
        bounds("concurrency.tenant", self.tenant_concurrency.unwrap_or(1))?;
        for (agent, value) in &self.agent_concurrency {
            bounds(&format!("concurrency.agents.{agent}"), *value)?;
        }
        if self.allowed_hosts.len() > ALLOWED_HOSTS_MAX {
            return Err(ConfigError::usage(format!(
                "allowed_hosts names {} hosts; at most {ALLOWED_HOSTS_MAX} are allowed",
                self.allowed_hosts.len()
            )));
        }
        if self.script.is_some() && self.model == ModelSource::Real {
            return Err(ConfigError::usage("a script is set, but the model is not scripted")
                .with_hint("add --model scripted, or remove the script"));
        }
        self.registry().map(|_| ())
    }

    /// All agents, built in and declared.
    pub fn registry(&self) -> Result<Registry, ConfigError> {
        Registry::new(self.custom_agents.clone())
            .map_err(|error| ConfigError::usage(format!("the configuration is wrong: {error}")))
    }

    /// Environment variables that may hold the key of `provider`.
    pub fn key_variables(&self, provider: Provider) -> Vec<String> {
        match self.providers.get(&provider).and_then(|config| config.key_env.clone()) {
            Some(name) => vec![name],
            None => provider.key_variables().iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The operator's key for `provider`, from the environment.
    pub fn provider_key(&self, provider: Provider) -> Option<Secret> {
        self.key_variables(provider)
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .map(|value| value.trim().to_owned())
            .find(|value| !value.is_empty())
            .map(Secret::new)
    }

    /// The data directory.
    pub fn dir(&self) -> DataDir {
        DataDir::new(self.data_dir.clone())
    }
}

/// For the commands that have no such flag.
fn agents_dir_of_environment() -> Option<PathBuf> {
    std::env::var_os("OUTPOST_AGENTS_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
    path.as_deref().map(std::path::absolute).transpose().map_err(ConfigError::from)
}

/// Whether `path` is a regular file.
fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, flags: &ServeArgs) -> Result<Config, ConfigError> {
        let file = file::parse(text, Path::new("config.toml"))?;
        Config::merge(file, &DataDir::new("/data".into()), flags)
    }

    #[test]
    fn defaults_are_for_one_person_on_one_machine() {
        let config = merged("", &ServeArgs::default()).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7711");
        assert!(config.allow_local_repos && !config.listen_chosen);
        assert_eq!(config.isolation_minimum, IsolationMinimum::Namespaces);
        assert_eq!(config.agents_dir, Path::new("/data/agents"));
    }

    #[test]
    fn an_open_address_is_strict() {
        let config = merged("listen = \"0.0.0.0:80\"", &ServeArgs::default()).unwrap();
        assert!(!config.allow_local_repos && config.listen_chosen);
        assert_eq!(config.isolation_minimum, IsolationMinimum::Limits);
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let flags = ServeArgs { concurrency: Some(3), ..ServeArgs::default() };
        let config = merged("[concurrency]\nhost = 7\nagents = { claude = 2 }", &flags).unwrap();
        assert_eq!(config.concurrency, 3);
        assert_eq!(config.agent_concurrency.values().sum::<u32>(), 2);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (text, name) in [
            ("[concurrency]\nhost = 0", "concurrency"),
            ("[concurrency]\ntenant = 0", "concurrency.tenant"),
            ("[concurrency.agents]\nclaude = 5000", "concurrency.agents.claude"),
            ("[model]\nscript = \"x.toml\"", "script"),
            ("[retention]\nlog_days = 0", "retention.log_days"),
            ("[workspaces]\nidle_seconds = 5", "workspaces.idle_seconds"),
            ("[workspaces]\nbytes_max = 1", "workspaces.bytes_max"),
            ("[context]\nprofiles = { \"A B\" = \"x\" }", "context.profiles"),
            ("[workspaces]\ncache_bytes_max = 0", "workspaces.cache_bytes_max"),
            ("[providers.anthropic]\nbase_url = \"ftp://x\"", "providers.anthropic.base_url"),
            ("[providers.anthropic]\nkey_env = \"A B\"", "providers.anthropic.key_env"),
        ] {
            let error = merged(text, &ServeArgs::default()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn the_key_variable_can_be_chosen() {
        let text = "[providers.openai]\nkey_env = \"MY_KEY\"";
        let config = merged(text, &ServeArgs::default()).unwrap();
        assert_eq!(config.key_variables(Provider::Openai), ["MY_KEY"]);
        assert_eq!(config.key_variables(Provider::Xai), ["XAI_API_KEY", "GROK_API_KEY"]);
    }
}
