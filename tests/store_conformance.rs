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
#[path = "support/full_store.rs"]
#[expect(dead_code, reason = "here it is never full")]
mod full_store;
#[path = "store_conformance/history.rs"]
mod history;
#[path = "support/memory_store.rs"]
mod memory_store;
#[path = "support/tampering_store.rs"]
#[expect(dead_code, reason = "here nobody tampers with it")]
mod tampering_store;
#[path = "store_conformance/words.rs"]
mod words;

/// Runs claims against the stores that `$open` opens.
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

/// The sentences of the trait and of its types, in their order. What only files can break is in `files`, `copies` and
/// `store_durability`.
macro_rules! every_claim_holds_for {
    ($open:path) => {
        // `Store::commit`
        claims_hold_for! { $open, claims:
            a_refused_change_set_writes_nothing_at_all,
            the_head_follows_every_commit,
            nobody_reads_back_behind_an_acknowledged_commit,
            of_racing_writers_one_wins,
            a_refusal_concerns_only_the_refused,
            a_started_commit_that_is_dropped_still_commits,
        }
        // `Store::row`
        claims_hold_for! { $open, claims:
            an_absent_row_is_none,
            a_row_in_the_same_place_of_memory_is_the_same_row,
        }
        // `Store::index`
        claims_hold_for! { $open, claims:
            a_listing_shows_its_prefix_in_key_order,
            a_page_resumes_after_its_last_entry,
            a_page_resumes_after_a_deletion,
        }
        // `Store::events`, `Store::audit`
        claims_hold_for! { $open, claims:
            events_come_in_whole_revisions,
            events_resume_after_a_revision,
            audit_records_resume_after_a_number,
        }
        // `Store::copy`
        claims_hold_for! { $open, copies:
            a_copy_holds_everything_and_ends_with_the_head,
            a_copy_does_not_keep_the_writers_waiting,
        }
        // `Store::close`
        claims_hold_for! { $open, claims:
            closing_finishes_what_is_waiting_and_refuses_what_follows,
        }
        claims_hold_for! { $open, copies:
            a_closed_store_gives_no_copy,
        }
        // ChangeSet, Receipt
        claims_hold_for! { $open, claims:
            every_committed_set_has_the_next_revision,
            audit_numbers_are_dense_across_refusals,
            the_linker_sees_the_record_before,
            a_precondition_on_absence_holds_or_refuses,
            a_precondition_on_a_version_holds_or_refuses,
        }
        // Write, WriteAction, Row
        claims_hold_for! { $open, claims:
            a_new_row_has_version_one_and_the_revision_of_its_change_set,
            creating_a_row_that_exists_is_a_conflict,
            a_replaced_row_has_the_next_version,
            replacing_a_stale_row_is_a_conflict,
            replacing_a_row_that_is_absent_is_a_conflict,
            deleting_a_row_removes_it_and_its_index_entries,
            deleting_a_stale_row_is_a_conflict,
            deleting_what_is_expected_to_be_absent_removes_nothing,
            index_entries_follow_their_row,
        }
        // Purge
        claims_hold_for! { $open, claims:
            a_purge_removes_the_old_ends_and_the_head_says_so,
            a_purge_behind_an_earlier_one_changes_nothing,
            a_purge_reaches_sets_that_wait_with_it_but_not_its_own,
            a_refused_change_set_purges_nothing,
            the_newest_audit_record_is_never_purged,
        }
        // IndexEntry, CommitError
        claims_hold_for! { $open, claims:
            an_index_key_of_another_record_is_a_conflict,
            an_index_key_is_unique_within_its_index_alone,
            an_entry_that_moves_within_a_set_is_no_conflict,
            a_set_that_contradicts_itself_is_malformed,
            keys_and_values_of_the_longest_length_are_taken,
            a_row_beyond_the_limit_is_too_large,
            a_link_without_room_is_too_large,
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

mod full_store_over_memory {
    every_claim_holds_for!(crate::words::open_full_store);
}

mod tampering_store_over_memory {
    every_claim_holds_for!(crate::words::open_tampering_store);
}
