//! The SDK's own client at the other end of a pipe.

use std::sync::Arc;
use std::time::Duration;

use outpost_mcp::{Grant, McpServer, serve};
use outpost_types::Api;
use rmcp::model::{CallToolRequestParams, CallToolResult, ProgressNotificationParam};
use rmcp::service::{NotificationContext, RunningService, ServiceExt as _};
use rmcp::{ClientHandler, RoleClient};
use serde_json::Value;
use tokio::sync::mpsc;

/// Longest wait for anything in a test. Reaching it is a failure, never a pace.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes that lie in the pipe at once.
const PIPE_BYTES: usize = 4 * 1024;

/// A client that keeps what it is told of progress.
#[derive(Debug, Clone)]
pub(crate) struct Listener(mpsc::UnboundedSender<ProgressNotificationParam>);

impl ClientHandler for Listener {
    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        let _ = self.0.send(params);
    }
}

pub(crate) struct Client {
    pub(crate) running: RunningService<RoleClient, Listener>,
    pub(crate) progress: mpsc::UnboundedReceiver<ProgressNotificationParam>,
}

impl Client {
    pub(crate) async fn of(api: Arc<dyn Api>) -> Self {
        let grant = Grant::checked_elsewhere(api).with_repo(Some("/srv/here".into()));
        Self::with(grant).await
    }

    pub(crate) async fn with(grant: Grant) -> Self {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (input, output) = tokio::io::split(theirs);
        tokio::spawn(serve(McpServer::new(Arc::new(grant)), input, output));
        let (tell, progress) = mpsc::unbounded_channel();
        let running = tokio::time::timeout(DEADLINE, Listener(tell).serve(ours)).await;
        Self { running: running.unwrap().unwrap(), progress }
    }

    pub(crate) async fn call(&self, tool: &'static str, arguments: Value) -> CallToolResult {
        let request = request(tool, arguments);
        let called = tokio::time::timeout(DEADLINE, self.running.call_tool(request)).await;
        called.unwrap().unwrap()
    }

    /// The document of a call that went well.
    pub(crate) async fn ask(&self, tool: &'static str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert_eq!(result.is_error, Some(false), "{result:?}");
        assert!(!text(&result).is_empty());
        let document = result.structured_content.unwrap();
        assert_fits(tool, &document);
        document
    }

    /// The text of a call that was refused.
    pub(crate) async fn refused(&self, tool: &'static str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result.is_error, Some(true), "{result:?}");
        assert_eq!(result.structured_content, None);
        text(&result)
    }
}

/// Clients refuse a document that does not fit the schema of its tool.
fn assert_fits(tool: &str, document: &Value) {
    let tools: Value = serde_json::from_str(&outpost_mcp::tools_json()).unwrap();
    let tool = tools.as_array().unwrap().iter().find(|known| known["name"] == tool).unwrap();
    let schema = &tool["outputSchema"];
    for name in schema["required"].as_array().unwrap() {
        assert!(document.get(name.as_str().unwrap()).is_some(), "{name} is missing: {document}");
    }
    for (name, value) in document.as_object().unwrap() {
        let kind = match value {
            Value::Number(number) if number.is_u64() => &["integer", "number"][..],
            Value::Number(_) => &["number"],
            Value::String(_) => &["string"],
            Value::Bool(_) => &["boolean"],
            Value::Array(_) => &["array"],
            Value::Object(_) => &["object"],
            Value::Null => &[],
        };
        let wanted = schema["properties"][name]["type"].as_str().unwrap_or_default();
        assert!(kind.contains(&wanted), "{name} is no {wanted}: {document}");
    }
}

pub(crate) fn request(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone())
}

pub(crate) fn text(result: &CallToolResult) -> String {
    result.content[0].as_text().unwrap().text.clone()
}
