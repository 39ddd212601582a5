//! `outpost webhooks`: make, list, remove and test them, and look at what was delivered.

use std::fmt::Write as _;

use outpost_args::{WebhookAddArgs, WebhooksArgs, WebhooksCommand};
use outpost_terminal::sanitize;
use outpost_types::limits::LIST_LIMIT_DEFAULT;
use outpost_types::{
    Api, ApiError, CreateWebhook, DeliveryView, ErrorCode, WebhookId, WebhookKind, WebhookView,
};

use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;

/// Does one of them.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: WebhooksArgs) -> Result<Exit, CliError> {
    match args.command {
        WebhooksCommand::Add(args) => add(ui, api, args).await,
        WebhooksCommand::Ls => ls(ui, api).await,
        WebhooksCommand::Rm(args) => rm(ui, api, &args.id).await,
        WebhooksCommand::Test(args) => test(ui, api, &args.id).await,
        WebhooksCommand::Deliveries(args) => deliveries(ui, api, &args.id).await,
        WebhooksCommand::Replay(args) => replay(ui, api, &args.id, args.delivery).await,
    }
}

/// Makes one and prints its secret.
async fn add(ui: &Ui, api: &dyn Api, args: WebhookAddArgs) -> Result<Exit, CliError> {
    let kinds = args.events.iter().map(|name| kind(name)).collect::<Result<Vec<_>, _>>()?;
    let events = Some(kinds).filter(|kinds| !kinds.is_empty());
    let created = api.create_webhook(CreateWebhook { url: args.url, events }).await?;
    if ui.verbosity.json {
        ui.json(&created)?;
    } else {
        ui.note(&format!(
            "Webhook {} is made. Its secret is shown only now; receivers verify deliveries with it:",
            created.webhook.id
        ));
        ui.data(&format!("{}\n", sanitize::line(&created.secret)))?;
    }
    Ok(Exit::Ok)
}

/// Lists them.
async fn ls(ui: &Ui, api: &dyn Api) -> Result<Exit, CliError> {
    let views = api.list_webhooks().await?;
    if ui.verbosity.json {
        ui.json(&views)?;
    } else if views.is_empty() {
        ui.note("There is no webhook. `outpost webhooks add URL` makes one.");
    } else {
        ui.data(&views.iter().map(line_of).collect::<String>())?;
    }
    Ok(Exit::Ok)
}

/// Removes one.
async fn rm(ui: &Ui, api: &dyn Api, id: &str) -> Result<Exit, CliError> {
    let view = api.delete_webhook(find(id)?).await.map_err(unknown)?;
    if ui.verbosity.json {
        ui.json(&view)?;
    } else {
        ui.note(&format!("Webhook {} is removed.", view.id));
    }
    Ok(Exit::Ok)
}

/// Queues a test event.
async fn test(ui: &Ui, api: &dyn Api, id: &str) -> Result<Exit, CliError> {
    let view = api.test_webhook(find(id)?).await.map_err(unknown)?;
    queued(ui, &view, id)
}

/// Queues a delivery again.
async fn replay(ui: &Ui, api: &dyn Api, id: &str, delivery: u64) -> Result<Exit, CliError> {
    let view = api.replay_delivery(find(id)?, delivery).await.map_err(unknown)?;
    queued(ui, &view, id)
}

fn queued(ui: &Ui, view: &DeliveryView, id: &str) -> Result<Exit, CliError> {
    if ui.verbosity.json {
        ui.json(view)?;
    } else {
        let what = format!("Delivery {} is queued.", view.id);
        ui.note(&format!("{what} `outpost webhooks deliveries {id}` shows what comes of it."));
    }
    Ok(Exit::Ok)
}

/// Lists what was delivered last.
async fn deliveries(ui: &Ui, api: &dyn Api, id: &str) -> Result<Exit, CliError> {
    let page = api.deliveries(find(id)?, None, LIST_LIMIT_DEFAULT).await.map_err(unknown)?;
    if ui.verbosity.json {
        ui.json(&page)?;
    } else if page.items.is_empty() {
        ui.note("Nothing was delivered to it yet.");
    } else {
        ui.data(&page.items.iter().map(line_of_delivery).collect::<String>())?;
    }
    Ok(Exit::Ok)
}

fn line_of(view: &WebhookView) -> String {
    let events: Vec<_> = view.events.iter().map(|kind| kind.as_str()).collect();
    format!("{}  {}  {}\n", view.id, sanitize::line(&view.url), events.join(","))
}

fn line_of_delivery(view: &DeliveryView) -> String {
    let mut line = format!(
        "{:<6} {}  {:<16}  {:<9}  {} tries",
        view.id,
        view.at,
        view.kind,
        view.state.as_str(),
        view.tries
    );
    if let Some(problem) = &view.problem {
        let _ = write!(line, "  {}", sanitize::line(problem));
    }
    line + "\n"
}

fn kind(name: &str) -> Result<WebhookKind, CliError> {
    let wrong = || {
        let names = WebhookKind::ALL.map(WebhookKind::as_str).join(", ");
        CliError::usage(format!("there is no event {name:?}; choose from {names}"))
    };
    name.parse().ok().filter(|kind| WebhookKind::ALL.contains(kind)).ok_or_else(wrong)
}

fn find(id: &str) -> Result<WebhookId, CliError> {
    id.parse().map_err(|_| {
        CliError::usage(format!("{id:?} is no id of a webhook"))
            .with_hint("`outpost webhooks ls` shows them")
    })
}

fn unknown(error: ApiError) -> CliError {
    match error.code {
        ErrorCode::NotFound => error.with_hint("`outpost webhooks ls` shows them").into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, webhook};
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn the_secret_is_data_and_printed_once() {
        let (ui, out, err) = Ui::captured(Verbosity::default());
        let args = |events: &[&str]| WebhookAddArgs {
            url: "https://example.com".into(),
            events: events.iter().map(|name| (*name).to_owned()).collect(),
        };
        add(&ui, &FakeApi::default(), args(&["cost.recorded"])).await.unwrap();
        assert_eq!(out.text(), "whsec_fake\n");
        assert!(!err.text().contains("whsec_"), "{}", err.text());
        for wrong in ["cost", "webhook.test"] {
            let error = add(&ui, &FakeApi::default(), args(&[wrong])).await.unwrap_err();
            assert!(error.to_string().contains("cost.recorded"), "{error}");
        }
    }

    #[tokio::test]
    async fn lists_are_lines_without_control_characters() {
        let id = webhook().id.to_string();
        let (ui, out, _) = Ui::captured(Verbosity::default());
        ls(&ui, &FakeApi::default()).await.unwrap();
        deliveries(&ui, &FakeApi::default(), &id).await.unwrap();
        let text = out.text();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("https://example.com/hook") && text.contains("dead"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[tokio::test]
    async fn unknown_ones_are_refused_with_what_to_do() {
        let (ui, _, _) = Ui::captured(Verbosity::default());
        let api = FakeApi::default();
        let other = WebhookId::from_parts(9, 9).to_string();
        for id in ["x", &other] {
            let error = rm(&ui, &api, id).await.unwrap_err();
            assert!(error.hint().unwrap().contains("webhooks ls"), "{error}");
            assert!(test(&ui, &api, id).await.is_err());
            assert!(replay(&ui, &api, id, 1).await.is_err());
        }
        replay(&ui, &api, &webhook().id.to_string(), 1).await.unwrap();
    }
}
