//! From what a person typed to one dispatch: a whole id, the start or end of one, or `last`.

use outpost_types::limits::LIST_LIMIT_MAX;
use outpost_types::{Api, DispatchId, ListQuery};

use crate::error::CliError;

/// Pages of [`LIST_LIMIT_MAX`] that are searched for a part of an id.
const SEARCH_PAGES_MAX: usize = 10;
/// Shortest part of an id that is searched for, characters.
const PART_CHARACTERS_MIN: usize = 3;
/// Characters of a whole id.
const ID_CHARACTERS: usize = 26;
/// Ids that an ambiguity error lists.
const LISTED_MAX: usize = 5;

/// Finds the dispatch that `text` means.
pub(crate) async fn dispatch(api: &dyn Api, text: &str) -> Result<DispatchId, CliError> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("last") {
        return last(api).await;
    }
    let wanted = text.to_ascii_uppercase();
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    if !(PART_CHARACTERS_MIN..ID_CHARACTERS).contains(&wanted.len())
        || !wanted.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err(CliError::usage(format!(
            "{text:?} is no dispatch: expected an id, its first or last {PART_CHARACTERS_MIN} or more characters, or `last`"
        ))
        .with_hint("`outpost ls` shows the ids"));
    }
    search(api, &wanted).await
}

async fn last(api: &dyn Api) -> Result<DispatchId, CliError> {
    let page = api.list_runs(ListQuery { limit: Some(1), ..ListQuery::default() }).await?;
    let newest = page.items.first().map(|view| view.dispatch_id);
    newest.ok_or_else(|| {
        CliError::failed("there is no dispatch yet")
            .with_hint("`outpost dispatch \"TASK\"` makes one")
    })
}

async fn search(api: &dyn Api, wanted: &str) -> Result<DispatchId, CliError> {
    let mut found = Vec::new();
    let mut cursor = None;
    for _ in 0..SEARCH_PAGES_MAX {
        let page = api
            .list_runs(ListQuery {
                limit: Some(LIST_LIMIT_MAX),
                cursor: cursor.take(),
                ..ListQuery::default()
            })
            .await?;
        found.extend(page.items.iter().map(|view| view.dispatch_id).filter(|id| {
            let id = id.to_string();
            id.starts_with(wanted) || id.ends_with(wanted)
        }));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(CliError::failed(format!("no dispatch starts or ends with {wanted}"))
            .with_hint("`outpost ls` shows the newest; an older one needs its whole id")),
        many => {
            let list: Vec<_> = many.iter().take(LISTED_MAX).map(ToString::to_string).collect();
            Err(CliError::usage(format!(
                "{wanted} could be any of {} dispatches: {}",
                many.len(),
                list.join(", ")
            ))
            .with_hint("type more of it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeApi};

    #[tokio::test]
    async fn whole_ids_parts_and_last() {
        let api = FakeApi::default();
        let id = fake::id(1).to_string();
        for text in [id.as_str(), &id.to_lowercase(), &id[id.len() - 4..]] {
            assert_eq!(dispatch(&api, text).await.unwrap(), fake::id(1), "{text}");
        }
        assert_eq!(dispatch(&api, "last").await.unwrap(), fake::id(2));
    }

    #[tokio::test]
    async fn what_means_nothing_or_too_much_says_so() {
        let api = FakeApi::default();
        let shared = &fake::id(0).to_string()[..8];
        let error = dispatch(&api, shared).await.unwrap_err();
        assert!(error.to_string().contains("any of 3"), "{error}");
        for text in ["", "ab", "not an id", "ZZZZ", "../..", "é√é√"] {
            assert!(dispatch(&api, text).await.is_err(), "{text:?}");
        }
    }
}
