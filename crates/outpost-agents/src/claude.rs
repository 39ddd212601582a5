//! Claude Code, headless (`claude -p`), reading the prompt from standard input.
//!
//! A repository's `.claude/settings.json` can redirect the agent and run hooks, and wins over the
//! environment; so only user settings are loaded and no MCP server but those given by flag. That also
//! drops the repository's CLAUDE.md, which is wanted: a user-level CLAUDE.md imports it.

use outpost_types::{BuiltinAgent, Provider, Tier};

use crate::agent::{
    Agent, AgentError, AgentProfile, CONCURRENCY_MAX, Invocation, RunSpec, SuccessRule,
};
use crate::environment;
use crate::installed::Installed;
use crate::messages::MessagesParser;
use crate::parse::OutputParser;
use crate::plan::{InstallPlan, Platform, Tool, VersionCheck, Word, npm_install, package_json};

/// npm package.
pub const PACKAGE: &str = "@anthropic-ai/claude-code";
/// Installed and tested version.
pub const VERSION: &str = "2.1.330";
/// Model used when a request names none.
pub const DEFAULT_MODEL: &str = "claude-opus-4-5-20251101";
/// Tries after the first one of a call to the model. The CLI's own 10 take three minutes on a refused key.
const RETRIES_MAX: &str = "2";
/// Files with instructions of the repository, in the order they are looked for.
const INSTRUCTIONS: [&str; 3] = ["CLAUDE.md", ".claude/CLAUDE.md", "AGENTS.md"];

/// The adapter.
#[derive(Debug)]
pub struct Claude {
    profile: AgentProfile,
}

impl Default for Claude {
    fn default() -> Self {
        Self {
            profile: AgentProfile {
                id: BuiltinAgent::Claude.into(),
                title: "Claude Code".to_owned(),
                default_model: DEFAULT_MODEL.to_owned(),
                tier: Tier::Flagship,
                provider: Some(Provider::Anthropic),
                version: Some(VERSION.to_owned()),
                concurrency_max: CONCURRENCY_MAX,
                licence: "proprietary; Anthropic's commercial terms apply".to_owned(),
                success: SuccessRule::FinalEvent,
            },
        }
    }
}

impl Agent for Claude {
    fn profile(&self) -> &AgentProfile {
        &self.profile
    }

    fn install_plan(&self) -> Result<Option<InstallPlan>, AgentError> {
        let platform = Platform::here(&self.profile.id)?;
        let native = format!("node_modules/{PACKAGE}-linux-{}", platform.npm);
        Ok(Some(InstallPlan {
            agent: self.profile.id.clone(),
            version: VERSION.to_owned(),
            tools: vec![Tool::Node, Tool::Npm],
            files: vec![package_json(PACKAGE, VERSION)],
            steps: vec![npm_install(PACKAGE, VERSION)],
            // The binary for musl systems comes along where npm cannot tell the C library apart.
            remove: vec![format!("{native}-musl")],
            checks: vec![format!("node_modules/{PACKAGE}/package.json")],
            command: vec![Word::File(format!("{native}/claude"))],
            path_dirs: Vec::new(),
            version_check: VersionCheck {
                args: vec!["--version".to_owned()],
                expect: VERSION.to_owned(),
            },
            installed_bytes: 385_000_000,
        }))
    }

    fn invocation(&self, run: &RunSpec, installed: &Installed) -> Result<Invocation, AgentError> {
        run.validate()?;
        let mut invocation = environment::base(run, installed);
        invocation.args([
            "-p",
            "--model",
            &run.model_id,
            "--output-format",
            "stream-json",
            "--verbose",
            "--dangerously-skip-permissions",
            "--setting-sources",
            "user",
            "--strict-mcp-config",
        ]);
        if let Some(session) = &run.session_id {
            invocation.args(["--resume", session]);
        }
        invocation.set("ANTHROPIC_BASE_URL", run.base_url(Provider::Anthropic));
        invocation.set("ANTHROPIC_API_KEY", &run.handle);
        // The bypass flag is refused to root unless the sandbox is announced; harmless otherwise.
        invocation.set("IS_SANDBOX", "1");
        invocation.set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        invocation.set("CLAUDE_CODE_MAX_RETRIES", RETRIES_MAX);
        invocation.set("DISABLE_AUTOUPDATER", "1");
        let imports: Vec<String> = INSTRUCTIONS
            .iter()
            .filter(|file| run.tracks(file))
            .take(1)
            .map(|file| format!("@{}/{file}\n", run.workdir))
            .collect();
        if !imports.is_empty() {
            invocation.home_file(".claude/CLAUDE.md", imports.concat());
        }
        invocation.stdin_prompt = true;
        Ok(invocation)
    }

    fn session_paths(&self) -> &'static [&'static str] {
        &[".claude/projects"]
    }

    fn parser(&self) -> Box<dyn OutputParser> {
        Box::new(MessagesParser::default())
    }
}
