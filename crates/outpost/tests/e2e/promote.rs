//! From a local repository to a pull request: the real binary, an agent in a real sandbox, real git over HTTP, and
//! a stand-in of the code host's API.

use std::path::{Path, PathBuf};
use std::process::Command;

use outpost_types::{
    Api as _, DispatchRequest, DispatchStatus, EventData, PromoteApi as _, PromotionStatus,
    PutSecret, SecretValue,
};
use rustix::process::Signal;

use crate::harness::{Server, assert_status, within};
use crate::standin::{Standin, TOKEN, git};

pub(crate) const SCRIPT: &str = "echo '@everyone I fix #1'; echo '1\n2\n4' > calc.txt\n";

pub(crate) fn config(host: &Standin) -> String {
    format!(
        r#"
[forge."{}"]
kind = "github"
api_url = "{}"
token_secret = "WORK_TOKEN"

[[agents]]
name = "script"
command = ["/bin/sh", "agent.sh"]
stdin_prompt = true
"#,
        host.name(),
        host.api()
    )
}

fn promote(server: &Server, flags: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_outpost"))
        .args(["promote", "last"])
        .args(flags)
        .env("OUTPOST_URL", server.api_url())
        .env("OUTPOST_API_KEY", &server.key)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatch_becomes_a_pull_request_and_the_token_is_nowhere() {
    let host = Standin::start();
    host.move_on("agent.sh", SCRIPT);
    let work = host.work();
    git(&work, &["remote", "set-url", "origin", &host.repo()]);
    let server = Server::start_with(&[], &config(&host)).await;
    let request = DispatchRequest {
        agent: "script".into(),
        task: "Make it four".into(),
        repo: Some(work.display().to_string()),
        timeout_seconds: Some(120),
        ..DispatchRequest::default()
    };
    let view = server.run(request).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;

    let refused = promote(&server, &[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("outpost secrets set WORK_TOKEN"), "{said}");
    let value = SecretValue::new(TOKEN.into());
    let put = PutSecret { value, kind: None, scope: None };
    server.api.put_secret("WORK_TOKEN".parse().unwrap(), put).await.unwrap();
    let done = promote(&server, &["--branch", "four", "--title", "Four", "--ready"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    let printed = String::from_utf8(done.stdout).unwrap();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines, ["four", "https://github.example/octo/hello/pull/1"]);

    let commit = host.branch("four").unwrap();
    assert_eq!(git(&host.bare(), &["show", &format!("{commit}:calc.txt")]), "1\n2\n4");
    let asked = host.pulls()[0]["asked"].clone();
    assert_eq!((asked["title"].as_str(), asked["draft"].as_bool()), (Some("Four"), Some(false)));
    let body = asked["body"].as_str().unwrap();
    assert!(
        body.contains("Make it four") && body.contains(&view.dispatch_id.to_string()),
        "{body}"
    );

    // The next server knows it, and promotes nothing a second time.
    let server = server.replace(Signal::KILL).await;
    let known = within(server.api.promotion(view.dispatch_id, None)).await.unwrap();
    assert_eq!((known.status, known.commit), (PromotionStatus::Done, Some(commit)));
    assert!(promote(&server, &[]).status.success());
    assert_eq!(host.pulls().len(), 1);
    let events = server.events(view.dispatch_id).await;
    assert!(events.iter().any(|event| matches!(&event.data, EventData::Log { .. })));
    assert!(!format!("{events:?}").contains(TOKEN));
    for file in files(&server.data()) {
        let Ok(bytes) = std::fs::read(&file) else { continue };
        let has = bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(!has, "the token is in {}", file.display());
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for entry in entries.filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
