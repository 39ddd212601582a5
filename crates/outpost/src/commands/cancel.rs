//! `outpost cancel`: stops a dispatch.

use outpost_terminal::sanitize;
use outpost_types::limits::CANCEL_REASON_BYTES_MAX;
use outpost_types::{Api, CancelRequest};

use crate::error::CliError;
use crate::exit::Exit;
use crate::select;
use crate::ui::Ui;
use outpost_args::{CancelArgs, StatusArgs};

/// Cancels; with `--wait` until it has ended.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: &CancelArgs) -> Result<Exit, CliError> {
    if let Some(reason) = &args.reason
        && reason.len() > CANCEL_REASON_BYTES_MAX
    {
        return Err(CliError::usage(format!(
            "--reason has {} bytes; at most {CANCEL_REASON_BYTES_MAX} are allowed",
            reason.len()
        )));
    }
    let id = select::dispatch(api, &args.id).await?;
    let request = CancelRequest { reason: args.reason.clone() };
    let view = api.cancel_dispatch(id, request).await?;
    if args.wait && !view.status.is_terminal() {
        let status = StatusArgs { id: id.to_string(), wait: true };
        let exit = super::status::run(ui, api, &status).await?;
        // That it ended as cancelled is what was asked for.
        return Ok(if exit == Exit::Cancelled { Exit::Ok } else { exit });
    }
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        let agent = sanitize::line(&view.agent);
        ui.note(&format!("{id} ({agent}) is being cancelled; it ends within seconds."));
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Call, FakeApi};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn the_reason_travels_and_has_a_bound() {
        let (ui, ..) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let mut args = CancelArgs { id: "last".into(), reason: Some("x".repeat(501)), wait: false };
        let error = run(&ui, &api, &args).await.unwrap_err();
        assert!(error.to_string().contains("--reason"));
        args.reason = Some("wrong branch".into());
        run(&ui, &api, &args).await.unwrap();
        assert_eq!(api.calls(), [Call::Cancel(fake::id(2), Some("wrong branch".into()))]);
        assert!(run(&ui, &api, &args).await.is_err(), "it has ended already");
    }
}
