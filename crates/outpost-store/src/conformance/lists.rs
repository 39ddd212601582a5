//! Lists: filters, pages, bounds, order.
//!
//! A page may hold fewer than asked for while it says where to go on, so what is compared is always
//! all pages together.

use outpost_core::{Dispatch, Event};
use outpost_types::{DispatchId, DispatchStatus, Timestamp};

use super::sample::{self, accept_of, after, good_run};
use crate::{LIST_ROWS_MAX, ListFilter, ListPage, Store};

/// Dispatches of the filled store; every property cycles through its values at another pace.
const ROWS: u64 = 120;
const AGENTS: [&str; 2] = ["claude", "codex"];
const REPOS: [Option<&str>; 3] = [None, Some("acme/shop"), Some("acme/über shop")];
const USERS: [Option<&str>; 4] = [None, Some("ann"), Some("bob"), Some("ann ")];
const TAGS: [&[&str]; 3] = [&[], &["nightly"], &["nightly", "two\nlines", "nightly"]];
/// The one whose repository, user and tag no other has.
const RARE: u64 = 60;

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
    if serial == RARE {
        dispatch.spec.repo = Some("acme/rare".to_owned());
        dispatch.spec.user_id = Some("eve".to_owned());
        dispatch.spec.tags.push("rare".to_owned());
    }
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
pub(crate) fn expected(all: &[Dispatch], filter: &ListFilter) -> Vec<DispatchId> {
    let matches = |dispatch: &&Dispatch| {
        let spec = &dispatch.spec;
        dispatch.tenant == filter.tenant
            && filter.status.is_none_or(|status| status == dispatch.status())
            && filter.agent.as_ref().is_none_or(|agent| *agent == spec.agent)
            && (filter.repo.is_none() || filter.repo == spec.repo)
            && (filter.user.is_none() || filter.user == spec.user_id)
            && filter.tag.as_ref().is_none_or(|tag| spec.tags.contains(tag))
            && filter.since.is_none_or(|since| dispatch.id.millis() >= since.as_millis())
            && filter.until.is_none_or(|until| dispatch.id.millis() < until.as_millis())
    };
    all.iter().rev().filter(matches).map(|dispatch| dispatch.id).collect()
}

/// All pages, one after the other.
async fn all_pages(store: &dyn Store, filter: &ListFilter) -> Vec<Dispatch> {
    let mut filter = filter.clone();
    let mut found = Vec::new();
    loop {
        let page = store.list(&filter).await.unwrap();
        assert!(page.dispatches.len() <= filter.limit as usize, "{filter:?}");
        found.extend(page.dispatches);
        let Some(next) = page.next else {
            return found;
        };
        assert!(filter.before.is_none_or(|before| next < before), "pages repeat: {filter:?}");
        filter.before = Some(next);
    }
}

/// A set of filters by its bits: user, repository, tag, agent, status.
fn filter_of(set: u32, values: [&str; 4], status: DispatchStatus, limit: u32) -> ListFilter {
    let text = |bit: u32, value: &str| (set & bit != 0).then(|| value.to_owned());
    let [user, repo, tag, agent] = values;
    ListFilter {
        user: text(1, user),
        repo: text(2, repo),
        tag: text(4, tag),
        agent: text(8, agent).map(|agent| agent.parse().unwrap()),
        status: (set & 16 != 0).then_some(status),
        limit,
        ..ListFilter::of(sample::tenant("local"))
    }
}

pub(super) async fn every_filter_selects(store: &dyn Store) {
    use DispatchStatus::{Cancelled, Completed, Pending, Running};
    let all = fill(store).await;
    let common = ["ann", "acme/shop", "nightly", "codex"];
    let rare = ["eve", "acme/rare", "rare", "claude"];
    let mixed = ["ann", "acme/rare", "nightly", "claude"];
    let unknown = ["nobody", "acme/none", "none", "gemini"];
    let mut answers = 0;
    for set in 0..32_u32 {
        for status in [Pending, Completed, Cancelled, Running] {
            for values in [common, rare, mixed, unknown] {
                let filter = filter_of(set, values, status, 50);
                let found = ids(&all_pages(store, &filter).await);
                assert_eq!(found, expected(&all, &filter), "{filter:?}");
                answers += found.len();
            }
        }
    }
    assert!(answers > 1_000, "the filters hardly matched anything");
    let nobody = ListFilter::of(sample::tenant("nobody"));
    assert_eq!(store.list(&nobody).await.unwrap(), ListPage::default());
}

pub(super) async fn pages_meet_without_gap_or_repeat(store: &dyn Store) {
    let all = fill(store).await;
    let values = ["bob", "acme/über shop", "two\nlines", "codex"];
    let at = |serial| Some(Timestamp::from_millis(serial));
    for set in 0..32_u32 {
        for limit in [1, 7] {
            for (since, until) in [(None, None), (at(20), None), (at(31), at(100))] {
                let plain = filter_of(set, values, DispatchStatus::Pending, limit);
                let filter = ListFilter { since, until, ..plain };
                let found = all_pages(store, &filter).await;
                assert_eq!(ids(&found), expected(&all, &filter), "{filter:?}");
            }
        }
    }
    // They are the records, not only the ids.
    let other = ListFilter { limit: 7, ..ListFilter::of(sample::tenant("other")) };
    let mut own: Vec<_> = all.into_iter().filter(|one| one.tenant == other.tenant).collect();
    own.reverse();
    assert_eq!(all_pages(store, &other).await, own);
}

pub(super) async fn the_limit_is_exact(store: &dyn Store) {
    let all = fill(store).await;
    let plain = ListFilter::of(sample::tenant("local"));
    let greedy = ListFilter { limit: u32::MAX, ..plain.clone() };
    let page = store.list(&greedy).await.unwrap();
    assert_eq!(page.dispatches.len(), LIST_ROWS_MAX as usize);
    assert_eq!(page.next, page.dispatches.last().map(|dispatch| dispatch.id));
    let none = ListFilter { limit: 0, ..plain.clone() };
    assert_eq!(store.list(&none).await.unwrap(), ListPage::default());
    // The page that ends with the oldest is the last.
    let nightly = ListFilter { tag: Some("nightly".to_owned()), ..plain };
    for filter in [greedy, nightly] {
        let wanted = expected(&all, &filter);
        let oldest = &wanted[wanted.len() - 5..];
        let before = Some(wanted[wanted.len() - 6]);
        for (limit, next) in [(4, Some(oldest[3])), (5, None), (6, None)] {
            let page = store.list(&ListFilter { before, limit, ..filter.clone() }).await.unwrap();
            assert_eq!(ids(&page.dispatches), oldest[..oldest.len().min(limit as usize)]);
            assert_eq!(page.next, next, "{limit}");
        }
    }
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
        let found = all_pages(store, &filter).await;
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
