//! What every store must do, as one suite that each version runs in its own tests.
//!
//! Nothing here sleeps, reads a clock or draws a random number: instants and ids are made up, and
//! concurrency is judged by its outcome.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test suite that is public because other crates run it on their stores"
)]

mod dispatches;
mod keys;
pub(crate) mod lists;
mod outbox;
mod promotions;
mod retention;
pub mod sample;
mod secrets;
mod tenants;
mod trail;
mod usage;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::Store;

/// A fresh, empty store and whatever must live as long as it does (a directory, a server).
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Dropped after it.
    pub guard: Box<dyn Any + Send>,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Fixture {
    /// A store that needs nothing beside it.
    pub fn of(store: impl Store + 'static) -> Self {
        Self { store: Arc::new(store), guard: Box::new(()) }
    }

    /// A store that lives as long as `guard`.
    pub fn guarded(store: impl Store + 'static, guard: impl Any + Send) -> Self {
        Self { store: Arc::new(store), guard: Box::new(guard) }
    }
}

/// Runs every case on a store of its own. Needs a tokio runtime.
///
/// # Panics
/// When the store does not conform; the message names what it did.
pub async fn suite<F: AsyncFn() -> Fixture>(make: F) {
    macro_rules! cases {
        ($($case:path),+ $(,)?) => {$(
            let fixture = make().await;
            Box::pin($case(fixture.store.as_ref())).await;
        )+};
    }
    cases![
        dispatches::accepted_is_readable,
        dispatches::an_id_is_taken_once,
        dispatches::the_same_key_answers_for_the_same_dispatch,
        dispatches::a_key_is_free_again_when_it_expires,
        dispatches::keys_of_tenants_are_apart,
        dispatches::updates_compare_and_set,
        dispatches::terminal_records_stay,
        dispatches::attempts_follow_their_dispatch,
        dispatches::bounds_are_refused_by_name,
        dispatches::every_text_comes_back,
        dispatches::event_heads_never_move_back,
        lists::every_filter_selects,
        lists::pages_meet_without_gap_or_repeat,
        lists::the_limit_is_exact,
        lists::instants_bound_ids,
        lists::live_is_what_is_not_terminal,
        keys::keys_are_found_and_taken_back,
        keys::keys_are_paged,
        keys::uses_add_up,
        keys::a_key_takes_the_place_of_another,
        keys::what_does_not_work_is_not_replaced,
        outbox::webhooks_are_kept_with_their_secrets,
        outbox::webhooks_are_bounded,
        outbox::what_ends_is_told_once_to_those_who_want_it,
        outbox::tries_are_counted_until_it_is_given_up,
        outbox::deliveries_are_paged_and_go,
        retention::what_is_over_is_paged_by_its_end,
        retention::forgotten_records_leave_a_note_of_their_files,
        retention::retention_is_bounded,
        retention::expired_keys_and_old_sums_are_purged,
        secrets::versions_follow_each_other,
        secrets::owners_are_apart,
        secrets::secrets_are_bounded,
        secrets::secret_uses_are_counted_and_audited,
        secrets::all_are_resealed_or_none,
        trail::every_change_leaves_one_row,
        trail::refused_changes_leave_none,
        tenants::tenants_compare_and_set,
        tenants::tenants_are_paged_and_bounded,
        tenants::what_is_drained_is_one_record,
        trail::the_chain_holds,
        trail::filters_and_pages_meet,
        trail::parts_are_checked,
        usage::what_ended_is_summed_up_once,
        promotions::promotions_compare_and_set,
        promotions::open_promotions_are_found_again,
    ];
    let fixture = make().await;
    dispatches::many_at_once_are_all_kept(&fixture.store).await;
    let fixture = make().await;
    dispatches::one_of_many_updates_wins(&fixture.store).await;
    let fixture = make().await;
    dispatches::one_of_many_claims_wins(&fixture.store).await;
}
