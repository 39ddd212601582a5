//! `outpost diff`: the agent's changes, as a patch.

use futures_util::StreamExt as _;
use outpost_terminal::patch;
use outpost_types::{Api, DispatchId};

use super::logs::Lines;
use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::DiffArgs;

/// Largest patch that is held in memory, bytes.
pub(crate) const PATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Prints the patch: byte for byte into a file or pipe, cleaned and coloured on a terminal.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &DiffArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    if ui.verbosity.json {
        let patch = fetch(api, id).await?;
        ui.json(&serde_json::json!({
            "dispatchId": id, "diff": String::from_utf8_lossy(&patch)
        }))?;
        return Ok(Exit::Ok);
    }
    let mut stream = api.diff(id).await?;
    let (mut lines, mut empty) = (Lines::default(), true);
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        empty &= piece.is_empty();
        if !ui.out.tty && !ui.out.color {
            ui.data_bytes(&piece)?;
            continue;
        }
        for line in lines.push(&piece) {
            ui.data(&patch(ui.out, &line))?;
        }
    }
    if let Some(rest) = lines.finish() {
        ui.data(&patch(ui.out, &rest))?;
    }
    if empty {
        let view = api.get_dispatch(id, None, None).await?;
        ui.note(if view.status.is_terminal() {
            "The agent changed nothing."
        } else {
            "There is no diff yet; it is made when the agent has ended."
        });
    }
    Ok(Exit::Ok)
}

/// The whole patch.
pub(crate) async fn fetch(api: &dyn Api, id: DispatchId) -> Result<Vec<u8>, CliError> {
    let mut stream = api.diff(id).await?;
    let mut patch = Vec::new();
    while let Some(piece) = stream.next().await {
        patch.extend_from_slice(&piece?);
        if patch.len() > PATCH_BYTES_MAX {
            return Err(CliError::failed(format!(
                "the patch is larger than {PATCH_BYTES_MAX} bytes"
            ))
            .with_hint("`outpost diff ID > FILE` writes it to a file"));
        }
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn a_pipe_gets_the_exact_bytes() {
        let (mut ui, out, _) = Ui::captured(Verbosity::default());
        let api = FakeApi { patch: b"-a\r\n+\xff\x1b[0m\tb".to_vec(), ..FakeApi::default() };
        let args = DiffArgs { id: fake::id(0).to_string() };
        run(&ui, &api, &args).await.unwrap();
        assert_eq!(fetch(&api, fake::id(0)).await.unwrap(), api.patch);
        let plain = out.text();
        assert_eq!(plain, String::from_utf8_lossy(&api.patch));
        ui.out.tty = true;
        run(&ui, &api, &args).await.unwrap();
        assert_eq!(&out.text()[plain.len()..], "-a\n+\u{fffd}\tb\n");
    }
}
