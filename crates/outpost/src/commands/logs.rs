//! `outpost logs`: what the agent did, for people; `--raw`: what it printed.

use std::time::Duration;

use futures_util::StreamExt as _;
use outpost_terminal::{EventPrinter, sanitize};
use outpost_types::{Api, DispatchId, DispatchView, EventEnvelope, LogQuery};

use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::LogsArgs;

/// Without `--follow`, an event stream of a running dispatch is taken to be read up to now when nothing
/// has arrived for so long, milliseconds.
const QUIET_MILLIS: u64 = 400;

/// Prints the log.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &LogsArgs) -> Result<Exit, CliError> {
    let id = select::dispatch(api, &args.id).await?;
    if args.raw {
        return raw(ui, api, id, args.follow).await;
    }
    let view = api.get_dispatch(id, None, None).await?;
    let mut printer = EventPrinter::new(ui.out, view.created_at);
    let json = ui.verbosity.json;
    each_event(api, &view, 0, args.follow, |event| {
        if json {
            return ui.json(event);
        }
        let lines = printer.lines(event);
        if lines.is_empty() {
            return Ok(());
        }
        ui.data(&lines.join("\n"))
    })
    .await?;
    if !args.follow && !view.status.is_terminal() {
        ui.note(&ui.err.dim("It goes on; add -f to follow."));
    }
    Ok(Exit::Ok)
}

async fn raw(ui: &Ui, api: &dyn Api, id: DispatchId, follow: bool) -> Result<Exit, CliError> {
    let mut stream = api.logs(id, LogQuery { after: 0, follow }).await?;
    // A terminal gets clean text, line by line since a sequence may be cut anywhere; a file or pipe
    // gets the bytes as they are.
    let mut lines = Lines::default();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        if !ui.out.tty {
            ui.data_bytes(&piece)?;
            continue;
        }
        for line in lines.push(&piece) {
            ui.data(&sanitize::with_tabs(&line))?;
        }
    }
    if let Some(rest) = lines.finish() {
        ui.data(&sanitize::with_tabs(&rest))?;
    }
    Ok(Exit::Ok)
}

/// Cuts bytes into lines; a line longer than [`Lines::BYTES_MAX`] comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Longest line that is kept together, bytes.
    const BYTES_MAX: usize = 64 * 1024;

    /// Takes bytes, gives the lines that are whole, with their ends.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(part);
            if part.ends_with(b"\n") || self.0.len() >= Self::BYTES_MAX {
                lines.push(String::from_utf8_lossy(&self.0).into_owned());
                self.0.clear();
            }
        }
        lines
    }

    /// What is left without an end.
    pub(crate) fn finish(self) -> Option<String> {
        (!self.0.is_empty()).then(|| String::from_utf8_lossy(&self.0).into_owned())
    }
}

/// Hands out the events of a dispatch after `after`: to its end when it has ended or `follow` is
/// set, else up to now.
pub(crate) async fn each_event(
    api: &dyn Api,
    view: &DispatchView,
    after: u64,
    follow: bool,
    mut take: impl FnMut(&EventEnvelope) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut events = api.events(view.dispatch_id, after).await?;
    let until_end = follow || view.status.is_terminal();
    loop {
        let next = if until_end {
            events.next().await
        } else {
            match tokio::time::timeout(Duration::from_millis(QUIET_MILLIS), events.next()).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            }
        };
        match next {
            Some(event) => take(&event?)?,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    fn args(raw: bool) -> LogsArgs {
        LogsArgs { id: "last".into(), follow: false, raw }
    }

    #[tokio::test]
    async fn a_running_dispatch_is_shown_up_to_now() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let api = FakeApi { endless: true, ..FakeApi::default() };
        run(&ui, &api, &args(false)).await.unwrap();
        assert!(out.text().contains("Bash"));
        assert!(err.text().contains("-f"));
    }

    #[tokio::test]
    async fn raw_output_keeps_every_byte_in_a_pipe_and_none_that_acts_on_a_terminal() {
        let (mut ui, out, _) = Ui::captured(Verbosity::default());
        run(&ui, &FakeApi::default(), &args(true)).await.unwrap();
        assert_eq!(out.text(), "raw \x1b[31moutput\x1b[0m\n");
        ui.out.tty = true;
        run(&ui, &FakeApi::default(), &args(true)).await.unwrap();
        assert!(out.text().ends_with("raw output\n"));
    }

    #[test]
    fn lines_survive_any_cut() {
        let text = "αβ\nγ\x1b[31mδ\nrest";
        for cut in 0..text.len() {
            let (left, right) = text.as_bytes().split_at(cut);
            let mut lines = Lines::default();
            let mut all = lines.push(left);
            all.extend(lines.push(right));
            all.extend(lines.finish());
            assert_eq!(all.concat(), text);
            assert_eq!(all.len(), 3);
        }
    }
}
