//! A code host on this machine: git over HTTP by git's own `http-backend`, and the parts of GitHub's and
//! GitLab's REST API that promotions use, with their ways to refuse. Also used by the tests of other crates.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

/// The token that it takes. It must be found nowhere else.
pub(crate) const TOKEN: &str = "ghp_canary0token1that2must3not4leak5";

/// What it does wrong, once each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers a request of the API with this status, headers and message.
    Api(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// Opens the pull request and never says so.
    OpenAndFallSilent,
    /// Takes the push and never says so.
    PushAndFallSilent,
    /// Refuses the push.
    RefusePush,
    /// Lists no pull request although there is one.
    HideOnce,
}

#[derive(Debug, Default)]
struct State {
    pulls: Vec<Value>,
    faults: VecDeque<Fault>,
    asked: Vec<String>,
    drafts_refused: bool,
    /// Those of other branches, which every list has before the one that is looked for.
    others: usize,
    /// Checks by commit, as the API shows them.
    checks: Vec<(String, Value)>,
    /// Commit statuses by commit.
    statuses: Vec<(String, Value)>,
    /// Reviews, comments on lines and comments on the pull request.
    reviews: Vec<Value>,
    lines: Vec<Value>,
    talk: Vec<Value>,
    /// Answers of 304.
    unchanged: usize,
}

/// The host.
#[derive(Debug)]
pub(crate) struct Standin {
    pub(crate) address: SocketAddr,
    root: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

impl Standin {
    /// Starts one with the repository `octo/hello`, whose branch `main` has one commit.
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let host = Self { address, root, state };
        let bare = host.bare();
        std::fs::create_dir_all(&bare).unwrap();
        git(&bare, &["init", "--quiet", "--bare", "--initial-branch=main", "."]);
        git(&bare, &["config", "http.receivepack", "true"]);
        git(&bare, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        let work = host.work();
        git(host.root.path(), &["clone", "--quiet", path(&bare), path(&work)]);
        std::fs::write(work.join("calc.txt"), "1\n2\n3\n").unwrap();
        commit(&work, "First");
        git(&work, &["push", "--quiet", "origin", "HEAD:main"]);
        let (state, root) = (Arc::clone(&host.state), host.root.path().to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (state, root) = (Arc::clone(&state), root.clone());
                std::thread::spawn(move || Served { state, root }.serve(stream));
            }
        });
        host
    }

    /// Its name, as a configuration has it.
    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Where git finds the repository.
    pub(crate) fn repo(&self) -> String {
        format!("http://{}/octo/hello.git", self.address)
    }

    pub(crate) fn bare(&self) -> PathBuf {
        self.root.path().join("octo/hello.git")
    }

    /// A checkout, for whoever works there beside Outpost.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn fail_with(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    pub(crate) fn refuse_drafts(&self) {
        self.state().drafts_refused = true;
    }

    /// Puts so many pull requests of other branches before all others.
    pub(crate) fn add_others(&self, count: usize) {
        self.state().others = count;
    }

    /// The pull requests it has.
    pub(crate) fn pulls(&self) -> Vec<Value> {
        self.state().pulls.clone()
    }

    /// A check of a commit has ended so, or goes on.
    pub(crate) fn check(&self, commit: &str, name: &str, conclusion: Option<&str>, said: &str) {
        let mut state = self.state();
        let id = state.checks.len() as u64 + 1;
        let status = if conclusion.is_some() { "completed" } else { "in_progress" };
        let output = json!({"title": said, "summary": null, "text": null, "annotations_count": 1});
        let run = json!({"id": id, "name": name, "status": status, "conclusion": conclusion,
            "output": output});
        state.checks.retain(|(of, known)| of != commit || known["name"] != name);
        state.checks.push((commit.to_owned(), run));
    }

    /// A status of a commit.
    pub(crate) fn status(&self, commit: &str, context: &str, state: &str) {
        let status = json!({"context": context, "state": state, "description": "it says"});
        self.state().statuses.push((commit.to_owned(), status));
    }

    /// Somebody of this association comments: `review`, `line` or `talk`.
    pub(crate) fn comment(&self, kind: &str, author: &str, association: &str, body: &str) {
        let mut state = self.state();
        let id = (state.reviews.len() + state.lines.len() + state.talk.len()) as u64 + 1;
        let made = json!({"id": id, "user": {"login": author, "type": "User"}, "body": body,
            "author_association": association, "state": "COMMENTED", "path": "calc.txt", "line": 3});
        match kind {
            "review" => state.reviews.push(made),
            "line" => state.lines.push(made),
            _ => state.talk.push(made),
        }
    }

    /// The first pull request is merged or closed.
    pub(crate) fn end_pull(&self, merged: bool) {
        let mut state = self.state();
        state.pulls[0]["state"] = "closed".into();
        state.pulls[0]["merged"] = merged.into();
    }

    /// How many answers said that nothing changed.
    pub(crate) fn unchanged(&self) -> usize {
        self.state().unchanged
    }

    /// What a dispatch keeps that went on from the one that left `on`, and wrote this file: a bundle of the
    /// whole line since `base`, and its result.
    pub(crate) fn more_changes(
        &self,
        kept: &Path,
        (base, on): (&str, &str),
        file: &str,
        text: &str,
    ) -> String {
        let work = self.work();
        git(&work, &["checkout", "--quiet", "-B", "outpost", on]);
        std::fs::create_dir_all(work.join(file).parent().unwrap()).unwrap();
        std::fs::write(work.join(file), text).unwrap();
        commit(&work, "By an agent, again");
        std::fs::create_dir_all(kept).unwrap();
        let (bundle, not_base) = (kept.join("changes.bundle"), format!("^{base}"));
        git(
            &work,
            &["bundle", "create", "--quiet", path(&bundle), "refs/heads/outpost", &not_base],
        );
        git(&work, &["rev-parse", "HEAD"])
    }

    /// Methods and paths that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// The commit of a branch.
    pub(crate) fn branch(&self, name: &str) -> Option<String> {
        branch(&self.bare(), name)
    }

    /// Adds a commit to `main` with this file.
    pub(crate) fn move_on(&self, file: &str, text: &str) -> String {
        let work = self.work();
        git(&work, &["checkout", "--quiet", "-B", "main", "origin/main"]);
        std::fs::write(work.join(file), text).unwrap();
        commit(&work, "Moved on");
        git(&work, &["push", "--quiet", "origin", "HEAD:main"]);
        git(&work, &["rev-parse", "HEAD"])
    }

    /// What a dispatch keeps that started from `main` and wrote this file: the bundle in `kept`, its base and
    /// its result.
    pub(crate) fn changes(&self, kept: &Path, file: &str, text: &str) -> (String, String) {
        let work = self.work();
        let base = self.branch("main").unwrap();
        git(&work, &["checkout", "--quiet", "-B", "outpost", &base]);
        std::fs::create_dir_all(work.join(file).parent().unwrap()).unwrap();
        std::fs::write(work.join(file), text).unwrap();
        commit(&work, "By an agent");
        std::fs::create_dir_all(kept).unwrap();
        let bundle = kept.join("changes.bundle");
        let not_base = format!("^{base}");
        git(
            &work,
            &["bundle", "create", "--quiet", path(&bundle), "refs/heads/outpost", &not_base],
        );
        (base, git(&work, &["rev-parse", "HEAD"]))
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn branch(bare: &Path, name: &str) -> Option<String> {
    let name = format!("refs/heads/{name}");
    let found = plain_git(bare).args(["rev-parse", "--verify", "--quiet", &name]).output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

fn plain_git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "T")
            .env(format!("GIT_{who}_EMAIL"), "t@example.com");
    }
    command
}

/// Runs git and answers what it says.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = plain_git(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(work: &Path, message: &str) {
    git(work, &["add", "--all", "--force"]);
    git(work, &["commit", "--quiet", "--message", message]);
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut request = Self { method, path, query, headers, body: Vec::new() };
        if request.header("transfer-encoding") == "chunked" {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                let mut piece = vec![0; size + 2];
                reader.read_exact(&mut piece).ok()?;
                if size == 0 {
                    break;
                }
                request.body.extend_from_slice(&piece[..size]);
            }
        } else {
            let length = request.header("content-length").parse().unwrap_or(0);
            request.body = vec![0; length];
            reader.read_exact(&mut request.body).ok()?;
        }
        Some(request)
    }

    fn parameter(&self, name: &str) -> String {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).next();
        value.unwrap_or_default().replace("%2F", "/").replace("%3A", ":").replace('+', " ")
    }
}

struct Served {
    state: Arc<Mutex<State>>,
    root: PathBuf,
}

/// An answer: status, headers, body; none is a silent end.
type Answer = Option<(u16, Vec<(String, String)>, Vec<u8>)>;

impl Served {
    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = Request::read(&stream) else { return };
        self.state.lock().unwrap().asked.push(format!("{} {}", request.method, request.path));
        let answer =
            if request.path.starts_with("/api/") { self.api(&request) } else { self.git(&request) };
        let Some((status, headers, body)) = answer else {
            // The client goes away first: an answer that is never sent is never late.
            let _ = stream.read(&mut [0]);
            return;
        };
        let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }

    /// Takes the next fault if it is one of these.
    fn fault(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        if state.faults.front().is_some_and(wanted) { state.faults.pop_front() } else { None }
    }

    fn git(&self, request: &Request) -> Answer {
        let sent = request.header("authorization");
        let known = ["x-access-token", "oauth2"].map(|user| {
            use base64::Engine as _;
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{TOKEN}"));
            format!("Basic {pair}")
        });
        if !known.iter().any(|known| known == sent) {
            let header = ("WWW-Authenticate".into(), "Basic realm=\"x\"".into());
            return Some((401, vec![header], Vec::new()));
        }
        let pushes = request.path.ends_with("git-receive-pack");
        if pushes && self.fault(|fault| *fault == Fault::RefusePush).is_some() {
            return Some((403, Vec::new(), b"no".to_vec()));
        }
        let silent = pushes && self.fault(|fault| *fault == Fault::PushAndFallSilent).is_some();
        let mut command = plain_git(&self.root);
        command.arg("http-backend").env("GIT_PROJECT_ROOT", &self.root);
        for (name, value) in [
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("REMOTE_USER", "t"),
            ("PATH_INFO", &request.path),
            ("QUERY_STRING", &request.query),
            ("REQUEST_METHOD", &request.method),
            ("CONTENT_TYPE", request.header("content-type")),
            ("CONTENT_LENGTH", &request.body.len().to_string()),
            ("HTTP_CONTENT_ENCODING", request.header("content-encoding")),
            ("GIT_PROTOCOL", request.header("git-protocol")),
        ] {
            command.env(name, value);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git is there");
        let mut stdin = child.stdin.take().expect("piped");
        let body = request.body.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&body));
        let output = child.wait_with_output().expect("it ends").stdout;
        let _ = writer.join();
        if silent { None } else { Some(cgi(&output)) }
    }

    fn api(&self, request: &Request) -> Answer {
        let bearer = request.header("authorization") == format!("Bearer {TOKEN}");
        if !bearer && request.header("private-token") != TOKEN {
            return said(401, "Bad credentials");
        }
        if let Some(Fault::Api(status, headers, message)) =
            self.fault(|fault| matches!(fault, Fault::Api(..)))
        {
            let body = json!({ "message": message }).to_string().into_bytes();
            let headers = headers.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            return Some((status, headers, body));
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api/repos/octo/hello/pulls") => self.list(request, false),
            ("POST", "/api/repos/octo/hello/pulls") => self.open(request, false),
            ("GET", "/api/projects/octo%2Fhello/merge_requests") => self.list(request, true),
            ("POST", "/api/projects/octo%2Fhello/merge_requests") => self.open(request, true),
            ("GET", path) => self.pull_request(request, path),
            _ => said(404, "Not Found"),
        }
    }

    /// What belongs to a pull request, with an `etag` that follows from what it says.
    fn pull_request(&self, request: &Request, path: &str) -> Answer {
        let rest = path.strip_prefix("/api/repos/octo/hello/").unwrap_or_default();
        let parts: Vec<&str> = rest.split('/').collect();
        let mut state = self.state.lock().unwrap();
        let of = |all: &[(String, Value)], commit: &str| -> Vec<Value> {
            all.iter().filter(|(of, _)| of == commit).map(|(_, it)| it.clone()).collect()
        };
        let found = match parts.as_slice() {
            ["pulls", "1"] => state.pulls.first().cloned().map(|mut pull| {
                // The host shows the branch as it is.
                let name = head(&pull).to_owned();
                pull["head"]["sha"] = branch(&self.root.join("octo/hello.git"), &name).into();
                pull["user"] = json!({"login": "outpost-bot"});
                pull
            }),
            ["commits", commit, "check-runs"] => {
                Some(json!({ "check_runs": of(&state.checks, commit) }))
            }
            ["commits", commit, "status"] => {
                Some(json!({"state": "pending", "statuses": of(&state.statuses, commit)}))
            }
            ["check-runs", _, "annotations"] => {
                Some(json!([{"path": "calc.txt", "start_line": 3, "message": "expected 5"}]))
            }
            ["pulls", "1", "reviews"] => Some(state.reviews.clone().into()),
            ["pulls", "1", "comments"] => Some(state.lines.clone().into()),
            ["issues", "1", "comments"] => Some(state.talk.clone().into()),
            _ => None,
        };
        let Some(found) = found else { return said(404, "Not Found") };
        let body = found.to_string();
        let tag = format!("W/\"{:x}\"", hash(&body));
        if request.header("if-none-match") == tag {
            state.unchanged += 1;
            return Some((304, Vec::new(), Vec::new()));
        }
        Some((200, vec![("ETag".into(), tag)], body.into_bytes()))
    }

    fn list(&self, request: &Request, gitlab: bool) -> Answer {
        let hide = self.fault(|fault| *fault == Fault::HideOnce).is_some();
        let state = self.state.lock().unwrap();
        let wanted = match gitlab {
            true => request.parameter("source_branch"),
            false => request.parameter("head").trim_start_matches("octo:").to_owned(),
        };
        let other = |n: usize| pull(9_000 + n as u64, "other", "0", gitlab);
        let matches = |item: &&Value| head(item) == wanted;
        let own = state.pulls.iter().filter(|item| !hide && matches(item)).cloned();
        let all: Vec<Value> = (0..state.others).map(other).chain(own).collect();
        let number = |name: &str| request.parameter(name).parse::<usize>().unwrap();
        let (page, size) = (number("page"), number("per_page"));
        let items: Vec<_> = all.into_iter().skip((page - 1) * size).take(size).collect();
        Some((200, Vec::new(), Value::from(items).to_string().into_bytes()))
    }

    fn open(&self, request: &Request, gitlab: bool) -> Answer {
        let wanted: Value = serde_json::from_slice(&request.body).unwrap();
        let name = wanted[if gitlab { "source_branch" } else { "head" }].as_str().unwrap();
        let bare = self.root.join("octo/hello.git");
        let Some(commit) = branch(&bare, name) else { return said(422, "head is no branch") };
        let mut state = self.state.lock().unwrap();
        if state.drafts_refused && wanted["draft"] == true {
            return said(422, "Draft pull requests are not supported in this repository.");
        }
        if state.pulls.iter().any(|item| head(item) == name) {
            let message = format!("A pull request already exists for octo:{name}.");
            return match gitlab {
                true => said(409, "Another open merge request already exists"),
                false => Some((
                    422,
                    Vec::new(),
                    json!({"message": "Validation Failed", "errors": [{"message": message}]})
                        .to_string()
                        .into_bytes(),
                )),
            };
        }
        let mut made = pull(state.pulls.len() as u64 + 1, name, &commit, gitlab);
        made["asked"] = wanted;
        state.pulls.push(made.clone());
        drop(state);
        if self.fault(|fault| *fault == Fault::OpenAndFallSilent).is_some() {
            return None;
        }
        Some((201, Vec::new(), made.to_string().into_bytes()))
    }
}

fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn head(item: &Value) -> &str {
    item["source_branch"].as_str().or_else(|| item["head"]["ref"].as_str()).unwrap()
}

fn pull(number: u64, branch: &str, commit: &str, gitlab: bool) -> Value {
    if gitlab {
        let url = format!("https://gitlab.example/octo/hello/-/merge_requests/{number}");
        return json!({"iid": number, "web_url": url, "state": "opened", "sha": commit,
            "source_branch": branch});
    }
    let url = format!("https://github.example/octo/hello/pull/{number}");
    json!({"number": number, "html_url": url, "state": "open",
        "head": {"ref": branch, "sha": commit}})
}

fn said(status: u16, message: &str) -> Answer {
    Some((status, Vec::new(), json!({ "message": message }).to_string().into_bytes()))
}

/// What a CGI program says, as an answer.
fn cgi(output: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(output[..end].to_vec()).unwrap();
    let (mut status, mut headers) = (200, Vec::new());
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        if name == "Status" {
            status = value[..3].parse().unwrap();
        } else {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    (status, headers, output[end + 4..].to_vec())
}
