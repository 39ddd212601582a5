//! Lists: filters, pages, bounds, order.

use outpost_core::{Dispatch, Event};
use outpost_types::{DispatchId, DispatchStatus, Timestamp};

use super::sample::{self, accept_of, after, good_run};
use crate::{LIST_ROWS_MAX, ListFilter, Store};

/// Dispatches of the filled store; every property cycles through its values at another pace.
const ROWS: u64 = 120;
const AGENTS: [&str; 2] = ["claude", "codex"];
const REPOS: [Option<&str>; 3] = [None, Some("acme/shop"), Some("acme/über shop")];
const USERS: [Option<&str>; 4] = [None, Some("ann"), Some("bob"), Some("ann ")];
const TAGS: [&[&str]; 3] = [&[], &["nightly"], &["nightly", "two\nlines", "nightly"]];

fn pick<T: Copy>(values: &[T], serial: u64) -> T {
    let index = usize::try_from(serial).unwrap_or(0) % values.len();
    values[index]
}

fn row(serial: u64) -> Dispatch {
    let mut request = sample::request();
    request.agent = pick(&AGENTS, serial).to_owned();
    request.repo = pick(&REPOS, serial).map(str::to_owned);
    let owner = if serial.is_multiple_of(7) { "other" } else { "local" };
    let mut dispatch = sample::dispatch(serial, owner, request);
    dispatch.spec.user_id = pick(&USERS, serial / 2).map(str::to_owned);
    dispatch.spec.tags = pick(&TAGS, serial / 3).iter().map(|tag| (*tag).to_owned()).collect();
    dispatch
}

/// Fills the store; every fifth is completed, every fourth cancelled, the rest is pending.
async fn fill(store: &dyn Store) -> Vec<Dispatch> {
    let mut all = Vec::new();
    for serial in 1..=ROWS {
        let mut dispatch = row(serial);
        store.accept(accept_of(dispatch.clone())).await.unwrap();
        let events: Vec<Event> = if serial.is_multiple_of(5) {
            good_run(dispatch.id).into()
        } else if serial.is_multiple_of(4) {
            vec![Event::CancelRequested { reason: None }]
        } else {
            Vec::new()
        };
        for event in events {
            let expected = dispatch.generation;
            dispatch = after(&dispatch, &event);
            let audit = sample::audit(&dispatch, "step");
            store.update(&dispatch, expected, audit).await.unwrap();
        }
        all.push(dispatch);
    }
    all
}

fn ids(dispatches: &[Dispatch]) -> Vec<DispatchId> {
    dispatches.iter().map(|dispatch| dispatch.id).collect()
}

/// The answer by definition.
fn expected(all: &[Dispatch], filter: &ListFilter) -> Vec<DispatchId> {
    let matches = |dispatch: &&Dispatch| {
        let spec = &dispatch.spec;
        dispatch.tenant == filter.tenant
            && filter.status.is_none_or(|status| status == dispatch.status())
            && filter.agent.as_ref().is_none_or(|agent| *agent == spec.agent)
            && (filter.repo.is_none() || filter.repo == spec.repo)
            && (filter.user.is_none() || filter.user == spec.user_id)
            && filter.tag.as_ref().is_none_or(|tag| spec.tags.contains(tag))
    };
    let newest = all.iter().rev().filter(matches);
    newest.map(|dispatch| dispatch.id).take(filter.limit as usize).collect()
}

pub(super) async fn every_filter_selects(store: &dyn Store) {
    let all = fill(store).await;
    let mut answers = 0;
    for set in 0..32_u32 {
        let text = |bit: u32, value: &str| (set & bit != 0).then(|| value.to_owned());
        for status in [DispatchStatus::Pending, DispatchStatus::Completed, DispatchStatus::Running]
        {
            let filter = ListFilter {
                user: text(1, "ann"),
                repo: text(2, "acme/shop"),
                tag: text(4, "nightly"),
                agent: text(8, "codex").map(|agent| agent.parse().unwrap()),
                status: (set & 16 != 0).then_some(status),
                limit: 50,
                ..ListFilter::of(sample::tenant("local"))
            };
            let found = ids(&store.list(&filter).await.unwrap());
            assert_eq!(found, expected(&all, &filter), "{filter:?}");
            answers += found.len();
        }
    }
    assert!(answers > 100, "the filters hardly matched anything");
    let nobody = ListFilter::of(sample::tenant("nobody"));
    assert_eq!(store.list(&nobody).await.unwrap(), []);
}

pub(super) async fn pages_meet_without_gap_or_repeat(store: &dyn Store) {
    let all = fill(store).await;
    let filters = [
        ListFilter::of(sample::tenant("local")),
        ListFilter {
            tag: Some("two\nlines".to_owned()),
            ..ListFilter::of(sample::tenant("local"))
        },
        ListFilter {
            status: Some(DispatchStatus::Cancelled),
            ..ListFilter::of(sample::tenant("other"))
        },
    ];
    for mut filter in filters {
        filter.limit = 7;
        let mut found = Vec::new();
        loop {
            let page = store.list(&filter).await.unwrap();
            let Some(last) = page.last() else { break };
            filter.before = Some(last.id);
            found.extend(ids(&page));
            assert!(found.len() <= all.len(), "pages repeat: {filter:?}");
        }
        filter.limit = u32::MAX;
        assert_eq!(found, expected(&all, &filter), "{filter:?}");
    }
    let greedy = ListFilter { limit: u32::MAX, ..ListFilter::of(sample::tenant("local")) };
    let page = store.list(&greedy).await.unwrap();
    assert_eq!(page.len(), LIST_ROWS_MAX as usize);
    let none = ListFilter { limit: 0, ..greedy };
    assert_eq!(store.list(&none).await.unwrap(), []);
}

pub(super) async fn instants_bound_ids(store: &dyn Store) {
    fill(store).await;
    let list = async |since: Option<u64>, until: Option<u64>, before: Option<u64>| {
        let filter = ListFilter {
            since: since.map(Timestamp::from_millis),
            until: until.map(Timestamp::from_millis),
            before: before.map(|millis| DispatchId::from_parts(millis, 0)),
            ..ListFilter::of(sample::tenant("local"))
        };
        let found = store.list(&filter).await.unwrap();
        found.iter().map(|dispatch| dispatch.id.millis()).collect::<Vec<_>>()
    };
    assert_eq!(list(Some(10), Some(13), None).await, [12, 11, 10]);
    assert_eq!(list(Some(10), Some(13), Some(12)).await, [11, 10]);
    assert_eq!(list(Some(13), Some(13), None).await, [0_u64; 0]);
    assert_eq!(list(None, Some(3), None).await, [2, 1]);
    assert_eq!(list(Some(119), Some(u64::MAX), None).await, [120]);
    assert_eq!(list(Some(u64::MAX), None, None).await, [0_u64; 0]);
    assert_eq!(list(Some(0), Some(0), None).await, [0_u64; 0]);
}

pub(super) async fn live_is_what_is_not_terminal(store: &dyn Store) {
    let all = fill(store).await;
    let live: Vec<Dispatch> =
        all.into_iter().filter(|dispatch| !dispatch.status().is_terminal()).collect();
    assert_eq!(store.live().await.unwrap(), live);
    let mut paged = Vec::new();
    while let page = store.live_page(paged.last().copied(), 9).await.unwrap()
        && !page.is_empty()
    {
        paged.extend(ids(&page));
        assert!(paged.len() <= live.len(), "pages repeat");
    }
    assert_eq!(paged, ids(&live));
}
