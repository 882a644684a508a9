//! What every store promises: each claim runs against each store and is named after both, `sled::an_absent_row_is_none`.
//!
//! - `claims`, `copies`: the promises of the trait · `history`: stores agree on random histories
//! - `files`: what the embedded store promises of its files · `words`: change sets in short

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "store_conformance/claims.rs"]
mod claims;
#[path = "store_conformance/copies.rs"]
mod copies;
#[path = "store_conformance/files.rs"]
mod files;
#[path = "store_conformance/history.rs"]
mod history;
mod support;
#[path = "store_conformance/words.rs"]
mod words;

/// Runs every claim against the stores that `$open` opens.
macro_rules! claims_hold_for {
    ($open:path, $home:ident: $($claim:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $claim() {
            let opened = $open().await;
            super::$home::$claim(opened.store.clone()).await;
            opened.store.close().await;
        }
    )+};
}

macro_rules! every_claim_holds_for {
    ($open:path) => {
        claims_hold_for! { $open, copies:
            a_closed_store_gives_no_copy,
            a_copy_does_not_keep_the_writers_waiting,
            a_copy_holds_everything_and_ends_with_the_head,
        }
        claims_hold_for! { $open, claims:
            a_listing_shows_its_prefix_in_key_order,
            a_new_row_has_version_one_and_the_revision_of_its_change_set,
            a_page_resumes_after_a_deletion,
            a_page_resumes_after_its_last_entry,
            a_precondition_on_a_version_holds_or_refuses,
            a_precondition_on_absence_holds_or_refuses,
            a_purge_behind_an_earlier_one_changes_nothing,
            a_purge_reaches_sets_that_wait_with_it_but_not_its_own,
            a_purge_removes_the_old_ends_and_the_head_says_so,
            a_refusal_concerns_only_the_refused,
            a_refused_change_set_purges_nothing,
            a_refused_change_set_writes_nothing_at_all,
            a_replaced_row_has_the_next_version,
            a_row_beyond_the_limit_is_too_large,
            a_set_that_contradicts_itself_is_malformed,
            a_started_commit_that_is_dropped_still_commits,
            an_absent_row_is_none,
            an_entry_that_moves_within_a_set_is_no_conflict,
            an_index_key_of_another_record_is_a_conflict,
            audit_numbers_are_dense_across_refusals,
            audit_records_resume_after_a_number,
            closing_finishes_what_is_waiting_and_refuses_what_follows,
            creating_a_row_that_exists_is_a_conflict,
            deleting_a_row_removes_it_and_its_index_entries,
            deleting_a_stale_row_is_a_conflict,
            every_committed_set_has_the_next_revision,
            events_come_in_whole_revisions,
            events_resume_after_a_revision,
            index_entries_follow_their_row,
            nobody_reads_back_behind_an_acknowledged_commit,
            of_racing_writers_one_wins,
            replacing_a_row_that_is_absent_is_a_conflict,
            replacing_a_stale_row_is_a_conflict,
            the_head_follows_every_commit,
            the_linker_sees_the_record_before,
            the_newest_audit_record_is_never_purged,
        }
    };
}

mod memory {
    every_claim_holds_for!(crate::words::open_memory);
}

mod sled {
    every_claim_holds_for!(crate::words::open_sled);
}

/// The same promises when nothing stays in memory.
mod sled_without_cache {
    every_claim_holds_for!(crate::words::open_sled_without_cache);
}
