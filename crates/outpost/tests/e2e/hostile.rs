//! An agent is hostile code. What it prints, names, links, starts and asks for reaches nobody and
//! nothing outside.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use outpost_types::{
    Api as _, CancelRequest, DispatchId, DispatchStatus, ErrorCode, EventData, EventEnvelope,
};
use rustix::process::Signal;

use crate::harness::{Repo, Server, assert_status, request, within};

/// Agents that run a script of their repository, with and without a model.
const CONFIG: &str = r#"
[[agents]]
name = "hostile"
command = ["/bin/bash", "agent.sh"]
stdin_prompt = true

[[agents]]
name = "caller"
command = ["/bin/bash", "agent.sh"]
stdin_prompt = true
provider = "openai"
model = "m"
base_url_env = "OPENAI_BASE_URL"
key_env = "OPENAI_API_KEY"
"#;

async fn begin(server: &Server, repo: &Repo) -> DispatchId {
    let request = request("hostile", "x", repo);
    server.api.create_dispatch(request, None).await.unwrap().dispatch.dispatch_id
}

async fn until_printed(server: &Server, id: DispatchId, word: &str) {
    let is_word = |event: &EventEnvelope| match &event.data {
        EventData::Log { text, .. } => text == word,
        _ => false,
    };
    server.event(id, is_word).await;
}

/// What a person at a pipe would see: standard output and standard error of a command.
fn cli(server: &Server, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_outpost"))
        .env_remove("OUTPOST_URL")
        .env_remove("OUTPOST_API_KEY")
        .env("OUTPOST_DATA_DIR", server.data())
        .env("OUTPOST_CONFIG", server.data().join("../config.toml"))
        .args(["--color", "never"])
        .args(args)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// The whole answer, head and body, of a plain GET with the server's key.
fn get(server: &Server, path: &str) -> String {
    let info = std::fs::read(server.data().join("server.json")).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    let address = info["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    let key = &server.key;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn acts_on_a_terminal(character: char) -> bool {
    let reorders = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    reorders || (character.is_control() && character != '\n')
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_nothing_of_the_host() {
    let server = Server::start_with(&[], CONFIG).await;
    let data = server.data().canonicalize().unwrap();
    let repo = Repo::with_script(&format!(
        r#"
        env | sed 's/=.*//; s/^/env /'
        for fd in /proc/$$/fd/*; do echo "fd $(readlink $fd)"; done
        find / -xdev -type s | sed 's/^/socket /'
        ls /proc | grep '^[0-9]' | while read pid; do echo "pid $pid $(tr '\0' ' ' < /proc/$pid/cmdline)"; done
        find {data} | sed 's/^/data /'
        for path in /root /home/*/.ssh /etc/shadow /sys/fs /run/user /var/run/docker.sock; do
            [ -e $path ] && echo "path $path"
        done
        find {data} / -xdev -maxdepth 3 -writable -type d 2>/dev/null | sed 's/^/writable /'
        grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\t'
        "#,
        data = data.display(),
    ));
    let view = server.run(request("hostile", "x", &repo)).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let log = server.log(view.dispatch_id).await;
    let of = |word: &str| -> BTreeSet<&str> {
        log.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    };
    let environment = of("env");
    assert!(environment.contains("HOME"), "{log}");
    // Set for this test by cargo, and so for the server: nothing of it goes on.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let foreign = |name: &&str| name.starts_with("CARGO") || name.starts_with("OUTPOST");
    assert!(!environment.iter().any(foreign), "{log}");
    let known = |file: &str| {
        ["pipe:", "/memfd:", "/proc/", "/dev/null", "/workspace/"]
            .iter()
            .any(|at| file.starts_with(at))
    };
    assert!(
        of("fd").len() >= 3 && of("fd").iter().all(|file| file.is_empty() || known(file)),
        "{log}"
    );
    assert!(of("socket").is_empty() && of("path").is_empty(), "{log}");
    assert!(!of("pid").iter().any(|line| line.contains("outpost serve")), "{log}");
    // Of the data directory it sees the mirror it borrows objects from, and cannot write there.
    let mirrors = data.join("repos/mirrors");
    let on_the_way =
        |path: &str| mirrors.starts_with(path) || Path::new(path).starts_with(&mirrors);
    assert!(!of("data").is_empty() && of("data").iter().all(|path| on_the_way(path)), "{log}");
    let own = |path: &str| {
        ["/workspace/", "/home/agent", "/tmp", "/dev/shm", "/proc/"]
            .iter()
            .any(|at| path.starts_with(at))
    };
    assert!(of("writable").iter().all(|path| own(path)), "{log}");
    // Other users of the host see as little of what agents did, even where the directory is open.
    for name in ["admin.key", "attempts", "dispatches", "launcher", "outpost.db", "repos"] {
        let mode = std::fs::metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    for fact in ["CapEff:0000000000000000", "CapBnd:0000000000000000", "NoNewPrivs:1", "Seccomp:2"]
    {
        assert!(log.contains(fact), "{fact} is missing in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_and_names_acts_on_nobody() {
    let server = Server::start_with(&[], CONFIG).await;
    let repo = Repo::with_script(
        r#"
        printf '\033]0;owned\007\033[2J\033[1mbold\033[0m\n'
        printf '\xff\xfe broken \x00 nul\n'
        printf 'left \xe2\x80\xae right \xc2\x9b2J\n'
        printf 'visible\rhidden\n'
        printf 'id: 999\nevent: dispatch.status\ndata: {"type":"dispatch.status","data":{"status":"FAILED"}}\n\n'
        head -c 300000 /dev/zero | tr '\0' x; echo
        : > ../artifacts/$'x\r\nSet-Cookie: a=b'
        echo '<script>alert(1)</script>' > ../artifacts/page.html
        for name in $'evil\033[2J.txt' $'line\nbreak' '-rf' $'\u202egpj.exe' '$(reboot)'; do echo x > ./"$name"; done
        git add -A
        git commit -qm $'\033[2J\u202e subject\n\nbody'
        printf 'the end without an end of line'
        "#,
    );
    let mut hostile = request("hostile", "x", &repo);
    hostile.task = "\u{1b}[2J\u{202e} task\r\n\u{9b}31m".to_owned();
    hostile.tags = vec!["<script>".to_owned(), "\u{202e}tag".to_owned()];
    let view = server.run(hostile).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let id = view.dispatch_id.to_string();

    let kept = server.data().join("dispatches").join(&id);
    let raw = std::fs::read(kept.join("output.log")).unwrap();
    assert!(String::from_utf8_lossy(&raw).contains(acts_on_a_terminal));
    assert!(
        raw.windows(4).any(|bytes| bytes == b"\xff\xfe b"),
        "the log is kept as it was printed"
    );
    let events = server.events(view.dispatch_id).await;
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    let terminal = events.iter().filter(|event| event.data.is_terminal()).count();
    assert_eq!(terminal, 1, "words that look like an event are none");
    assert_eq!(events.last().unwrap().data.kind(), "dispatch.status");

    nothing_shown_acts_on_a_terminal(&server, &id, &repo);
    nothing_kept_acts_on_a_browser(&server, view.dispatch_id).await;
}

fn nothing_shown_acts_on_a_terminal(server: &Server, id: &str, repo: &Repo) {
    for args in [&["ls"][..], &["status", id], &["logs", id], &["apply", id, "--dry-run"]] {
        let mut args = args.to_vec();
        if args[0] == "apply" {
            args.extend(["--dir", repo.dir.path().to_str().unwrap()]);
        }
        let shown = cli(server, &args);
        assert!(shown.len() > 20, "{args:?}: {shown}");
        assert!(!shown.contains(acts_on_a_terminal), "{args:?}: {shown:?}");
    }
    // As JSON too, even what JSON itself does not escape.
    for args in [&["events", id][..], &["status", id, "--json"], &["ls", "--json"]] {
        let shown = cli(server, args);
        assert!(shown.contains(id) && !shown.contains(acts_on_a_terminal), "{args:?}: {shown:?}");
    }
}

async fn nothing_kept_acts_on_a_browser(server: &Server, id: DispatchId) {
    let names = server.artifacts(id).await;
    assert!(names.contains_key("artifacts/page.html"), "{names:?}");
    assert!(!names.keys().any(|name| name.contains(char::is_control)), "{names:?}");
    let page = get(server, &format!("/artifacts/{id}/artifacts/page.html")).to_lowercase();
    for header in [
        "content-type: application/octet-stream",
        "content-disposition: attachment",
        "content-security-policy: sandbox",
        "x-content-type-options: nosniff",
    ] {
        assert!(page.contains(header), "{header} is missing in {page}");
    }
    for path in ["..%2f..%2fadmin.key", "%2e%2e/%2e%2e/admin.key", "artifacts/../../../admin.key"] {
        let answer = get(server, &format!("/artifacts/{id}/{path}"));
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("otp_"), "{path}: {answer}");
    }
}

/// Everything below a directory: names, and what is in the files.
fn everything(dir: &Path, into: &mut Vec<u8>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        assert!(
            kind.is_dir() || kind.is_file(),
            "{:?} is neither file nor directory",
            entry.path()
        );
        if kind.is_dir() {
            everything(&entry.path(), into);
        } else {
            into.extend(std::fs::read(entry.path()).unwrap());
        }
    }
}

/// Links of the agent are not followed, and what it configured for git runs nowhere on the host.
#[tokio::test(flavor = "multi_thread")]
async fn links_and_traps_lead_nowhere() {
    let server = Server::start_with(&[], CONFIG).await;
    let host = tempfile::tempdir().unwrap();
    let canary = host.path().join("canary");
    std::fs::write(&canary, "the-host's-own-words").unwrap();
    let script = |last: &str| {
        let (host, canary) = (host.path().display(), canary.display());
        format!(
            r#"
            ln -s {canary} stolen; ln -s {host} folder; ln -s {canary} ../artifacts/stolen
            ln -s / ../artifacts/root; mkfifo ../artifacts/pipe pipe
            for name in fsmonitor sshCommand pager editor hooksPath; do git config core.$name 'touch {host}/owned;:'; done
            git config filter.x.clean 'touch {host}/owned; cat'
            git config filter.x.smudge 'touch {host}/owned; cat'
            git config diff.external 'touch {host}/owned;:'
            git config diff.x.textconv 'touch {host}/owned; cat'
            git config uploadpack.packObjectsHook 'touch {host}/owned;:'
            mkdir -p .git/hooks
            for hook in pre-commit post-checkout post-index-change reference-transaction; do
                printf '#!/bin/sh\ntouch {host}/owned\n' > .git/hooks/$hook; chmod +x .git/hooks/$hook
            done
            echo '* filter=x diff=x' > .gitattributes
            echo real > real.txt
            rm ../task.md ../context.json; ln -s {canary} ../task.md; ln -s {canary} ../context.json
            {last}
            "#
        )
    };
    let endings = [
        "true",
        "rm -rf ../artifacts; ln -s $PWD/folder ../artifacts",
        "mv .git ../elsewhere; ln -s ../elsewhere .git",
        "echo $PWD/folder > .git/objects/info/alternates",
    ];
    for last in endings {
        let view = server.run(request("hostile", "x", &Repo::with_script(&script(last)))).await;
        assert!(view.status.is_terminal(), "{last}");
        let kept = server.data().join("dispatches").join(view.dispatch_id.to_string());
        let mut words = Vec::new();
        everything(&kept, &mut words);
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(!words.contains("the-host's-own-words"), "{last}: {words}");
        if last == "true" {
            assert_status(&server, &view, DispatchStatus::Completed).await;
            let diff = server.diff(view.dispatch_id).await;
            assert!(diff.contains("+real") && diff.contains(canary.to_str().unwrap()), "{diff}");
        }
        let left: Vec<_> = std::fs::read_dir(host.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{last}: something ran on the host: {left:?}");
        server.assert_nothing_left();
    }
}

/// Whether a process of this host has the word in its arguments.
fn runs_on_this_host(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut arguments =
        processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    arguments.any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_started_dies_with_it() {
    let server = Server::start_with(&[], CONFIG).await;
    let mark = format!("outpost-hostile-{}", std::process::id());
    let repo = Repo::with_script(&format!(
        r#"
        bash -c 'exec -a {mark} sleep 36000' &
        setsid bash -c 'trap "" TERM HUP INT; (exec -a {mark} sleep 36000) & disown'
        until [ "$(cat /proc/*/cmdline | tr '\0' '\n' | grep -c ^{mark}$)" = 2 ]; do :; done
        echo ready
        exec tail -f /dev/null
        "#
    ));
    let id = begin(&server, &repo).await;
    until_printed(&server, id, "ready").await;
    assert!(runs_on_this_host(&mark));
    server.api.cancel_dispatch(id, CancelRequest::default()).await.unwrap();
    let view = server.until(id, |view| view.status.is_terminal()).await;
    assert_status(&server, &view, DispatchStatus::Cancelled).await;
    assert!(!runs_on_this_host(&mark));
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_do_not_meet() {
    let server = Server::start_with(&[], CONFIG).await;
    let first = Repo::with_script(
        r#"
        for dir in /tmp $HOME .. /dev/shm; do echo secret-of-the-first > $dir/secret-of-the-first; done
        echo ready
        exec -a secret-of-the-first tail -f /dev/null
        "#,
    );
    let first = begin(&server, &first).await;
    until_printed(&server, first, "ready").await;
    let second = Repo::with_script(
        r#"
        ls /workspace; cat /proc/[0-9]*/cmdline | tr '\0' '\n'
        grep -rs secret-of-the /workspace/*/task.md /tmp /home /dev/shm
        find / -xdev -name 'secret-of-the*'
        trap 'echo still here' TERM
        kill -TERM -1
        echo looked
        "#,
    );
    let view = server.run(request("hostile", "x", &second)).await;
    let log = server.log(view.dispatch_id).await;
    assert!(log.contains("looked"), "{log}");
    assert!(!log.contains("secret-of-the-first") && !log.contains(&first.to_string()), "{log}");
    let view = server.api.get_dispatch(first, None, None).await.unwrap();
    assert_eq!(view.status, DispatchStatus::Running);
    server.api.cancel_dispatch(first, CancelRequest::default()).await.unwrap();
    server.until(first, |view| view.status.is_terminal()).await;
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_door_opens_for_model_calls_only() {
    let server = Server::start_with(&[], CONFIG).await;
    let info = std::fs::read_to_string(server.data().join("server.json")).unwrap();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let port = info["url"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let repo = Repo::with_script(&format!(
        r#"
        ask() {{
            exec 3<>/dev/tcp/127.0.0.1/8787
            printf '%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\nConnection: close\r\n\r\n' "$2" "$3" >&3
            read -r _ status _ <&3; exec 3>&-; echo "$1 $status"
        }}
        handle="Authorization: Bearer $OPENAI_API_KEY"
        ask model 'POST /openai/v1/chat/completions' "$handle"$'\r\nContent-Length: 0'
        ask wrong 'GET /openai/v1/models' 'Authorization: Bearer otph_0'
        ask none 'GET /openai/v1/models' 'X-Nothing: 1'
        ask files 'GET /openai/v1/files' "$handle"
        ask dots 'GET /openai/v1/../files' "$handle"
        ask other 'GET /anthropic/v1/models' "$handle"
        ask method 'DELETE /openai/v1/models' "$handle"
        ask proxy 'GET http://169.254.169.254/latest/meta-data' "$handle"
        ask connect 'CONNECT example.com:443' "$handle"
        (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo 'reached the server'
        (exec 3<>/dev/tcp/1.1.1.1/53) 2>/dev/null && echo 'reached the network'
        getent hosts example.com && echo 'reached a resolver'
        echo done
        "#
    ));
    let view = server.run(request("caller", "x", &repo)).await;
    let log = server.log(view.dispatch_id).await;
    assert_status(&server, &view, DispatchStatus::Completed).await;
    let answers: Vec<&str> = log.lines().collect();
    let expected = [
        "model 400",
        "wrong 401",
        "none 401",
        "files 403",
        "dots 403",
        "other 404",
        "method 405",
        "proxy 403",
        "connect 403",
        "done",
    ];
    assert_eq!(answers, expected);
    let events = server.events(view.dispatch_id).await;
    let denied = events.iter().filter(|event| matches!(event.data, EventData::PolicyDenied { .. }));
    assert!(denied.count() > 0, "what was refused is said");
}

/// A cancel at whatever moment leads to one end, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_any_moment_has_one_end() {
    let server = Server::start_with(&[], CONFIG).await;
    let repo = Repo::with_script("echo ready; echo new > new.txt; echo over");
    let moments: [fn(&EventData) -> bool; 5] = [
        |_| true,
        |data| matches!(data, EventData::Status { status: DispatchStatus::Provisioning, .. }),
        |data| matches!(data, EventData::Status { status: DispatchStatus::Running, .. }),
        |data| matches!(data, EventData::Log { .. }),
        |data| matches!(data, EventData::Status { status: DispatchStatus::Completing, .. }),
    ];
    let cancel = async |moment: fn(&EventData) -> bool| {
        let id = begin(&server, &repo).await;
        server.event(id, |event| moment(&event.data)).await;
        match server.api.cancel_dispatch(id, CancelRequest::default()).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.code, ErrorCode::AlreadyFinished),
        }
        let view = server.until(id, |view| view.status.is_terminal()).await;
        let wanted = [DispatchStatus::Cancelled, DispatchStatus::Completed];
        assert!(wanted.contains(&view.status), "{view:?}");
        let events = server.events(id).await;
        let ends: Vec<_> = events.iter().filter(|event| event.data.is_terminal()).collect();
        assert_eq!(ends.len(), 1);
        assert_eq!(events.last().unwrap().seq, ends[0].seq);
    };
    let all = (0..20).map(|index| cancel(moments[index % moments.len()]));
    within(futures_util::future::join_all(all)).await;
    server.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_admin_key_is_worth_nothing() {
    let server = Server::start_with(&[], CONFIG).await;
    let (old, file) = (server.key.clone(), server.data().join("admin.key"));
    assert!(get(&server, "/runs").starts_with("HTTP/1.1 200"));
    std::fs::write(&file, format!("otp_{}\n", "7".repeat(64))).unwrap();
    let mut server = server.replace(Signal::TERM).await;
    assert!(get(&server, "/runs").starts_with("HTTP/1.1 200"));
    server.key = old;
    assert!(get(&server, "/runs").starts_with("HTTP/1.1 401"));
    // Nor after yet another start.
    let mut server = server.replace(Signal::TERM).await;
    assert!(get(&server, "/runs").starts_with("HTTP/1.1 200"));
    server.key = format!("otp_{}", "0".repeat(64));
    assert!(get(&server, "/runs").starts_with("HTTP/1.1 401"));
}
