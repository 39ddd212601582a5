//! `outpost fleet`: what can run on the server, and what runs now; draining it.

use outpost_args::{FleetArgs, FleetCommand};
use outpost_terminal::fleet;
use outpost_types::{Api, DrainRequest, ResumeRequest};

use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Shows the fleet, after a change if one is asked for.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: FleetArgs) -> Result<Exit, CliError> {
    let view = match args.command {
        None => api.fleet().await?,
        Some(FleetCommand::Drain(args)) => {
            let request = DrainRequest { agent: args.agent, reason: args.reason };
            let view = api.drain_fleet(request).await?;
            ui.note("Nothing new is started of it; `outpost fleet resume` lets it go on.");
            view
        }
        Some(FleetCommand::Resume(args)) => {
            api.resume_fleet(ResumeRequest { agent: args.agent }).await?
        }
    };
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        ui.data(&fleet(ui.out, &view))?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use outpost_args::{DrainArgs, ResumeArgs};

    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn what_is_drained_is_shown_and_resumed() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let args = DrainArgs { agent: None, reason: Some("new disk".into()) };
        let command = Some(FleetCommand::Drain(args));
        run(&ui, &api, FleetArgs { command }).await.unwrap();
        assert!(out.text().contains("(new disk)"), "{}", out.text());
        assert!(err.text().contains("outpost fleet resume"), "{}", err.text());
        let command = Some(FleetCommand::Resume(ResumeArgs { agent: None }));
        run(&ui, &api, FleetArgs { command }).await.unwrap();
        assert_eq!(out.text().matches("draining").count(), 1, "{}", out.text());
    }
}
