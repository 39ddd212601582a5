//! Aider, headless (`--message-file`): one turn, no tools, the reply carries the edits.
//!
//! It exits 0 on every API error and has no structured output, so `read` judges by its text. A
//! repository's `.env` and `.aider.*` files override flags (the model settings nothing overrides), so
//! they are covered. Python runs isolated (`-I`): otherwise a `json.py` in the repository would be
//! imported in place of Python's own.

mod files;
mod read;

use outpost_types::{BuiltinAgent, Provider, Tier};

use crate::agent::{
    Agent, AgentError, AgentProfile, CONCURRENCY_MAX, Invocation, RunSpec, SuccessRule,
};
use crate::environment;
use crate::installed::Installed;
use crate::parse::OutputParser;
use crate::plan::{InstallPlan, InstallStep, PlanFile, StepProgram, Tool, VersionCheck, Word};

pub use files::{FILE_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX};
pub(crate) use read::AiderParser;

/// PyPI package.
pub const PACKAGE: &str = "aider-chat";
/// Installed and tested version.
pub const VERSION: &str = "0.86.2";
/// Model used when a request names none.
pub const DEFAULT_MODEL: &str = "deepseek/deepseek-coder";
/// Longest pause between two tries, seconds. Aider doubles it from 0.25 s and gives up beyond this; its
/// own 60 make 85 s of tries. There is no flag, so [`LAUNCHER`] sets it.
const RETRY_PAUSE_SECONDS_MAX: u32 = 4;
/// Size of the map of the repository that goes before the task, tokens.
const MAP_TOKENS: &str = "1024";
/// Starts Aider with a bounded number of tries.
const LAUNCHER: &str = "launch.py";
/// Width the output is folded at, columns. Folded error lines would not be recognised.
const COLUMNS: &str = "4000";

/// Model prefixes Aider's model library routes by, with the provider and the variables for address and
/// key, and what follows the provider's address at the gateway.
const ROUTES: [(&str, Provider, &str, &str, &str); 5] = [
    ("deepseek/", Provider::Deepseek, "DEEPSEEK_API_BASE", "DEEPSEEK_API_KEY", ""),
    ("openai/", Provider::Openai, "OPENAI_API_BASE", "OPENAI_API_KEY", "/v1"),
    ("anthropic/", Provider::Anthropic, "ANTHROPIC_API_BASE", "ANTHROPIC_API_KEY", ""),
    ("gemini/", Provider::Google, "GEMINI_API_BASE", "GEMINI_API_KEY", "/v1beta"),
    ("xai/", Provider::Xai, "XAI_API_BASE", "XAI_API_KEY", "/v1"),
];

/// The provider a model name such as `deepseek/deepseek-coder` names.
#[must_use]
pub fn provider_of_prefixed(model_id: &str) -> Option<Provider> {
    ROUTES
        .iter()
        .find(|(prefix, ..)| model_id.starts_with(prefix))
        .map(|(_, provider, ..)| *provider)
}

/// The adapter.
#[derive(Debug)]
pub struct Aider {
    profile: AgentProfile,
}

impl Default for Aider {
    fn default() -> Self {
        Self {
            profile: AgentProfile {
                id: BuiltinAgent::Aider.into(),
                title: "Aider".to_owned(),
                default_model: DEFAULT_MODEL.to_owned(),
                tier: Tier::Fast,
                provider: Some(Provider::Deepseek),
                version: Some(VERSION.to_owned()),
                concurrency_max: CONCURRENCY_MAX,
                licence: "Apache-2.0".to_owned(),
                success: SuccessRule::FinalEvent,
            },
        }
    }
}

impl Agent for Aider {
    fn profile(&self) -> &AgentProfile {
        &self.profile
    }

    fn provider(&self, model_id: &str) -> Option<Provider> {
        provider_of_prefixed(model_id)
    }

    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
        let python = "venv/bin/python";
        Ok(Some(InstallPlan {
            agent: self.profile.id.clone(),
            version: VERSION.to_owned(),
            tools: vec![Tool::Python],
            files: vec![PlanFile { path: LAUNCHER.to_owned(), contents: launcher() }],
            steps: vec![venv(), pip(python)],
            remove: Vec::new(),
            checks: vec!["venv/pyvenv.cfg".to_owned()],
            command: vec![
                Word::File(python.to_owned()),
                Word::Text("-I".to_owned()),
                Word::Text("-B".to_owned()),
                Word::File(LAUNCHER.to_owned()),
            ],
            path_dirs: Vec::new(),
            version_check: VersionCheck {
                args: vec!["--version".to_owned()],
                expect: VERSION.to_owned(),
            },
            installed_bytes: 690_000_000,
        }))
    }

    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError> {
        run.validate()?;
        if run.session_id.is_some() {
            return Err(AgentError::NoResume(self.profile.id.clone()));
        }
        let (_, provider, base_variable, key_variable, suffix) = ROUTES
            .iter()
            .find(|(prefix, ..)| run.model_id.starts_with(prefix))
            .ok_or_else(|| AgentError::Field {
                field: "modelId",
                problem:
                    "must begin with deepseek/, openai/, anthropic/, gemini/ or xai/ for aider"
                        .to_owned(),
            })?;
        let base_url = format!("{}{suffix}", run.base_url(*provider));
        let mut invocation = environment::base(run, installed);
        flags(&mut invocation, run);
        invocation.args(["--set-env", &format!("{base_variable}={base_url}")]);
        invocation.set(base_variable, &base_url);
        invocation.set(key_variable, &run.handle);
        invocation.set("LITELLM_LOCAL_MODEL_COST_MAP", "True");
        invocation.set("COLUMNS", COLUMNS);
        // A fresh price list, or Aider asks a host for one; it must not be empty, and the library
        // brings the prices.
        invocation
            .home_file(".aider/caches/model_prices_and_context_window.json", "{\"outpost\": {}}\n");
        invocation.mask(".env", "");
        invocation.mask(".aider.conf.yml", "{}\n");
        invocation.mask(".aider.model.settings.yml", "[]\n");
        invocation.mask(".aider.model.metadata.json", "{}\n");
        invocation.litter = vec![".aider*".to_owned()];
        invocation.args(["--"]);
        let chosen = files::choose(&run.prompt, &run.tracked_files);
        invocation.args(chosen);
        Ok(invocation)
    }

    fn session_paths(&self) -> &'static [&'static str] {
        &[]
    }

    fn parser(&self) -> Box<dyn OutputParser> {
        Box::new(AiderParser::default())
    }
}

fn flags(invocation: &mut Invocation, run: &RunSpec) {
    invocation.args([
        "--model",
        &run.model_id,
        "--message-file",
        &run.prompt_path,
        "--yes-always",
        "--no-check-update",
        "--analytics-disable",
        "--no-show-model-warnings",
        "--no-show-release-notes",
        "--no-gitignore",
        "--no-pretty",
        "--no-fancy-input",
        "--no-auto-commits",
        "--no-dirty-commits",
        "--no-auto-lint",
        "--no-auto-test",
        "--no-suggest-shell-commands",
        "--no-detect-urls",
        "--map-tokens",
        MAP_TOKENS,
        "--chat-history-file",
        "/dev/null",
        "--input-history-file",
        "/dev/null",
    ]);
}

fn launcher() -> String {
    format!(
        "import sys\n\nimport aider.models\n\n\
         # Before anything else reads it.\n\
         aider.models.RETRY_TIMEOUT = {RETRY_PAUSE_SECONDS_MAX}\n\n\
         from aider.main import main  # noqa: E402\n\n\
         sys.exit(main())\n"
    )
}

fn venv() -> InstallStep {
    InstallStep {
        title: "make a Python environment".to_owned(),
        program: StepProgram::Tool(Tool::Python),
        args: ["-m", "venv", "venv"].map(str::to_owned).to_vec(),
        env: Vec::new(),
    }
}

/// Wheels only: building a source package would run its code.
fn pip(python: &str) -> InstallStep {
    let requirement = format!("{PACKAGE}=={VERSION}");
    let args = [
        "-I",
        "-m",
        "pip",
        "install",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
        &requirement,
    ];
    InstallStep {
        title: format!("pip install {requirement}"),
        program: StepProgram::Staged(python.to_owned()),
        args: args.map(str::to_owned).to_vec(),
        env: Vec::new(),
    }
}
