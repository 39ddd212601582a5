//! What each agent is started with.

use std::path::PathBuf;

use outpost_agents::{Agent, AgentError, Installed, Invocation, Registry, RunSpec, TrackedFile};
use outpost_types::Provider;

const HANDLE: &str = "otph_0123456789";

pub(crate) fn run(model_id: &str) -> RunSpec {
    let tracked = ["AGENTS.md", "CLAUDE.md", "src/calc.py"]
        .map(|path| TrackedFile { path: path.into(), size_bytes: 100 });
    RunSpec {
        prompt: "Fix src/calc.py ✓\n".into(),
        prompt_path: "/outpost/prompt.md".into(),
        model_id: model_id.into(),
        gateway_url: "http://127.0.0.1:4100".into(),
        handle: HANDLE.into(),
        home: "/home/agent".into(),
        workdir: "/workspace/01ABC/repo".into(),
        path: "/usr/local/bin:/usr/bin:/bin".into(),
        session_id: None,
        tracked_files: tracked.to_vec(),
    }
}

fn installed(agent: &dyn Agent) -> Installed {
    let plan = agent.install_plan().unwrap().unwrap();
    Installed {
        agent: plan.agent,
        version: plan.version,
        root: Some("/agents/x".into()),
        command: vec!["/agents/x/program".into()],
        path_dirs: vec!["/agents/x/bin".into()],
        ro_paths: vec!["/agents/x".into()],
    }
}

fn invocation(name: &str) -> Invocation {
    let registry = Registry::new(Vec::new()).unwrap();
    let agent = registry.get(&name.parse().unwrap()).unwrap();
    let run = run(&agent.profile().default_model);
    agent.invocation(&run, &installed(agent.as_ref())).unwrap()
}

fn variable<'a>(invocation: &'a Invocation, name: &str) -> Option<&'a str> {
    let mut values = invocation.env.iter().filter(|(found, _)| found == name);
    let value = values.next().map(|(_, value)| value.as_str());
    assert!(values.next().is_none(), "{name} is set twice");
    value
}

fn has(invocation: &Invocation, words: &[&str]) -> bool {
    invocation.argv.windows(words.len()).any(|window| window == words)
}

#[test]
fn the_handle_is_in_one_variable_and_nowhere_else() {
    for (name, key) in [
        ("claude", "ANTHROPIC_API_KEY"),
        ("codex", "OUTPOST_MODEL_KEY"),
        ("gemini", "GEMINI_API_KEY"),
        ("grok", "XAI_API_KEY"),
        ("aider", "DEEPSEEK_API_KEY"),
    ] {
        let invocation = invocation(name);
        assert_eq!(variable(&invocation, key), Some(HANDLE), "{name}");
        let places = invocation.env.iter().filter(|(_, value)| value.contains(HANDLE)).count();
        assert_eq!(places, 1, "{name}");
        let debug = format!("{invocation:?} {:?}", run("m"));
        assert!(!debug.contains(HANDLE), "{name} shows its handle");
        assert!(!invocation.argv.concat().contains(HANDLE), "{name}");
        let files: String =
            invocation.home_files.iter().map(|file| file.contents.clone()).collect();
        assert!(!files.contains(HANDLE), "{name}");
    }
}

#[test]
fn every_agent_is_pointed_at_the_gateway_and_pinned() {
    for (name, address) in [
        ("claude", "http://127.0.0.1:4100/anthropic"),
        ("codex", "http://127.0.0.1:4100/openai/v1"),
        ("gemini", "http://127.0.0.1:4100/google"),
        ("grok", "http://127.0.0.1:4100/xai/v1"),
        ("aider", "http://127.0.0.1:4100/deepseek"),
    ] {
        let registry = Registry::new(Vec::new()).unwrap();
        let model = registry.get(&name.parse().unwrap()).unwrap().profile().default_model.clone();
        let invocation = invocation(name);
        let everything =
            format!("{:?} {:?} {:?}", invocation.argv, invocation.env, invocation.home_files);
        assert!(everything.contains(address), "{name}: {everything}");
        assert!(invocation.argv.concat().contains(&model), "{name}");
        assert_eq!(variable(&invocation, "HOME"), Some("/home/agent"));
        assert_eq!(
            variable(&invocation, "PATH"),
            Some("/agents/x/bin:/usr/local/bin:/usr/bin:/bin")
        );
        assert_eq!(invocation.argv[0], "/agents/x/program");
        assert_eq!(invocation.ro_paths, [PathBuf::from("/agents/x")]);
        assert!(!invocation.argv.concat().contains('✓'), "{name}: the prompt travels by file");
        let by_file = invocation.argv.iter().any(|word| word == "/outpost/prompt.md");
        assert!(by_file ^ invocation.stdin_prompt, "{name}");
        let git = invocation.home_files.iter().find(|file| file.path == ".gitconfig").unwrap();
        assert!(git.contents.contains("agent@outpost.invalid"));
        for file in &invocation.home_files {
            assert!(!file.path.starts_with('/') && !file.path.contains(".."), "{}", file.path);
        }
    }
}

#[test]
fn hostile_configuration_of_a_repository_is_turned_off() {
    let claude = invocation("claude");
    assert!(has(&claude, &["--setting-sources", "user", "--strict-mcp-config"]));
    let memory = claude.home_files.iter().find(|file| file.path == ".claude/CLAUDE.md").unwrap();
    assert_eq!(memory.contents, "@/workspace/01ABC/repo/CLAUDE.md\n");
    assert!(has(&invocation("codex"), &["--ignore-user-config"]));
    let masks = |name: &str| -> Vec<String> {
        invocation(name).repo_masks.into_iter().map(|mask| mask.path).collect()
    };
    assert_eq!(masks("gemini"), [".gemini/settings.json", ".gemini/.env"]);
    assert!(masks("aider").contains(&".aider.model.settings.yml".to_owned()));
    assert!(masks("aider").contains(&".env".to_owned()));
    assert!(!invocation("grok").argv.contains(&"--trust".to_owned()));
}

#[test]
fn aider_takes_files_after_a_separator() {
    let aider = invocation("aider");
    let at = aider.argv.iter().position(|word| word == "--").unwrap();
    assert_eq!(&aider.argv[at + 1..], ["src/calc.py", "AGENTS.md", "CLAUDE.md"]);
    assert_eq!(aider.litter, [".aider*"]);
}

#[test]
fn aider_routes_by_prefix() {
    let registry = Registry::new(Vec::new()).unwrap();
    let aider = registry.get(&"aider".parse().unwrap()).unwrap();
    for (model, provider, variable_name, value) in [
        ("openai/gpt-4o", Provider::Openai, "OPENAI_API_BASE", "http://127.0.0.1:4100/openai/v1"),
        (
            "anthropic/x",
            Provider::Anthropic,
            "ANTHROPIC_API_BASE",
            "http://127.0.0.1:4100/anthropic",
        ),
        ("gemini/x", Provider::Google, "GEMINI_API_BASE", "http://127.0.0.1:4100/google/v1beta"),
        ("xai/grok-4", Provider::Xai, "XAI_API_BASE", "http://127.0.0.1:4100/xai/v1"),
    ] {
        assert_eq!(aider.provider(model), Some(provider));
        let invocation = aider.invocation(&run(model), &installed(aider.as_ref())).unwrap();
        assert_eq!(variable(&invocation, variable_name), Some(value));
    }
    let error = aider.invocation(&run("gpt-4o"), &installed(aider.as_ref())).unwrap_err();
    assert!(error.to_string().starts_with("modelId must begin with deepseek/"), "{error}");
}

#[test]
fn sessions_go_on_where_the_cli_can() {
    let registry = Registry::new(Vec::new()).unwrap();
    for agent in registry.iter() {
        let mut run = run(&agent.profile().default_model);
        run.session_id = Some("01a20277-7efe".into());
        let result = agent.invocation(&run, &installed(agent.as_ref()));
        match agent.profile().id.as_str() {
            "aider" => assert!(matches!(result, Err(AgentError::NoResume(_)))),
            "codex" => assert!(has(&result.unwrap(), &["exec", "resume"])),
            _ => assert!(has(&result.unwrap(), &["--resume", "01a20277-7efe"])),
        }
    }
}

#[test]
fn what_could_be_taken_for_a_flag_or_break_quotes_is_refused() {
    let registry = Registry::new(Vec::new()).unwrap();
    for agent in registry.iter() {
        let long = "x".repeat(200);
        for model in ["", "-m", "a b", "a\"b", "a'b", "a\nb", "ü", "a;b", long.as_str()] {
            let error = agent.invocation(&run(model), &installed(agent.as_ref())).unwrap_err();
            assert!(error.to_string().starts_with("modelId "), "{model:?}: {error}");
        }
        let mut bad = run(&agent.profile().default_model);
        bad.session_id = Some("--resume-all".into());
        let error = agent.invocation(&bad, &installed(agent.as_ref())).unwrap_err();
        assert!(error.to_string().starts_with("sessionId "), "{error}");
        let mut bad = run(&agent.profile().default_model);
        bad.workdir = "repo".into();
        let error = agent.invocation(&bad, &installed(agent.as_ref())).unwrap_err();
        assert!(error.to_string().starts_with("workdir "), "{error}");
    }
}
