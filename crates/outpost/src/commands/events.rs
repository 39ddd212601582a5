//! `outpost events`: the event stream, one JSON document a line.

use outpost_terminal::sanitize;
use outpost_types::Api;

use super::logs::each_event;
use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::EventsArgs;

/// Prints the events.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &EventsArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    let view = api.get_dispatch(id, None, None).await?;
    each_event(api, &view, args.after, args.follow, |event| {
        // Always one line, on a terminal too.
        let line = serde_json::to_string(event)
            .map_err(|error| CliError::chain("an event is no JSON", &error))?;
        ui.data(&sanitize::json(&line))
    })
    .await?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn one_document_a_line_after_the_number() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        let args = EventsArgs { id: fake::id(0).to_string(), follow: true, after: 5 };
        run(&ui, &FakeApi::default(), &args).await.unwrap();
        let text = out.text();
        let events: Vec<outpost_types::EventEnvelope> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events, fake::events().split_off(5));
        assert!(!text.contains('\x1b'));
    }
}
