//! xAI's Grok CLI, headless, reading the prompt from a file.
//!
//! The model is declared in a configuration file under HOME, which settles address, key and API even
//! for names the CLI does not list. A repository's `.grok/`, `.mcp.json` and hooks need folder trust,
//! which is not given; that also drops AGENTS.md, so a rule of ours says to read it.

use outpost_types::{BuiltinAgent, Provider, Tier};

use crate::agent::{
    Agent, AgentError, AgentProfile, CONCURRENCY_MAX, Invocation, RunSpec, SuccessRule,
};
use crate::environment;
use crate::installed::Installed;
use crate::messages::MessagesParser;
use crate::parse::OutputParser;
use crate::plan::{
    InstallPlan, InstallStep, Platform, StepProgram, Tool, VersionCheck, Word, npm_install,
    package_json,
};

/// npm package, the vendor's own.
pub const PACKAGE: &str = "@xai-official/grok";
/// Installed and tested version.
pub const VERSION: &str = "1.0.41";
/// Model used when a request names none.
pub const DEFAULT_MODEL: &str = "grok-4.1";
/// Tries after the first one. The CLI adds some of its own: 44 s pass on a server that always fails.
const RETRIES_MAX: u32 = 1;
/// Context of the model as the CLI is told, tokens.
const CONTEXT_TOKENS: u32 = 256_000;
/// Files with instructions of the repository.
const INSTRUCTIONS: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// Where the unpacked program lies.
const PROGRAM: &str = "bin/grok";
/// Unpacks the program: the package carries it compressed, for its install script to unpack.
const UNPACK: &str = "const fs=require('fs'),z=require('zlib'),{pipeline}=require('stream/promises');\
    fs.mkdirSync('bin',{recursive:true});\
    pipeline(fs.createReadStream(process.argv[1]),z.createBrotliDecompress(),\
    fs.createWriteStream(process.argv[2],{mode:0o755})).catch(e=>{console.error(e);process.exit(1)})";

/// The adapter.
#[derive(Debug)]
pub struct Grok {
    profile: AgentProfile,
}

impl Default for Grok {
    fn default() -> Self {
        Self {
            profile: AgentProfile {
                id: BuiltinAgent::Grok.into(),
                title: "Grok".to_owned(),
                default_model: DEFAULT_MODEL.to_owned(),
                tier: Tier::Fast,
                provider: Some(Provider::Xai),
                version: Some(VERSION.to_owned()),
                concurrency_max: CONCURRENCY_MAX,
                licence: "Apache-2.0".to_owned(),
                success: SuccessRule::FinalEvent,
            },
        }
    }
}

impl Agent for Grok {
    fn profile(&self) -> &AgentProfile {
        &self.profile
    }

    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
        let platform = Platform::here(&self.profile.id)?;
        let packed = format!("node_modules/{PACKAGE}-linux-{}/bin/grok.br", platform.npm);
        let unpack = InstallStep {
            title: "unpack grok".to_owned(),
            program: StepProgram::Tool(Tool::Node),
            args: vec!["-e".to_owned(), UNPACK.to_owned(), packed.clone(), PROGRAM.to_owned()],
            env: Vec::new(),
        };
        Ok(Some(InstallPlan {
            agent: self.profile.id.clone(),
            version: VERSION.to_owned(),
            tools: vec![Tool::Node, Tool::Npm],
            files: vec![package_json(PACKAGE, VERSION)],
            steps: vec![npm_install(PACKAGE, VERSION), unpack],
            remove: vec![packed],
            checks: vec![format!("node_modules/{PACKAGE}/package.json")],
            command: vec![Word::File(PROGRAM.to_owned())],
            path_dirs: Vec::new(),
            version_check: VersionCheck {
                args: vec!["--version".to_owned()],
                expect: VERSION.to_owned(),
            },
            installed_bytes: 167_000_000,
        }))
    }

    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError> {
        run.validate()?;
        let mut invocation = environment::base(run, installed);
        invocation.args([
            "--prompt-file",
            &run.prompt_path,
            "--model",
            &run.model_id,
            "--always-approve",
            "--no-auto-update",
            "--output-format",
            "streaming-messages-json",
        ]);
        if let Some(session) = &run.session_id {
            invocation.args(["--resume", session]);
        }
        let base_url = format!("{}/v1", run.base_url(Provider::Xai));
        invocation.set("XAI_API_KEY", &run.handle);
        invocation.set("GROK_XAI_API_BASE_URL", &base_url);
        invocation.set("GROK_CLI_CHAT_PROXY_BASE_URL", &base_url);
        invocation.set("GROK_TELEMETRY_ENABLED", "0");
        invocation.set("GROK_DISABLE_AUTOUPDATER", "1");
        invocation.set("GROK_TURN_SUMMARY", "0");
        invocation.set("GROK_TITLE_REFRESH", "0");
        invocation.home_file(".grok/config.toml", config(&run.model_id, &base_url));
        let files: Vec<&str> = INSTRUCTIONS.into_iter().filter(|file| run.tracks(file)).collect();
        if !files.is_empty() {
            invocation.home_file(
                ".grok/rules/repository.md",
                format!(
                    "Before you change anything, read {} at the top of the repository and follow it.\n",
                    files.join(" and ")
                ),
            );
        }
        Ok(invocation)
    }

    fn session_paths(&self) -> &'static [&'static str] {
        &[".grok/sessions"]
    }

    fn parser(&self) -> Box<dyn OutputParser> {
        Box::new(MessagesParser::default())
    }
}

/// The configuration file. What goes into quotes was validated as a token or is ours.
fn config(model: &str, base_url: &str) -> String {
    format!(
        "[cli]\nauto_update = false\n\n\
         [features]\ntelemetry = false\nturn_summary = false\ntitle_refresh = false\n\n\
         [models]\ndefault = \"{model}\"\nsession_summary = \"{model}\"\n\
         max_retries = {RETRIES_MAX}\n\n\
         [model.\"{model}\"]\nmodel = \"{model}\"\nbase_url = \"{base_url}\"\n\
         env_key = \"XAI_API_KEY\"\napi_backend = \"responses\"\n\
         context_window = {CONTEXT_TOKENS}\nmax_retries = {RETRIES_MAX}\n"
    )
}
