//! Follows one dispatch to its end: draws its events, answers Ctrl-C.

use std::time::Duration;

use futures_util::StreamExt as _;
use outpost_terminal::{FRAME_MILLIS, Live};
use outpost_types::{Api, CancelRequest, DispatchId, DispatchView};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::clock::now;
use crate::error::CliError;
use crate::ui::Ui;

/// How long the record may lag behind the terminal event, seconds.
const SETTLE_SECONDS_MAX: u64 = 10;
/// Ctrl-C presses that may wait to be answered.
const INTERRUPTS_MAX: usize = 4;

/// Presses of Ctrl-C, once somebody listens for them.
#[derive(Debug)]
pub(crate) struct Interrupts(mpsc::Receiver<Interrupt>);

/// Who wants the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// A person, by Ctrl-C.
    Keyboard,
    /// A service manager, by SIGTERM: a restart or an upgrade, most likely.
    Terminate,
}

impl Interrupts {
    /// From now on Ctrl-C and SIGTERM do not end the process but arrive here.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = mpsc::channel(INTERRUPTS_MAX);
        let kinds = [
            (SignalKind::interrupt(), Interrupt::Keyboard),
            (SignalKind::terminate(), Interrupt::Terminate),
        ];
        for (kind, interrupt) in kinds {
            let Ok(mut signals) = signal(kind) else { continue };
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() && sender.send(interrupt).await.is_ok() {}
            });
        }
        Self(receiver)
    }

    /// Presses sent by a test.
    #[cfg(test)]
    pub(crate) fn from_channel(receiver: mpsc::Receiver<Interrupt>) -> Self {
        Self(receiver)
    }

    /// Waits for the next press; never returns when none can come.
    pub(crate) async fn pressed(&mut self) -> Interrupt {
        match self.0.recv().await {
            Some(interrupt) => interrupt,
            None => std::future::pending().await,
        }
    }
}

/// What the first Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// The dispatch goes on, we stop watching.
    Detach,
    /// The dispatch is cancelled and watched to its end; a second one stops watching.
    Cancel,
}

/// How watching ended.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The dispatch reached a terminal state.
    Ended(Box<DispatchView>),
    /// The person left.
    Detached,
}

/// Draws the events of `view` after `after` until the dispatch ends or the person leaves.
pub(crate) async fn follow(
    ui: &Ui,
    api: &dyn Api,
    view: &DispatchView,
    interrupts: &mut Interrupts,
    on_interrupt: OnInterrupt,
) -> Result<Followed, CliError> {
    let id = view.dispatch_id;
    let mut live = Live::new(ui.err, view);
    let animated = ui.err.tty && !ui.verbosity.quiet;
    let show = |text: String| {
        if !ui.verbosity.quiet {
            ui.err_text(&text);
        }
    };
    let mut events = api.events(id, 0).await?;
    let mut frames = tokio::time::interval(Duration::from_millis(FRAME_MILLIS));
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut cancelled = false;
    loop {
        tokio::select! {
            biased;
            _ = interrupts.pressed() => {
                show(live.finish());
                if on_interrupt == OnInterrupt::Detach || cancelled {
                    return Ok(Followed::Detached);
                }
                cancelled = true;
                ui.note("Cancelling; press Ctrl-C again to stop watching.");
                cancel(api, id).await?;
            }
            event = events.next() => match event {
                Some(Ok(event)) => {
                    show(live.event(&event, now()));
                    if event.data.is_terminal() {
                        break;
                    }
                }
                Some(Err(error)) => {
                    show(live.finish());
                    return Err(CliError::from(error).with_hint(format!(
                        "the dispatch may go on: `outpost status {id}` tells"
                    )));
                }
                None => break,
            },
            _ = frames.tick(), if animated => show(live.tick(now())),
        }
    }
    show(live.finish());
    settle(api, id).await
}

async fn cancel(api: &dyn Api, id: DispatchId) -> Result<(), CliError> {
    let request = CancelRequest { reason: Some("interrupted on the command line".to_owned()) };
    match api.cancel_dispatch(id, request).await {
        Ok(_) => Ok(()),
        // It ended in the same moment: its terminal event follows.
        Err(error) if error.code == outpost_types::ErrorCode::AlreadyFinished => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The final record.
async fn settle(api: &dyn Api, id: DispatchId) -> Result<Followed, CliError> {
    let mut generation = None;
    for _ in 0..SETTLE_SECONDS_MAX {
        let wait = generation.map(|_: u64| Duration::from_secs(1));
        let view = api.get_dispatch(id, wait, generation).await?;
        if view.status.is_terminal() {
            return Ok(Followed::Ended(Box::new(view)));
        }
        generation = Some(view.generation);
    }
    Err(CliError::failed("the event stream ended before the dispatch did")
        .with_hint(format!("`outpost logs -f {id}` goes on watching")))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fake::{self, Call, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn to_the_end() {
        let (ui, _, err) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let (_sender, receiver) = mpsc::channel(1);
        let mut interrupts = Interrupts::from_channel(receiver);
        let view = fake::completed();
        let end = follow(&ui, &api, &view, &mut interrupts, OnInterrupt::Detach).await;
        assert!(matches!(end.unwrap(), Followed::Ended(view) if view.status.is_terminal()));
        assert!(err.text().contains("completed"));
    }

    fn endless() -> FakeApi {
        FakeApi {
            views: Mutex::new(vec![fake::running()]),
            events: fake::events().into_iter().take(8).collect(),
            endless: true,
            ..FakeApi::default()
        }
    }

    #[tokio::test]
    async fn the_first_interrupt_leaves_the_dispatch_alone() {
        let (ui, _, _) = Ui::captured(Verbosity::default());
        let api = endless();
        let (sender, receiver) = mpsc::channel(1);
        sender.send(Interrupt::Keyboard).await.unwrap();
        let mut interrupts = Interrupts::from_channel(receiver);
        let view = fake::running();
        let end = follow(&ui, &api, &view, &mut interrupts, OnInterrupt::Detach).await;
        assert!(matches!(end.unwrap(), Followed::Detached));
        assert_eq!(api.calls(), []);
    }

    #[tokio::test]
    async fn an_interrupt_can_cancel_and_a_second_one_leaves() {
        let (ui, _, _) = Ui::captured(Verbosity::default());
        let api = endless();
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Interrupt::Keyboard).await.unwrap();
        sender.send(Interrupt::Keyboard).await.unwrap();
        let mut interrupts = Interrupts::from_channel(receiver);
        let view = fake::running();
        let end = follow(&ui, &api, &view, &mut interrupts, OnInterrupt::Cancel).await;
        assert!(matches!(end.unwrap(), Followed::Detached));
        assert!(matches!(api.calls().as_slice(), [Call::Cancel(id, _)] if *id == fake::id(2)));
    }
}
