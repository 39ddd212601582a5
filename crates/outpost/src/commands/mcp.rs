//! `outpost mcp`: the MCP server on standard input and output. Nothing but the protocol is written there.

use std::os::fd::AsFd;
use std::sync::Arc;

use async_trait::async_trait;
use outpost_args::{McpArgs, McpCommand};
use outpost_mcp::{Grant, Grants, McpServer};
use outpost_types::{ApiError, ErrorCode};
use serde_json::Value;
use tokio::sync::Mutex;

use super::dispatch::repository_around;
use super::mcp_install;
use crate::ctx::{Connection, Ctx};
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// The caller's way to a server. A server that ends when it is idle is started again by the next call.
struct OwnServer {
    ctx: Ctx,
    known: Mutex<Option<(String, Grant)>>,
}

impl OwnServer {
    /// Whether the server at `url` is still the one to ask.
    fn is_there(&self, url: &str) -> bool {
        self.ctx.global.server.is_some()
            || self.ctx.config().is_ok_and(|config| {
                config.dir().running_server().is_some_and(|info| info.url == url)
            })
    }
}

#[async_trait]
impl Grants for OwnServer {
    async fn grant(&self) -> Result<Grant, ApiError> {
        let mut known = self.known.lock().await;
        if let Some((url, grant)) = known.as_ref()
            && self.is_there(url)
        {
            return Ok(grant.clone());
        }
        let connection = self.ctx.connect().await.map_err(|error| for_model(&error))?;
        let url = connection.url.clone();
        let repo = own_repository(&connection);
        let grant = Grant::checked_elsewhere(connection.api).with_repo(repo);
        *known = Some((url, grant.clone()));
        Ok(grant)
    }
}

/// The repository this process was started in, where the server can read it.
fn own_repository(connection: &Connection) -> Option<String> {
    let current = std::env::current_dir().ok().filter(|_| connection.local)?;
    repository_around(&current)?.into_os_string().into_string().ok()
}

fn for_model(error: &CliError) -> ApiError {
    let fault = ApiError::new(ErrorCode::Unavailable, error.message());
    let hint = error.hint().unwrap_or("`outpost doctor` checks this machine");
    fault.with_hint(format!("Tell the user: {hint}."))
}

/// Serves an assistant, or does what is below `outpost mcp`.
pub(crate) async fn run(ctx: &Ctx, args: &McpArgs) -> Result<Exit, CliError> {
    match &args.command {
        None => serve(ctx).await,
        Some(McpCommand::Tools) => tools(&ctx.ui),
        Some(McpCommand::Install(args)) => mcp_install::run(ctx, args),
    }
}

/// Serves the client that started this process, until it closes standard input.
async fn serve(ctx: &Ctx) -> Result<Exit, CliError> {
    // The server lives longer than a borrow of the command's own context may.
    let ui = Ui::from_process(ctx.global.color, ctx.ui.verbosity);
    let ctx = Ctx { ui, global: ctx.global.clone() };
    let own = OwnServer { ctx, known: Mutex::new(None) };
    let server = McpServer::new(Arc::new(own));
    let input = stream(std::io::stdin())?;
    let output = stream(std::io::stdout())?;
    outpost_mcp::serve(server, input, output)
        .await
        .map_err(|error| CliError::chain("the assistant cannot be served", &error))?;
    Ok(Exit::Ok)
}

fn stream(end: impl AsFd) -> Result<tokio::fs::File, CliError> {
    let own = end.as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(std::fs::File::from(own)))
}

/// Lists the tools.
fn tools(ui: &Ui) -> Result<Exit, CliError> {
    let document = outpost_mcp::tools_json();
    if ui.verbosity.json {
        ui.data(&document)?;
        return Ok(Exit::Ok);
    }
    let tools: Vec<Value> = serde_json::from_str(&document)
        .map_err(|error| CliError::chain("the list of tools cannot be read", &error))?;
    let text = |tool: &Value, key: &str| tool[key].as_str().unwrap_or_default().to_owned();
    let lines =
        tools.iter().map(|tool| format!("{:<14}{}\n", text(tool, "name"), text(tool, "title")));
    ui.data(&lines.collect::<String>())?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Verbosity;

    #[test]
    fn the_list_is_short_and_as_json_whole() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        tools(&ui).unwrap();
        assert!(out.text().contains("wait_run      Wait for a run to end\n"), "{}", out.text());
        let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        tools(&ui).unwrap();
        assert_eq!(out.text(), outpost_mcp::tools_json());
    }

    #[test]
    fn a_server_that_cannot_be_had_is_explained() {
        let error = for_model(&CliError::failed("it does not start").with_hint("look at the log"));
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert_eq!(error.hint.as_deref(), Some("Tell the user: look at the log."));
    }
}
