//! `outpost ls`: dispatches, newest first.

use outpost_types::{Api, DispatchStatus, DispatchView, ListQuery, Timestamp};

use crate::args::LsArgs;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::card::paint_status;
use crate::render::format::{age, dollars, millis, now, short_id};
use crate::render::sanitize;
use crate::render::table::{Column, table};
use crate::ui::{Surface, Ui};

/// Lists one page.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: LsArgs) -> Result<Exit, CliError> {
    let page = api.list_runs(query(args)?).await?;
    if ui.verbosity.json {
        ui.json(&page)?;
        return Ok(Exit::Ok);
    }
    if page.items.is_empty() {
        ui.note("No dispatch matches. `outpost dispatch \"TASK\"` makes one.");
        return Ok(Exit::Ok);
    }
    ui.data(&rows(ui.out, &page.items, now()))?;
    if let Some(cursor) = &page.next_cursor {
        let cursor = sanitize::line(cursor);
        ui.note(&ui.err.dim(&format!("more: add --cursor {cursor}")));
    }
    Ok(Exit::Ok)
}

fn query(args: LsArgs) -> Result<ListQuery, CliError> {
    if let Some(status) = &args.status {
        status
            .parse::<DispatchStatus>()
            .map_err(|error| CliError::usage(format!("--status: {error}")))?;
    }
    for (flag, value) in [("--since", &args.since), ("--until", &args.until)] {
        if let Some(text) = value {
            text.parse::<Timestamp>().map_err(|_| {
                CliError::usage(format!("{flag}: expected an instant such as 2026-01-31T08:00:00Z"))
            })?;
        }
    }
    Ok(ListQuery {
        status: args.status,
        agent: args.agent,
        repo: args.repo,
        user: args.user,
        tag: args.tag,
        since: args.since,
        until: args.until,
        limit: args.limit,
        cursor: args.cursor,
    })
}

fn rows(surface: Surface, views: &[DispatchView], now: Timestamp) -> String {
    const COLUMNS: [Column; 7] = [
        Column::new("ID"),
        Column::new("STATUS").painted(paint_status),
        Column::new("AGENT"),
        Column::new("CREATED"),
        Column::new("TOOK").right(),
        Column::new("COST").right(),
        Column::new("TASK").flexible(),
    ];
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let cost = view.usage.as_ref().and_then(|usage| usage.cost_usd);
            vec![
                short_id(view.dispatch_id),
                view.status.as_str().to_owned(),
                sanitize::line(&view.agent),
                age(view.created_at, now),
                view.timings.total_millis.map(millis).unwrap_or_default(),
                cost.map(dollars).unwrap_or_default(),
                sanitize::line(&view.task),
            ]
        })
        .collect();
    table(surface, &COLUMNS, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeApi};
    use crate::render::assert_golden;
    use crate::ui::Verbosity;

    #[test]
    fn a_table_that_fits() {
        let views = [fake::running(), fake::failed(), fake::completed()];
        let surface = Surface { columns: Some(80), tty: true, ..Surface::PLAIN };
        let now = fake::CREATED_AT.plus_millis(200_000);
        assert_golden("ls.txt", &rows(surface, &views, now));
    }

    #[tokio::test]
    async fn json_is_the_page_of_the_api() {
        let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        run(&ui, &FakeApi::default(), LsArgs::default()).await.unwrap();
        let page: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn wrong_filters_name_the_flag() {
        let (ui, ..) = Ui::captured(Verbosity::default());
        let args = LsArgs { since: Some("yesterday".into()), ..LsArgs::default() };
        let error = run(&ui, &FakeApi::default(), args).await.unwrap_err();
        assert!(error.to_string().contains("--since"));
        assert_eq!(error.exit(), Exit::Usage);
    }
}
