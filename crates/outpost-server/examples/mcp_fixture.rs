//! The server that the conformance suite of MCP asks for: its tools, resources and prompts at the product's own
//! `/mcp`, with the product's transport, checks of host, origin and key, and bounds. `cargo xtask test` runs it.
//!
//! Prints its address and its key, a line each, and ends with its standard input. Deliberately absent: what the
//! product does not offer, such as questions to the client; the suite's list of exceptions names it.
#![expect(clippy::print_stdout, reason = "whoever starts it has to learn the address")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outpost_mcp::McpHttp;
use outpost_server::{AuthError, Backend, ServerConfig, SigningKey, router_with_mcp, serve};
use outpost_testkit::FakeApi;
use outpost_types::{
    Admission, Api, ApiError, ByteStream, Caller, DispatchId, KeyId, Scope, TenantId,
};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ServerCapabilities, ServerConfig as Announced,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The key that it takes.
const KEY: &str = "fixture";
/// A picture of one red dot, PNG.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// No sound at all, WAV.
const AUDIO: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";

type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Clone)]
struct Fixture;

/// What the protocol says in JSON, as the SDK has it.
fn as_sdk<T: DeserializeOwned>(document: Value) -> Result<T, ErrorData> {
    serde_json::from_value(document)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn image() -> Value {
    json!({"type": "image", "data": IMAGE, "mimeType": "image/png"})
}

fn embedded(uri: &str) -> Value {
    let resource = json!({"uri": uri, "mimeType": "text/plain", "text": "What is embedded."});
    json!({"type": "resource", "resource": resource})
}

fn content_of(tool: &str) -> Option<Vec<Value>> {
    let audio = json!({"type": "audio", "data": AUDIO, "mimeType": "audio/wav"});
    Some(match tool {
        "test_simple_text" => vec![text("This is a simple text response for testing.")],
        "test_image_content" => vec![image()],
        "test_audio_content" => vec![audio],
        "test_embedded_resource" => vec![embedded("test://embedded-resource")],
        "test_multiple_content_types" => {
            vec![text("Several of them:"), image(), embedded("test://mixed-content-resource")]
        }
        "test_tool_with_progress" => vec![text("The progress was told.")],
        "test_error_handling" => vec![text("This tool intentionally returns an error for testing")],
        "json_schema_2020_12_tool" => vec![text("The schema is what matters.")],
        _ => return None,
    })
}

fn tools() -> Vec<Value> {
    let plain = [
        "test_simple_text",
        "test_image_content",
        "test_audio_content",
        "test_embedded_resource",
        "test_multiple_content_types",
        "test_tool_with_progress",
        "test_error_handling",
    ];
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tool = |name: &str, schema: Value| json!({"name": name, "description": "For the suite.", "inputSchema": schema});
    let mut tools: Vec<_> = plain.iter().map(|name| tool(name, nothing.clone())).collect();
    let address = json!({"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}});
    tools.push(tool(
        "json_schema_2020_12_tool",
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"address": address},
            "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
            "additionalProperties": false,
        }),
    ));
    tools
}

fn resource(uri: &str) -> Option<Value> {
    let template = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
    Some(match (uri, template) {
        ("test://static-text", _) => {
            json!({"uri": uri, "mimeType": "text/plain", "text": "The text of the static resource."})
        }
        ("test://static-binary", _) => json!({"uri": uri, "mimeType": "image/png", "blob": IMAGE}),
        (_, Some(id)) => {
            let document = json!({"id": id, "templateTest": true, "data": format!("Data of {id}")});
            json!({"uri": uri, "mimeType": "application/json", "text": document.to_string()})
        }
        _ => return None,
    })
}

fn prompts() -> Vec<Value> {
    let argument =
        |name: &str| json!({"name": name, "description": "For the suite.", "required": true});
    let prompt = |name: &str, arguments: &[Value]| json!({"name": name, "description": "For the suite.", "arguments": arguments});
    vec![
        prompt("test_simple_prompt", &[]),
        prompt("test_prompt_with_arguments", &[argument("arg1"), argument("arg2")]),
        prompt("test_prompt_with_embedded_resource", &[argument("resourceUri")]),
        prompt("test_prompt_with_image", &[]),
    ]
}

fn filled(name: &str, argument: impl Fn(&str) -> String) -> Option<Vec<Value>> {
    let message = |content: Value| json!({"role": "user", "content": content});
    Some(match name {
        "test_simple_prompt" => vec![message(text("This is a simple prompt for testing."))],
        "test_prompt_with_arguments" => {
            let said =
                format!("Arguments: arg1='{}', arg2='{}'", argument("arg1"), argument("arg2"));
            vec![message(text(&said))]
        }
        "test_prompt_with_embedded_resource" => {
            vec![message(embedded(&argument("resourceUri"))), message(text("Look at it."))]
        }
        "test_prompt_with_image" => vec![message(image()), message(text("Look at it."))],
        _ => return None,
    })
}

/// Tells the client three times how far a call is, if it asked for that.
async fn tell_progress(context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
    let Some(token) = context.meta.get_progress_token() else { return Ok(()) };
    for percent in [0, 50, 100] {
        let word =
            ProgressNotificationParam::new(token.clone(), f64::from(percent)).with_total(100.0);
        let told = context.peer.notify_progress(word).await;
        told.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    }
    Ok(())
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> Announced {
        let offered =
            ServerCapabilities::builder().enable_tools().enable_resources().enable_prompts();
        Announced::new(offered.build())
            .with_server_info(Implementation::new("outpost-fixture", "1"))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(as_sdk(Value::from(tools()))?))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let content = content_of(&request.name)
            .ok_or_else(|| ErrorData::invalid_params("There is no such tool.", None))?;
        if request.name == "test_tool_with_progress" {
            tell_progress(&context).await?;
        }
        let failed = request.name == "test_error_handling";
        let result: CallToolResult = as_sdk(json!({"content": content, "isError": failed}))?;
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let listed = ["static-text", "static-binary"]
            .map(|name| json!({"uri": format!("test://{name}"), "name": name}));
        Ok(ListResourcesResult::with_all_items(as_sdk(json!(listed))?))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = json!({"uriTemplate": "test://template/{id}/data", "name": "template"});
        Ok(ListResourceTemplatesResult::with_all_items(as_sdk(json!([template]))?))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = resource(&request.uri)
            .ok_or_else(|| ErrorData::resource_not_found("There is no such resource.", None))?;
        Ok(ReadResourceResult::new(as_sdk(json!([contents]))?).into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(as_sdk(Value::from(prompts()))?))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let argument =
            |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let messages = filled(&request.name, argument)
            .ok_or_else(|| ErrorData::invalid_params("There is no such prompt.", None))?;
        Ok(GetPromptResult::new(as_sdk(Value::from(messages))?).into())
    }
}

/// One key, and nothing behind it.
struct Nothing(Arc<Caller>);

#[async_trait]
impl Backend for Nothing {
    fn authenticate(&self, key: &str) -> Result<Admission, AuthError> {
        match key {
            KEY => Ok(Admission { caller: Arc::clone(&self.0), requests_per_minute: None }),
            _ => Err(AuthError::Unknown),
        }
    }

    fn api(&self, _caller: &Arc<Caller>) -> Arc<dyn Api> {
        Arc::new(FakeApi::default())
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn artifact_for_signed(
        &self,
        _tenant: &TenantId,
        _id: DispatchId,
        _name: &str,
    ) -> Result<ByteStream, ApiError> {
        Err(ApiError::not_found())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let caller = Caller {
        tenant: "local".parse()?,
        key: KeyId::from_parts(1, 1),
        scopes: [Scope::Status].into_iter().collect(),
    };
    let config = ServerConfig::new(address, SigningKey::new([1; 32]));
    let heartbeat: Duration = config.heartbeat;
    let mcp = McpHttp::with_handler(heartbeat, Fixture);
    let router = router_with_mcp(config, Arc::new(Nothing(Arc::new(caller))), mcp);
    println!("http://{address}\n{KEY}");
    let ended = tokio::task::spawn_blocking(|| {
        // Whoever started it holds the other end.
        let _ = std::io::stdin().read(&mut [0]);
    });
    serve(listener, router, async {
        let _ = ended.await;
    })
    .await;
    Ok(())
}
