//! `outpost fleet`: what can run on the server, and what runs now.

use outpost_types::{Api, FleetView};

use crate::error::CliError;
use crate::exit::Exit;
use crate::render::format::bytes;
use crate::render::sanitize;
use crate::render::table::{Column, table};
use crate::ui::{Surface, Ui};

/// Shows the fleet.
pub(crate) async fn run(ui: &Ui, api: &dyn Api) -> Result<Exit, CliError> {
    let fleet = api.fleet().await?;
    if ui.verbosity.json {
        ui.json(&fleet)?;
    } else {
        ui.data(&text(ui.out, &fleet))?;
    }
    Ok(Exit::Ok)
}

/// Colour of "yes" and everything else.
pub(crate) fn paint_available(surface: Surface, word: &str) -> String {
    if word == "yes" { surface.green(word) } else { surface.yellow(word) }
}

fn text(surface: Surface, fleet: &FleetView) -> String {
    const COLUMNS: [Column; 7] = [
        Column::new("AGENT"),
        Column::new("AVAILABLE").painted(paint_available),
        Column::new("RUNNING").right(),
        Column::new("CPU").right(),
        Column::new("MEMORY").right(),
        Column::new("MODEL"),
        Column::new("WHY NOT").flexible(),
    ];
    let rows: Vec<Vec<String>> = fleet
        .agents
        .iter()
        .map(|agent| {
            let available = agent.availability.available;
            let reason = agent.availability.reason.as_deref().unwrap_or_default();
            vec![
                sanitize::line(&agent.agent),
                if available { "yes" } else { "no" }.to_owned(),
                format!("{}/{}", agent.running, agent.concurrency_max),
                format!("{}", f64::from(agent.resources.cpu_millis) / 1_000.0),
                bytes(agent.resources.memory_bytes),
                sanitize::line(&agent.default_model_id),
                sanitize::line(reason),
            ]
        })
        .collect();
    let mut heading = format!(
        "{} fleet: {} of {} running, {} queued",
        sanitize::line(&fleet.fleet),
        fleet.running,
        fleet.concurrency_max,
        fleet.queued
    );
    if fleet.scripted_model {
        heading.push_str(&surface.yellow("; the model is the scripted provider"));
    }
    format!("{heading}\n\n{}", table(surface, &COLUMNS, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use crate::render::assert_golden;

    #[tokio::test]
    async fn agents_with_reasons() {
        let fleet = FakeApi::default().fleet().await.unwrap();
        assert_golden("fleet.txt", &text(Surface::PLAIN, &fleet));
    }
}
