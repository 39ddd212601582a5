//! `outpost fleet`: what can run on the server, and what runs now.

use outpost_terminal::fleet;
use outpost_types::Api;

use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Shows the fleet.
pub(crate) async fn run(ui: &Ui, api: &dyn Api) -> Result<Exit, CliError> {
    let view = api.fleet().await?;
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        ui.data(&fleet(ui.out, &view))?;
    }
    Ok(Exit::Ok)
}
