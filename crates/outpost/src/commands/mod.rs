//! One file per command. Each takes its flags, talks to `dyn Api` only, and returns an exit code.

pub(crate) mod agents;
pub(crate) mod apply;
pub(crate) mod artifacts;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod dispatch;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod fleet;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod mcp;
pub(crate) mod mcp_install;
pub(crate) mod network;
pub(crate) mod promote;
pub(crate) mod scripted;
pub(crate) mod secrets;
pub(crate) mod selftest;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod tenants;
pub(crate) mod usage;
pub(crate) mod webhooks;
pub(crate) mod workspaces;

use crate::ctx::Ctx;
use crate::error::CliError;
use crate::exit::Exit;
use outpost_args::{AgentsCommand, Command, ContextCommand, SecretsCommand, WorkspacesCommand};

/// Runs a command.
pub(crate) async fn run(ctx: &Ctx, command: Command) -> Result<Exit, CliError> {
    let ui = &ctx.ui;
    match command {
        Command::Dispatch(args) => Box::pin(dispatch::run(ctx, *args)).await,
        Command::Ls(args) => ls::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Status(args) => status::run(ui, &*ctx.connect().await?.api, &args).await,
        Command::Logs(args) => logs::run(ui, &*ctx.connect().await?.api, &args).await,
        Command::Events(args) => events::run(ui, &*ctx.connect().await?.api, &args).await,
        Command::Diff(args) => diff::run(ui, &*ctx.connect().await?.api, &args).await,
        Command::Context(args) => match args.command {
            ContextCommand::Preview(args) => {
                context::preview(ui, &ctx.config()?.read_profiles()?, &args)
            }
            ContextCommand::Show(args) => {
                context::show(ui, &*ctx.connect().await?.api, &args).await
            }
        },
        Command::Apply(args) => apply::run(ui, &*ctx.connect().await?.api, &args).await,
        Command::Promote(args) => promote::run(ui, &*ctx.connect().await?.api, &args).await,
        Command::Cancel(args) => cancel::run(ui, &*ctx.connect().await?.api, &args).await,
        Command::Network(args) => network::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Secrets(args) => match args.command {
            SecretsCommand::Set(args) => {
                let request = secrets::read(ui, &args)?;
                secrets::set(ui, &*ctx.connect().await?.api, request).await
            }
            SecretsCommand::Ls => secrets::ls(ui, &*ctx.connect().await?.api).await,
            SecretsCommand::Rm(args) => {
                let name = secrets::name(&args.name)?;
                secrets::rm(ui, &*ctx.connect().await?.api, name, args.platform).await
            }
            SecretsCommand::Rekey => secrets::rekey(ui, &*ctx.connect().await?.api).await,
        },
        Command::Workspaces(args) => {
            let api = ctx.connect().await?.api;
            match args.command {
                WorkspacesCommand::Ls => workspaces::ls(ui, &*api).await,
                WorkspacesCommand::Show(args) => workspaces::show(ui, &*api, &args.id).await,
                WorkspacesCommand::Rm(args) => workspaces::rm(ui, &*api, &args.id).await,
            }
        }
        Command::Webhooks(args) => webhooks::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Keys(args) => keys::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Tenants(args) => tenants::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Audit(args) => audit::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Backup(args) => backup::make(ctx, args).await,
        Command::Restore(args) => backup::put_back(ctx, args).await,
        Command::Artifacts(args) => artifacts::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Usage(args) => usage::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Mcp(args) => Box::pin(mcp::run(ctx, &args)).await,
        Command::Fleet(args) => fleet::run(ui, &*ctx.connect().await?.api, args).await,
        Command::Agents(args) => match args.command {
            AgentsCommand::Ls => agents::ls(ctx).await,
            AgentsCommand::Install(args) => agents::install(ctx, &args).await,
        },
        Command::Doctor(_) => doctor::run(ctx).await,
        Command::Selftest => Box::pin(selftest::run(ctx)).await,
        Command::Demo(args) => Box::pin(demo::run(ctx, &args)).await,
        Command::Bench(args) => bench::run(ctx, *args),
        Command::Serve(args) => Box::pin(serve::run(ctx, &args)).await,
        Command::Scripted(args) => scripted::run(ui, &args).await,
        Command::Completions(args) => completions::run(ui, args),
    }
}
