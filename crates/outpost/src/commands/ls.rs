//! `outpost ls`: dispatches, newest first.

use outpost_terminal::{dispatches, sanitize};
use outpost_types::limits::LIST_LIMIT_DEFAULT;
use outpost_types::{Api, ApiError, DispatchStatus, DispatchView, ListQuery, Page, Timestamp};

use crate::clock::now;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui::Ui;
use outpost_args::LsArgs;

/// Most answers that are put together into one page. A server bounds what one answer may cost, so with
/// filters that hardly ever match together, many may hold next to nothing.
const ANSWERS_MAX: usize = 1_000;

/// Lists one page.
pub(crate) async fn run(ui: &Ui, api: &dyn Api, args: LsArgs) -> Result<Exit, CliError> {
    let page = whole_page(api, query(args)?).await?;
    if ui.verbosity.json {
        ui.json(&page)?;
        return Ok(Exit::Ok);
    }
    match (page.items.as_slice(), &page.next_cursor) {
        ([], None) => ui.note("No dispatch matches. `outpost dispatch \"TASK\"` makes one."),
        ([], Some(_)) => ui.note("No dispatch matches so far."),
        (items, _) => ui.data(&dispatches(ui.out, items, now()))?,
    }
    if let Some(cursor) = &page.next_cursor {
        let cursor = sanitize::line(cursor);
        ui.note(&ui.err.dim(&format!("more: add --cursor {cursor}")));
    }
    Ok(Exit::Ok)
}

/// Asks until the page is full or there is nothing more.
async fn whole_page(api: &dyn Api, mut query: ListQuery) -> Result<Page<DispatchView>, ApiError> {
    let wanted = query.limit.unwrap_or(LIST_LIMIT_DEFAULT);
    let mut page = api.list_runs(query.clone()).await?;
    for _ in 1..ANSWERS_MAX {
        let missing = wanted.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        if missing == 0 || page.next_cursor.is_none() {
            break;
        }
        query.cursor = page.next_cursor.take();
        query.limit = Some(missing);
        let more = api.list_runs(query.clone()).await?;
        page.items.extend(more.items);
        page.next_cursor = more.next_cursor;
    }
    Ok(page)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use crate::ui::Verbosity;

    #[tokio::test]
    async fn json_is_the_page_of_the_api() {
        let (ui, out, _) = Ui::captured(Verbosity { json: true, ..Verbosity::default() });
        run(&ui, &FakeApi::default(), LsArgs::default()).await.unwrap();
        let page: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn answers_cut_short_become_one_page() {
        // A server that looks at one dispatch per answer.
        let api = FakeApi { list_items_max: Some(1), ..FakeApi::default() };
        let all = FakeApi::default().list_runs(ListQuery::default()).await.unwrap();
        for limit in [1, 2, 3, 20] {
            let query = ListQuery { limit: Some(limit), ..ListQuery::default() };
            let page = whole_page(&api, query).await.unwrap();
            let count = all.items.len().min(limit as usize);
            assert_eq!(page.items, all.items[..count]);
            assert_eq!(page.next_cursor.is_some(), count < all.items.len(), "{limit}");
        }
    }

    #[tokio::test]
    async fn an_endless_search_ends_and_says_where_to_go_on() {
        let api = FakeApi { list_items_max: Some(0), ..FakeApi::default() };
        let (ui, out, err) = Ui::captured(Verbosity::default());
        run(&ui, &api, LsArgs::default()).await.unwrap();
        assert_eq!(out.text(), "");
        assert!(err.text().contains("so far") && err.text().contains("--cursor"), "{}", err.text());
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
