//! `outpost status`: one dispatch as a card.

use std::time::Duration;

use outpost_terminal::card;
use outpost_types::Api;

use crate::clock::now;
use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::StatusArgs;

/// Longest single wait for a change, seconds; waiting goes on after it.
const WAIT_SECONDS: u64 = 30;

/// Shows the dispatch; with `--wait` once it has ended.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &StatusArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    let mut view = api.get_dispatch(id, None, None).await?;
    // Ends with the dispatch, which has a deadline of its own.
    while args.wait && !view.status.is_terminal() {
        let wait = Some(Duration::from_secs(WAIT_SECONDS));
        view = api.get_dispatch(id, wait, Some(view.generation)).await?;
    }
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        ui.data(&card(ui.out, &view, now()))?;
    }
    Ok(if args.wait { Exit::of_status(view.status) } else { Exit::Ok })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn the_exit_code_tells_only_when_waited_for() {
        let (ui, out, _) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let mut args = StatusArgs { id: fake::id(1).to_string(), wait: false };
        assert_eq!(run(&ui, &api, &args).await.unwrap(), Exit::Ok);
        args.wait = true;
        assert_eq!(run(&ui, &api, &args).await.unwrap(), Exit::Failed);
        assert!(out.text().contains("FAILED"));
    }
}
