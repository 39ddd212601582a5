//! The HTTP side of the scripted provider: paths, keys, faults, streams.
//!
//! Bounded: connections, request bodies, hangs. It listens on loopback only. Absent: model lists (404, which
//! the CLIs take as "use your own catalogue"), files, batches.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::conversation::{Conversation, Purpose, fingerprint};
use crate::journal::{Journal, JournalEntry, KeySeen, TASK_CHARS_MAX};
use crate::plan::{Counters, Plan, plan};
use crate::script::{Dialect, FaultKind, Script};
use crate::{chat, gemini, messages, read, responses};
use outpost_gateway::serve::{self, Body};

/// The key the provider expects when none is given. It is no secret: it opens nothing else.
pub const SCRIPTED_KEY: &str = "scripted-real-key";
/// Connections at once.
const CONNECTIONS_MAX: usize = 1024;
/// Largest request body, bytes.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest hang, seconds.
const HANG_SECONDS_MAX: u64 = 3600;
/// Time for what was written to leave before the connection is cut, milliseconds.
const CUT_FLUSH_MS: u64 = 20;

/// Why the scripted provider cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ScriptedError {
    /// Only loopback is allowed: it accepts anyone who knows its key.
    #[error("{0} is not a loopback address: let the scripted provider listen on 127.0.0.1")]
    NotLoopback(SocketAddr),
    /// The address is taken or not allowed.
    #[error("the scripted provider cannot listen on {addr}: choose another port")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A model provider that answers from a script.
#[derive(Debug)]
pub struct ScriptedProvider {
    script: Script,
    key: Key,
}

/// The expected key; an operator may have chosen one that matters elsewhere.
struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A running provider. Dropping it stops it.
#[derive(Debug)]
pub struct ScriptedHandle {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    release: watch::Sender<u64>,
}

#[derive(Debug)]
struct Shared {
    script: Script,
    key: Key,
    counters: Counters,
    journal: Journal,
    released: watch::Receiver<u64>,
}

impl ScriptedProvider {
    /// A provider that expects [`SCRIPTED_KEY`].
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self { script, key: Key(SCRIPTED_KEY.to_owned()) }
    }

    /// Expects another key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Key(key.into());
        self
    }

    /// Starts listening; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ScriptedError`] when the address is not loopback or cannot be used.
    pub async fn start(self, addr: SocketAddr) -> Result<ScriptedHandle, ScriptedError> {
        if !addr.ip().is_loopback() {
            return Err(ScriptedError::NotLoopback(addr));
        }
        let listen = |source| ScriptedError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let (release, released) = watch::channel(0);
        let shared = Arc::new(Shared {
            script: self.script,
            key: self.key,
            counters: Counters::default(),
            journal: Journal::default(),
            released,
        });
        let stop = CancellationToken::new();
        let answering = Arc::clone(&shared);
        let task =
            tokio::spawn(serve::run(listener, CONNECTIONS_MAX, stop.clone(), move |request| {
                let shared = Arc::clone(&answering);
                async move { shared.answer(request).await }
            }));
        Ok(ScriptedHandle { addr, shared, stop, task, release })
    }
}

impl ScriptedHandle {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Base URL without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The newest requests, oldest first.
    #[must_use]
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.shared.journal.snapshot()
    }

    /// Waits until the journal satisfies `enough`; `None` when it does not within `limit`.
    pub async fn journal_until(
        &self,
        limit: Duration,
        enough: impl Fn(&[JournalEntry]) -> bool,
    ) -> Option<Vec<JournalEntry>> {
        self.shared.journal.until(limit, enough).await
    }

    /// Lets every answer go on that hangs at this moment.
    pub fn release_hangs(&self) {
        self.release.send_modify(|generation| *generation += 1);
    }

    /// Stops, cutting all connections, and waits until the port is free.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for ScriptedHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a path stands for.
struct Endpoint {
    dialect: Dialect,
    /// Only counts tokens.
    counting: bool,
    /// Gemini names the model in the path.
    model: String,
    stream: bool,
}

fn endpoint(path: &str) -> Option<Endpoint> {
    let path = ["/v1beta", "/v1", "/beta"]
        .iter()
        .find_map(|version| path.strip_prefix(version).filter(|rest| rest.starts_with('/')))
        .unwrap_or(path);
    let plain = |dialect, counting| {
        Some(Endpoint { dialect, counting, model: String::new(), stream: false })
    };
    match path {
        "/messages" => plain(Dialect::Anthropic, false),
        "/messages/count_tokens" => plain(Dialect::Anthropic, true),
        "/responses" => plain(Dialect::Responses, false),
        "/chat/completions" => plain(Dialect::Chat, false),
        _ => {
            let (model, verb) = path.strip_prefix("/models/")?.split_once(':')?;
            let stream = match verb {
                "streamGenerateContent" => true,
                "generateContent" | "countTokens" => false,
                _ => return None,
            };
            Some(Endpoint {
                dialect: Dialect::Gemini,
                counting: verb == "countTokens",
                model: model.to_owned(),
                stream,
            })
        }
    }
}

fn error_body(dialect: Dialect, status: u16, message: &str) -> Value {
    match dialect {
        Dialect::Anthropic => messages::error(status, message),
        Dialect::Responses | Dialect::Chat => chat::error(status, message),
        Dialect::Gemini => gemini::error(status, message),
    }
}

fn json_answer(status: u16, value: &Value) -> Response<Body> {
    text_answer(status, "application/json", Bytes::from(value.to_string()))
}

fn text_answer(status: u16, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let full = Full::new(bytes).map_err(|never| match never {});
    let mut response = Response::new(full.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let mut entry = JournalEntry {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            key: self.key_seen(&head.headers, head.uri.query()),
            dialect: None,
            model: None,
            task: None,
            rule: None,
            step: None,
            aside: false,
            status: 200,
        };
        if head.method == Method::HEAD {
            self.journal.add(entry);
            return text_answer(200, "application/json", Bytes::new());
        }
        let endpoint = endpoint(head.uri.path()).filter(|_| head.method == Method::POST);
        let Some(endpoint) = endpoint else {
            entry.status = 404;
            self.journal.add(entry);
            let message = "The scripted provider has no such path.";
            return json_answer(404, &error_body(Dialect::Chat, 404, message));
        };
        entry.dialect = Some(endpoint.dialect);
        let refuse = |mut entry: JournalEntry, status: u16, message: &str| {
            entry.status = status;
            self.journal.add(entry);
            json_answer(status, &error_body(endpoint.dialect, status, message))
        };
        if entry.key != KeySeen::Ok {
            serve::drain(body).await;
            return refuse(entry, 401, "The API key is missing or wrong.");
        }
        let Ok(bytes) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return refuse(entry, 413, "The request is too large, or it was cut.");
        };
        let bytes = bytes.to_bytes();
        let Ok(body) = serde_json::from_slice::<Value>(&bytes) else {
            return refuse(entry, 400, "The request body is not valid JSON.");
        };
        let parsed = read::request(endpoint.dialect, &body, &endpoint.model, endpoint.stream);
        let conversation = Conversation::new(parsed);
        entry.model = Some(conversation.model.clone());
        if endpoint.counting {
            entry.aside = true;
            self.journal.add(entry);
            let tokens = conversation.chars.div_ceil(4);
            return json_answer(200, &json!({"input_tokens": tokens, "totalTokens": tokens}));
        }
        let id = fingerprint(&[&bytes]);
        let sse = head.uri.query().is_some_and(|query| query.contains("alt=sse"));
        self.converse(&conversation, entry, id, sse).await
    }

    async fn converse(
        &self,
        conversation: &Conversation,
        mut entry: JournalEntry,
        id: u64,
        sse: bool,
    ) -> Response<Body> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let plan = plan(&self.script, conversation, &self.counters, id, now.as_secs());
        entry.task = Some(conversation.task.chars().take(TASK_CHARS_MAX).collect());
        entry.rule.clone_from(&plan.rule);
        entry.step = plan.rule.is_some().then_some(plan.step);
        entry.aside = conversation.purpose != Purpose::Work;
        let mut released = self.released.clone();
        released.mark_unchanged();
        match &plan.fault {
            Some(FaultKind::Hang) => entry.status = 0,
            Some(FaultKind::Status { status, .. }) => entry.status = *status,
            _ => {}
        }
        self.journal.add(entry);
        tokio::time::sleep(plan.delay).await;
        match &plan.fault {
            Some(FaultKind::Hang) => hang(&mut released).await,
            Some(FaultKind::Status { status, retry_after_seconds, message }) => {
                let message = message.as_deref().unwrap_or("A fault of the script.");
                let body = error_body(conversation.dialect, *status, message);
                let mut response = json_answer(*status, &body);
                if let Some(seconds) = retry_after_seconds {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
                }
                return response;
            }
            _ => {}
        }
        write(conversation, &plan, sse, released)
    }

    fn key_seen(&self, headers: &HeaderMap, query: Option<&str>) -> KeySeen {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        let in_query =
            query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("key=")));
        let keys = [header("x-api-key"), header("x-goog-api-key"), bearer, in_query];
        let mut keys = keys.into_iter().flatten().peekable();
        if keys.peek().is_none() {
            KeySeen::Missing
        } else if keys.all(|key| key == self.key.0) {
            KeySeen::Ok
        } else {
            KeySeen::Wrong
        }
    }
}

async fn hang(released: &mut watch::Receiver<u64>) {
    let limit = Duration::from_secs(HANG_SECONDS_MAX);
    // Both ends of the wait are fine: released, or long enough.
    let _ = tokio::time::timeout(limit, released.changed()).await;
}

fn write(
    conversation: &Conversation,
    plan: &Plan,
    sse: bool,
    released: watch::Receiver<u64>,
) -> Response<Body> {
    let reply = &plan.reply;
    let dialect = conversation.dialect;
    let streaming = conversation.stream && (dialect != Dialect::Gemini || sse);
    let events = if streaming {
        match dialect {
            Dialect::Anthropic => messages::events(reply),
            Dialect::Responses => responses::events(reply),
            Dialect::Chat => chat::events(reply),
            Dialect::Gemini => gemini::events(reply),
        }
    } else {
        let body = match dialect {
            Dialect::Anthropic => messages::body(reply),
            Dialect::Responses => responses::body(reply),
            Dialect::Chat => chat::body(reply),
            // Without `alt=sse` a Gemini stream is one JSON list.
            Dialect::Gemini if conversation.stream => json!([gemini::body(reply)]),
            Dialect::Gemini => gemini::body(reply),
        };
        let text = body.to_string();
        let half = text.floor_char_boundary(text.len() / 2);
        vec![text[..half].to_owned(), text[half..].to_owned()]
    };
    let mut response = Response::new(stream_body(events, plan, released));
    let kind = if streaming { "text/event-stream" } else { "application/json" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Sends the events one by one, at the script's pace and with its faults.
fn stream_body(events: Vec<String>, plan: &Plan, released: watch::Receiver<u64>) -> Body {
    let delay = plan.pace.chunk_delay;
    let (cut, hang_at) = match plan.fault {
        Some(FaultKind::CutAfterEvents(count)) => (Some(count as usize), None),
        Some(FaultKind::HangAfterEvents(count)) => (None, Some(count as usize)),
        _ => (None, None),
    };
    let state = (events.into_iter().enumerate(), released, false);
    let frames = stream::unfold(state, move |(mut events, mut released, ended)| async move {
        if ended {
            return None;
        }
        let (index, event) = events.next()?;
        if hang_at == Some(index) {
            hang(&mut released).await;
        }
        if cut.is_some_and(|cut| index >= cut) {
            tokio::time::sleep(Duration::from_millis(CUT_FLUSH_MS)).await;
            let error: serve::BodyError = "the script cuts the stream here".into();
            return Some((Err(error), (events, released, true)));
        }
        if index > 0 && !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Some((Ok(Frame::data(Bytes::from(event))), (events, released, false)))
    });
    StreamBody::new(frames).boxed_unsync()
}
