//! `outpost serve`: the server, until a signal or until nobody needs it.

use std::time::Duration;

use crate::compose::{self, Running};
use crate::ctx::Ctx;
use crate::engine::Agents;
use crate::error::CliError;
use crate::exit::Exit;
use crate::follow::{Interrupt, Interrupts};
use crate::logging;
use outpost_args::ServeArgs;
use outpost_config::datadir::ServerInfo;
use outpost_config::{Config, TEMPLATE};

/// Pause between two looks at whether anybody needs the server, milliseconds.
const IDLE_LOOK_MILLIS: u64 = 500;

/// Serves.
pub(crate) async fn run(ctx: &Ctx, args: &ServeArgs) -> Result<Exit, CliError> {
    let ui = &ctx.ui;
    if args.print_config {
        ui.data(TEMPLATE)?;
        return Ok(Exit::Ok);
    }
    if args.detached {
        // Fails only for the leader of a process group, which is in no need of it.
        let _ = rustix::process::setsid();
    }
    let config = Config::load(&ctx.global, args)?;
    let dir = config.dir();
    let _lock = dir.lock_server()?;
    check_key(&config)?;
    let level = if ctx.ui.verbosity.verbose { "debug" } else { "info" };
    logging::start(level, args.log_format, ui.err.color);
    // From here on a signal must not leave sandboxes behind.
    let mut interrupts = Interrupts::listen();
    let running = compose::start(&config).await.map_err(start_failed)?;
    let info = ServerInfo {
        url: running.url.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    dir.publish(&info)?;
    if ui.verbosity.json {
        ui.json(&info)?;
    }
    tracing::info!(url = info.url, data_dir = %config.data_dir.display(), "ready");
    let idle_exit = args.idle_exit_seconds.map(Duration::from_secs);
    let agents = tokio::select! {
        interrupt = interrupts.pressed() => match interrupt {
            Interrupt::Keyboard => {
                tracing::info!("stopping; running agents are ended and collected");
                Agents::End
            }
            Interrupt::Terminate => {
                tracing::info!("ending; running agents go on until the next server takes them up");
                Agents::Leave
            }
        },
        () = idle(&running, idle_exit) => {
            tracing::info!("nobody needs this server any more; ending");
            Agents::End
        }
    };
    dir.unpublish();
    tokio::select! {
        result = running.shutdown(agents) => result.map_err(|error| {
            CliError::failed(format!("the server did not end cleanly: {error:#}"))
        })?,
        _ = interrupts.pressed() => {
            tracing::warn!("ended at once; what still ran is cleaned up at the next start");
            return Ok(Exit::Cancelled);
        }
    }
    Ok(Exit::Ok)
}

fn start_failed(error: anyhow::Error) -> CliError {
    match error.downcast::<CliError>() {
        Ok(error) => error,
        Err(error) => CliError::failed(format!("the server cannot start: {error:#}"))
            .with_hint("`outpost doctor` checks this machine"),
    }
}

/// Beyond loopback nobody gets in by accident: the operator must have made a key.
fn check_key(config: &Config) -> Result<(), CliError> {
    let path = &config.admin_key_file;
    if config.listen.ip().is_loopback() || path.exists() {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "{} can be reached by others, but there is no admin key in {}",
        config.listen,
        path.display()
    ))
    .with_hint(format!(
        "make one: (umask 077; echo \"otp_$(openssl rand -hex 32)\" > {}); or listen on 127.0.0.1",
        path.display()
    )))
}

/// Returns when nothing has run and nobody has asked for `limit`; never without a limit.
async fn idle(running: &Running, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut looks = tokio::time::interval(Duration::from_millis(IDLE_LOOK_MILLIS));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match running.api.fleet().await {
            Ok(fleet) if fleet.running == 0 && fleet.queued == 0 => {
                if running.activity.idle() >= limit {
                    return;
                }
            }
            // Busy, or unable to tell.
            _ => running.activity.touch(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outpost_config::datadir::DataDir;

    #[test]
    fn an_open_address_needs_a_key_file() {
        let temporary = tempfile::tempdir().unwrap();
        let mut config = Config::for_dir(&DataDir::new(temporary.path().into())).unwrap();
        check_key(&config).unwrap();
        config.listen = ([0, 0, 0, 0], 7711).into();
        let error = check_key(&config).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.hint().is_some_and(|hint| hint.contains("umask 077")));
        std::fs::write(&config.admin_key_file, "otp_").unwrap();
        check_key(&config).unwrap();
    }
}
