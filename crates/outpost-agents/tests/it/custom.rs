//! Agents declared in the configuration.

use outpost_agents::{
    Agent, CUSTOM_AGENTS_MAX, CustomAgentConfig, Exit, Installed, Registry, RegistryError, Verdict,
    judge,
};
use outpost_types::LogStreamName;

const FULL: &str = r#"
name = "my-agent"
command = ["/usr/bin/env", "agent", "--task", "{prompt_file}", "--model={model}", "{\"a\":1}"]
env = { AGENT_DIR = "{workdir}/x", PLAIN = "{workdir" }
model = "m-1"
provider = "openai"
base_url_env = "OPENAI_BASE_URL"
base_url_suffix = "/v1"
key_env = "OPENAI_API_KEY"
output = "codex-json"
tier = "fast"
ro_paths = ["/usr/share"]
concurrency_max = 2
"#;

fn config(text: &str) -> CustomAgentConfig {
    toml::from_str(text).unwrap()
}

fn error(text: &str) -> String {
    match toml::from_str(text) {
        Ok(config) => Registry::new(vec![config]).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_declaration_becomes_a_command() {
    let registry = Registry::new(vec![config(FULL)]).unwrap();
    let agent = registry.get(&"my-agent".parse().unwrap()).unwrap();
    let installed = Installed::load(std::path::Path::new("/nowhere"), agent.as_ref()).unwrap();
    let mut run = super::invocation::run("m-2");
    run.prompt_path = "/outpost/{model}.md".into();
    let invocation = agent.invocation(&run, &installed).unwrap();
    assert_eq!(
        invocation.argv,
        ["/usr/bin/env", "agent", "--task", "/outpost/{model}.md", "--model=m-2", "{\"a\":1}"]
    );
    for (name, value) in [
        ("AGENT_DIR", "/workspace/01ABC/repo/x"),
        ("PLAIN", "{workdir"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:4100/openai/v1"),
        ("OPENAI_API_KEY", &run.handle),
        ("HOME", "/home/agent"),
    ] {
        assert!(invocation.env.contains(&(name.to_owned(), value.to_owned())), "{name}");
    }
    assert_eq!(agent.profile().concurrency_max, 2);
    assert_eq!(registry.iter().count(), 6);
}

#[test]
fn plain_text_is_judged_by_the_exit_code() {
    let agent = "name = \"sh\"\ncommand = [\"sh\", \"{prompt_file}\"]";
    let registry = Registry::new(vec![config(agent)]).unwrap();
    let agent = registry.get(&"sh".parse().unwrap()).unwrap();
    let mut run = super::invocation::run("");
    run.model_id.clear();
    let installed = Installed::load(std::path::Path::new("/nowhere"), agent.as_ref()).unwrap();
    assert_eq!(agent.invocation(&run, &installed).unwrap().argv, ["sh", "/outpost/prompt.md"]);
    let mut parser = agent.parser();
    parser.line(LogStreamName::Stdout, "first");
    parser.line(LogStreamName::Stdout, "\u{1b}[1mlast\u{1b}[0m");
    parser.line(LogStreamName::Stdout, "  ");
    let report = parser.finish();
    assert_eq!(report.summary.as_deref(), Some("last"));
    let exit = |code| Exit { code: Some(code), ..Exit::default() };
    assert_eq!(judge(agent.profile(), &report, &exit(0), false), Verdict::Completed);
    assert!(matches!(judge(agent.profile(), &report, &exit(1), true), Verdict::Failed(_)));
}

#[test]
fn errors_name_the_field() {
    let base = "name = \"x\"\ncommand = [\"sh\", \"{prompt_file}\"]\n";
    for (text, wanted) in [
        ("name = \"a b\"\ncommand = [\"sh\"]", "agents[0]: name "),
        ("name = \"claude\"\ncommand = [\"sh\", \"{prompt_file}\"]", "agents[0].name: claude"),
        ("name = \"x\"\ncommand = []", "command must name a program"),
        ("name = \"x\"\ncommand = [\"sh\"]", "command never gets the task"),
        ("name = \"x\"\ncommand = [\"./a\", \"{prompt_file}\"]", "command[0] must be an absolute"),
        ("name = \"x\"\ncommand = [\"sh\", \"{prompt}\"]", "command[1] uses {prompt}"),
        ("name = \"x\"\ncommand = [\"sh\", \"{prompt_file}{nope}\"]", "command[1] uses {nope}"),
        ("name = \"x\"\ncommand = [\"sh\", \"{prompt_file}{model}\"]", "model is missing"),
        ("name = \"x\"\ncommand = [\"sh\", \"{prompt_file}{base_url}\"]", "provider is missing"),
        (&format!("{base}key_env = \"K\""), "provider is missing"),
        (&format!("{base}provider = \"xai\"\nkey_env = \"1K\""), "key_env is no name"),
        (&format!("{base}provider = \"xai\"\nbase_url_suffix = \"v1\""), "base_url_suffix must"),
        (&format!("{base}env = {{ HOME = \"/\" }}"), "env.HOME is set by Outpost"),
        (&format!("{base}ro_paths = [\"/\"]"), "ro_paths[0] must be an absolute path"),
        (&format!("{base}ro_paths = [\"/usr/../etc\"]"), "ro_paths[0] must"),
        (&format!("{base}ro_paths = [\"/proc/1\"]"), "ro_paths[0] may not be shown"),
        (&format!("{base}concurrency_max = 0"), "concurrency_max must be 1 to 1000"),
        (&format!("{base}success = \"final-event\""), "success must be exit-code"),
        (&format!("{base}colour = 1"), "unknown field `colour`"),
        (&format!("{base}output = \"xml\""), "unknown variant `xml`"),
    ] {
        let error = error(text);
        assert!(error.contains(wanted), "{text}\n→ {error}");
    }
}

#[test]
fn declarations_are_counted() {
    let many = |count: usize| -> Vec<CustomAgentConfig> {
        (0..count)
            .map(|n| config(&format!("name = \"a{n}\"\ncommand = [\"sh\", \"{{prompt_file}}\"]")))
            .collect()
    };
    assert!(Registry::new(many(CUSTOM_AGENTS_MAX)).is_ok());
    let error = Registry::new(many(CUSTOM_AGENTS_MAX + 1)).unwrap_err();
    assert_eq!(error, RegistryError::TooMany(CUSTOM_AGENTS_MAX + 1));
}

#[test]
fn a_missing_program_says_so() {
    let text = "name = \"x\"\ncommand = [\"/no/such\", \"{prompt_file}\"]";
    let registry = Registry::new(vec![config(text)]).unwrap();
    let agent: &dyn Agent = registry.get(&"x".parse().unwrap()).unwrap().as_ref();
    let reason = Installed::load(std::path::Path::new("/nowhere"), agent).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "/no/such does not exist: correct `command` of agent x in the configuration"
    );
}
