//! The keys behind an agent are nowhere it, or anybody who reads what it left, can find them.
//!
//! The model provider wants a key that is one of these canaries, so each run proves that the real key was
//! used; the agent turns over everything it can reach meanwhile, and leaves what it finds.

use std::path::Path;

use outpost_scripted::{KeySeen, Script, ScriptedHandle, ScriptedProvider};
use outpost_types::{
    Api as _, DispatchStatus, DispatchView, FailureCode, Provider, PutSecret, SecretKind,
    SecretName, SecretValue,
};

use crate::harness::{Repo, Server, assert_status, has_cli, request};

/// The tenant's own key, which the provider wants; and the operator's, which it would refuse.
const OWN: &str = "sk-canary-own-0123456789abcdef";
const OPERATORS: &str = "sk-canary-env-0123456789abcdef";
/// Word that is in every canary, and split up in all that the agent is told.
const MARK: &[u8] = b"sk-canary";

const SCRIPT: &str = r#"
[[rule]]
when = { task_contains = "situation: plunder" }
steps = [
  { run = "(env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; set) > ../artifacts/seen.txt 2>&1; cp -r /proc/1/root/etc ../artifacts/etc 2>/dev/null; ls -laR /proc/*/fd >> ../artifacts/seen.txt 2>&1; true" },
  { run = "printf 'sk-%s' canary > /tmp/word; grep -rIlsFf /tmp/word / --exclude-dir=proc --exclude-dir=sys --exclude=word | tee found.txt; echo searched >> found.txt" },
  { run = "for path in / /anthropic/v1/models /openai/v1/models /xai/v1/api-key; do curl -sS -m 5 -i http://127.0.0.1:8787$path -H \"x-api-key: $ANTHROPIC_API_KEY\" -H \"authorization: Bearer $OPENAI_API_KEY$XAI_API_KEY\" -H \"x-goog-api-key: $GEMINI_API_KEY\"; done > ../artifacts/answers.txt 2>&1; git add -A; git commit -qm everything; true" },
  { write = { path = "README.md", content = "plundered\n" } },
  { say = "That is all there was." },
]
"#;

/// A server whose tenant has its own keys, and whose operator has others.
async fn vault() -> (Server, ScriptedHandle) {
    let script = Script::parse(SCRIPT).unwrap();
    let provider = ScriptedProvider::new(script).with_key(OWN);
    let provider = provider.start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut config = String::new();
    for name in Provider::ALL.map(Provider::as_str) {
        let url = provider.url();
        config.push_str(&format!(
            "[providers.{name}]\nbase_url = \"{url}\"\nkey_env = \"OUTPOST_E2E_KEY\"\n"
        ));
    }
    let server = Server::start_real(&config, &[("OUTPOST_E2E_KEY", OPERATORS)]).await;
    for name in Provider::ALL.map(|provider| provider.key_variables()[0]) {
        put(&server, name, OWN, SecretKind::Injected).await;
    }
    (server, provider)
}

async fn put(server: &Server, name: &str, value: &str, kind: SecretKind) {
    let name: SecretName = name.parse().unwrap();
    let value = SecretValue::new(value.to_owned());
    let request = PutSecret { value, kind: Some(kind), scope: None };
    server.api.put_secret(name, request).await.unwrap();
}

/// Files below `dir` that contain the mark.
fn marked(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            marked(&entry.path(), found);
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            if bytes.windows(MARK.len()).any(|window| window == MARK) {
                found.push(entry.path());
            }
        }
    }
}

async fn nothing_shows(server: &Server, view: &DispatchView) {
    let mut found = Vec::new();
    marked(&server.data(), &mut found);
    assert!(found.is_empty(), "{found:?}");
    let id = view.dispatch_id;
    let words = [
        format!("{view:?}"),
        format!("{:?}", server.events(id).await),
        format!("{:?}", server.api.list_secrets().await.unwrap()),
        format!("{:?}", server.api.fleet().await.unwrap()),
        server.log(id).await,
        server.diff(id).await,
    ];
    for words in words {
        assert!(!words.contains("sk-canary"), "{words}");
    }
}

async fn finds_no_key(agent: &str) {
    if !has_cli(agent) {
        return;
    }
    let (server, provider) = vault().await;
    let repo = Repo::new();
    let view = server.run(request(agent, "plunder", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    // The tenant's own key was used, in every call.
    let journal = provider.journal();
    let calls: Vec<_> = journal.iter().filter(|entry| entry.dialect.is_some()).collect();
    assert!(!calls.is_empty() && calls.iter().all(|call| call.key == KeySeen::Ok), "{journal:#?}");
    if agent != "aider" {
        // It has no tools, so it can look nowhere.
        assert!(server.diff(view.dispatch_id).await.contains("+searched"), "it did not search");
        assert!(server.artifacts(view.dispatch_id).await.contains_key("artifacts/seen.txt"));
    }
    nothing_shows(&server, &view).await;
    let secrets = server.api.list_secrets().await.unwrap();
    assert!(secrets.iter().any(|secret| secret.use_count == 1), "its use is on record");
    server.assert_nothing_left();
    provider.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_finds_no_key() {
    finds_no_key("claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_finds_no_key() {
    finds_no_key("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_finds_no_key() {
    finds_no_key("gemini").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aider_finds_no_key() {
    finds_no_key("aider").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grok_finds_no_key() {
    finds_no_key("grok").await;
}

const SHOWS: &str = "[[agents]]\nname = \"shows\"\ncommand = [\"/bin/sh\", \"-c\", \
                     \"echo got $DATABASE_URL${DATABASE_URL:+, ${#DATABASE_URL} long}\"]\nstdin_prompt = true\n";

/// Only what a dispatch names, and only of the kind that may be shown, is in its agent's environment.
#[tokio::test(flavor = "multi_thread")]
async fn an_exposed_secret_is_given_to_whom_names_it() {
    let (server, repo) = (Server::start_with(&[], SHOWS).await, Repo::new());
    put(&server, "DATABASE_URL", "postgres://exposed", SecretKind::Exposed).await;
    put(&server, "OPENAI_API_KEY", OWN, SecretKind::Injected).await;
    let silent = server.run(request("shows", "x", &repo)).await;
    assert_eq!(server.log(silent.dispatch_id).await.trim(), "got");
    let mut named = request("shows", "x", &repo);
    named.secrets = vec!["DATABASE_URL".to_owned()];
    let told = server.run(named.clone()).await;
    assert_eq!(server.log(told.dispatch_id).await.trim(), "got [masked:DATABASE_URL], 18 long");
    assert_eq!(told.secrets, ["DATABASE_URL"]);
    for (name, why) in [
        ("OPENAI_API_KEY", "--exposed"),
        ("NO_SUCH_SECRET", "there is no secret"),
        ("not a name", "A-Z"),
    ] {
        named.secrets = vec![name.to_owned()];
        let error = server.api.create_dispatch(named.clone(), None).await.unwrap_err();
        assert_eq!(error.field.as_deref(), Some("secrets"), "{error:?}");
        assert!(error.message.contains(why), "{error:?}");
    }
    // One that would replace what the agent itself starts with is refused before anything runs.
    put(&server, "HOME", "/somewhere/else", SecretKind::Exposed).await;
    named.secrets = vec!["HOME".to_owned()];
    let view = server.run(named).await;
    assert_status(&server, &view, DispatchStatus::Failed).await;
    let failure = view.failure.unwrap();
    assert_eq!(failure.code, FailureCode::Provisioning, "{failure:?}");
    assert!(failure.message.contains("HOME"), "{failure:?}");
}
