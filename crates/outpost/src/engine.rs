//! Puts the engine together: store, sandbox, workspaces, gateway, models, keys.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use outpost_agents::Registry;
use outpost_core::Limits;
use outpost_engine::{Engine, EngineConfig, KeyRefusal, Machine, Secrets, World as _};
use outpost_gateway::gateway::{Gateway, base_url_variable};
use outpost_gateway::hooks::HookClient;
use outpost_runner::{LocalRunner, LocalRunnerConfig, Models, Money, Network};
use outpost_sandbox::{LauncherOptions, LinuxSandbox, SandboxPolicy};
use outpost_scripted::{SCRIPTED_KEY, Script, ScriptedHandle, ScriptedProvider};
use outpost_server::{AuthError, Backend, SigningKey};
use outpost_store::{SqliteOptions, SqliteStore, Store, USAGE_ROWS_MAX};
use outpost_types::limits::WAITING_COUNT_MAX;
use outpost_types::{Admission, Api, ApiError, ByteStream, Caller, DispatchId, Provider, TenantId};
use outpost_workspace::{
    PersistentConfig, REPO_BYTES_MAX_DEFAULT, Secret as Token, Workspaces, WorkspacesConfig,
};
use sha2::{Digest as _, Sha256};

use crate::admin::AdminKey;
use outpost_args::{IsolationMinimum, ModelSource};
use outpost_config::Config;
use outpost_config::Secret;
use outpost_config::datadir;

/// Variables of the host that may hold a token for the code host; the first one set wins.
const TOKEN_VARIABLES: [&str; 2] = ["OUTPOST_GITHUB_TOKEN", "GITHUB_TOKEN"];
/// Variable of the host with the code host's address, for an enterprise server.
const CODE_HOST_VARIABLE: &str = "OUTPOST_GITHUB_URL";
const CODE_HOST_DEFAULT: &str = "https://github.com";

/// An engine and what the server needs beside it.
pub(crate) struct Assembly {
    pub(crate) key: Secret,
    pub(crate) signing_key: SigningKey,
    pub(crate) api: Arc<dyn Api>,
    pub(crate) backend: Arc<dyn Backend>,
    engine: Engine,
    sandbox: Arc<LinuxSandbox>,
    scripted: Option<ScriptedHandle>,
}

/// What becomes of running agents when the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agents {
    /// They are ended, and what they changed is collected.
    End,
    /// They go on; the next server takes them up.
    Leave,
}

/// Puts an engine together and starts it.
pub(crate) async fn assemble(config: &Config) -> anyhow::Result<Assembly> {
    // Both end up in mounts, where links and dots have no place.
    let data_dir = &config.data_dir.canonicalize()?;
    std::fs::create_dir_all(&config.agents_dir)?;
    let agents_dir = config.agents_dir.canonicalize()?;
    let store = open_store(config).await?;
    let key = datadir::admin_key(&config.admin_key_file, config.listen.ip().is_loopback())?;
    let admin = AdminKey::new(&key, &config.admin_key_file, data_dir)?;
    admin.retire_replaced(&store).await?;
    let store: Arc<dyn Store> = Arc::new(store);
    let key_file = config.secrets_key_file(data_dir);
    let secrets = Arc::new(Secrets::new(Arc::clone(&store), key_file, Arc::new(Machine)));
    let sandbox = Arc::new(open_sandbox(config)?);
    let (models, scripted) = models(config).await?;
    let workspaces = tokio::task::spawn_blocking({
        let config = workspaces_config(config, data_dir);
        move || Workspaces::new(config)
    })
    .await??;
    let promoter = crate::promoter::promoter(config, data_dir, workspaces.clone())?;
    let attempts_dir = data_dir.join("attempts");
    private_dir(&attempts_dir)?;
    private_dir(&data_dir.join("dispatches"))?;
    let runner = LocalRunner::new(
        LocalRunnerConfig {
            attempts_dir,
            ahead_dir: data_dir.join("ahead"),
            agents_dir,
            money: config.money.clone(),
            network: Network { floor: config.network.clone(), ..Network::default() },
            secrets: Arc::clone(&secrets) as Arc<dyn outpost_types::SecretSource>,
            warm: config.pool.clone(),
            setup_network: config.setup_network,
            profiles: config.read_profiles()?,
        },
        registry(config)?,
        models,
        Arc::clone(&sandbox) as Arc<dyn outpost_sandbox::Sandbox>,
        workspaces,
        Gateway::new()?,
    )
    .map_err(|problem| anyhow::anyhow!("[pool] of the configuration: {problem}"))?;
    recall_the_day(&config.money, store.as_ref()).await?;
    let engine_config = EngineConfig {
        data_dir: data_dir.clone(),
        limits: limits(config)?,
        waiting_count_max: WAITING_COUNT_MAX,
        secrets,
        retention: config.retention,
        hooks: HookClient::new(config.webhook_ranges.clone())?,
    };
    let engine = Engine::open(engine_config, store, Arc::new(runner), Arc::new(Machine)).await?;
    engine.promote_with(promoter).await?;
    let caller = admin.admit(&engine).await?;
    Ok(Assembly {
        signing_key: signing_key(&key),
        key,
        api: Arc::new(engine.api(Arc::clone(&caller))),
        backend: Arc::new(EngineBackend { engine: engine.clone() }),
        engine,
        sandbox,
        scripted,
    })
}

/// Counts to each tenant's day what the records say was spent on it; what live attempts spent is theirs to say.
async fn recall_the_day(money: &Money, store: &dyn Store) -> anyhow::Result<()> {
    let today = outpost_types::Day::of(Machine.now()).number();
    let rows = store.usage(None, today..=today).await?;
    if rows.len() >= USAGE_ROWS_MAX as usize {
        tracing::warn!(
            "more was used today than is read: some tenants' days begin with less than they spent"
        );
    }
    for row in rows {
        money.ledger.seed(&row.tenant, row.day, row.total.cost.plus(row.total.assumed))?;
    }
    Ok(())
}

impl Assembly {
    /// Closes everything.
    pub(crate) async fn close(self, agents: Agents) -> anyhow::Result<()> {
        match agents {
            Agents::Leave => {
                self.engine.leave().await;
                self.sandbox.disconnect().await;
            }
            Agents::End => {
                self.engine.close().await;
                if let Err(error) = self.sandbox.shut_down().await {
                    tracing::warn!(%error, "the sandbox launcher did not end cleanly");
                }
            }
        }
        if let Some(scripted) = self.scripted {
            scripted.shutdown().await;
        }
        Ok(())
    }
}

/// The agents; with a scripted model nothing is spent, whatever their CLIs reckon.
fn registry(config: &Config) -> anyhow::Result<Registry> {
    let registry = config.registry()?;
    Ok(match config.model {
        ModelSource::Real => registry,
        ModelSource::Scripted => registry.rehearsing(),
    })
}

async fn open_store(config: &Config) -> anyhow::Result<SqliteStore> {
    let options = SqliteOptions::new(&config.data_dir, u128::from_le_bytes(random()?));
    Ok(tokio::task::spawn_blocking(move || SqliteStore::open(&options)).await??)
}

/// Makes a directory for this user only: the operator's data directory may be open to readers.
fn private_dir(dir: &Path) -> anyhow::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("{} cannot be made", dir.display()))
        }
        _ => Ok(()),
    }
}

fn open_sandbox(config: &Config) -> anyhow::Result<LinuxSandbox> {
    let dir = config.data_dir.join("launcher");
    private_dir(&dir)?;
    let policy = match config.isolation_minimum {
        IsolationMinimum::Namespaces => SandboxPolicy::allow_missing_limits(),
        IsolationMinimum::Limits => SandboxPolicy::default(),
    };
    Ok(LinuxSandbox::new(LauncherOptions::new(dir.join("socket")), policy))
}

async fn models(config: &Config) -> anyhow::Result<(Models, Option<ScriptedHandle>)> {
    match config.model {
        ModelSource::Real => {
            Ok((Models::from_environment(|name: &str| lookup(config, name)), None))
        }
        ModelSource::Scripted => {
            let script = match &config.script {
                Some(path) => Script::load(path)?,
                None => Script::demo()?,
            };
            let provider = ScriptedProvider::new(script).start(([127, 0, 0, 1], 0).into()).await?;
            Ok((Models::scripted(&provider.url(), SCRIPTED_KEY)?, Some(provider)))
        }
    }
}

/// A variable of the environment, as the configuration redirects it.
fn lookup(config: &Config, name: &str) -> Option<String> {
    for provider in Provider::ALL {
        let Some(configured) = config.providers.get(&provider) else { continue };
        if let (Some(url), true) = (&configured.base_url, name == base_url_variable(provider)) {
            return Some(url.clone());
        }
        if let (Some(variable), true) =
            (&configured.key_env, provider.key_variables().contains(&name))
        {
            return std::env::var(variable).ok();
        }
    }
    std::env::var(name).ok()
}

fn workspaces_config(config: &Config, data_dir: &Path) -> WorkspacesConfig {
    let variable = |name: &&str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    WorkspacesConfig {
        cache_dir: data_dir.join("repos"),
        allow_local: config.allow_local_repos,
        github_base: std::env::var(CODE_HOST_VARIABLE)
            .unwrap_or_else(|_| CODE_HOST_DEFAULT.to_owned()),
        repo_bytes_max: REPO_BYTES_MAX_DEFAULT,
        cache_bytes_max: config.workspaces.cache_bytes_max,
        persistent: PersistentConfig {
            dir: data_dir.join("workspaces"),
            bytes_max: config.workspaces.bytes_max,
            idle_seconds_max: config.workspaces.idle_seconds,
        },
        git: find_program("git").unwrap_or_else(|| "/usr/bin/git".into()),
        token: TOKEN_VARIABLES.iter().find_map(variable).map(Token::new),
    }
}

/// The operator's numbers; agents without one of their own have their profile's.
fn limits(config: &Config) -> anyhow::Result<Limits> {
    let registry = config.registry()?;
    let of_profiles = registry.iter().map(|agent| {
        let profile = agent.profile();
        (profile.id.clone(), profile.concurrency_max)
    });
    let mut agent_attempts_max: BTreeMap<_, _> = of_profiles.collect();
    agent_attempts_max.extend(config.agent_concurrency.clone());
    Ok(Limits {
        host_attempts_max: config.concurrency,
        tenant_attempts_max: config.tenant_concurrency,
        tenant_attempts_max_of: BTreeMap::new(),
        agent_attempts_max_default: config.concurrency,
        agent_attempts_max,
    })
}

/// Signs artifact addresses: the same after a restart, and of no use to whoever holds only it.
fn signing_key(admin_key: &Secret) -> SigningKey {
    const DOMAIN: &[u8] = b"outpost artifact addresses\n";
    SigningKey::new(
        Sha256::new().chain_update(DOMAIN).chain_update(admin_key.expose()).finalize().into(),
    )
}

/// The first program of that name in `PATH`, as an absolute path.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the system gives no randomness")?;
    Ok(bytes)
}

/// The engine as the HTTP server sees it.
struct EngineBackend {
    engine: Engine,
}

#[async_trait]
impl Backend for EngineBackend {
    fn authenticate(&self, key: &str) -> Result<Admission, AuthError> {
        self.engine.authenticate(key).map_err(|refusal| match refusal {
            KeyRefusal::Unknown => AuthError::Unknown,
            KeyRefusal::Revoked => AuthError::Revoked,
            KeyRefusal::Expired => AuthError::Expired,
            KeyRefusal::Suspended => AuthError::Suspended,
        })
    }

    fn api(&self, caller: &Arc<Caller>) -> Arc<dyn Api> {
        Arc::new(self.engine.api(Arc::clone(caller)))
    }

    async fn ready(&self) -> Result<(), String> {
        self.engine.ready().await
    }

    async fn artifact_for_signed(
        &self,
        _tenant: &TenantId,
        id: DispatchId,
        name: &str,
    ) -> Result<ByteStream, ApiError> {
        self.engine.open_artifact(id, name).await
    }
}
