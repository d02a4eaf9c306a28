//! What every kind of records promises: the same tests for all.

#![cfg(test)]

mod bench;
mod collecting;
mod faults;
mod leases;
mod life;
mod records;

/// Tests of modules, once for each of these places.
macro_rules! conformance {
    ($($place:ident = $bench:expr,)* => $tests:tt) => {
        $(mod $place {
            use crate::bench::Bench;

            conformance!(@tests $bench, $tests);
        })*
    };
    (@tests $bench:expr, { $($module:ident { $($test:ident,)* })* }) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                crate::$module::$test($bench).await;
            }
        )*)*
    };
}

conformance! {
    sqlite = Bench::sqlite(),
    postgres = Bench::postgres(),
    => {
        records {
            what_was_recorded_comes_back_after_reopening,
            a_run_without_a_process_is_interrupted_and_a_living_one_is_not,
            a_run_is_found_by_what_people_type,
            only_the_first_bad_rows_are_kept_and_all_are_counted,
            ten_thousand_keys_are_looked_up_at_once,
            a_checkpoint_is_one_value_replaced_whole,
            a_file_that_changed_is_not_remembered,
            many_open_and_write_at_once,
        }
        leases {
            a_key_is_computed_by_one_run_at_a_time,
            a_commit_gives_the_lease_back_and_can_be_repeated,
            a_dead_run_is_relieved_of_its_keys,
            runs_that_race_for_keys_make_each_once,
        }
        life {
            a_run_hears_that_it_shall_stop,
            a_run_that_is_dropped_is_interrupted_at_once,
            a_run_far_away_is_dead_when_it_was_silent_for_long,
            a_log_is_read_on_from_where_one_was,
            runs_are_found_and_the_last_good_ones_remembered,
            what_a_run_had_about_it_comes_back,
            strange_texts_are_kept_as_well_as_can_be,
            the_records_say_what_they_are,
        }
        faults {
            every_call_is_made_again_until_it_succeeds,
            after_any_failure_the_next_run_repairs,
        }
    }
}

conformance! {
    sqlite_and_folder = Bench::sqlite(),
    sqlite_and_bucket = Bench::sqlite().with_bucket(),
    postgres_and_folder = Bench::postgres(),
    postgres_and_bucket = Bench::postgres().with_bucket(),
    => {
        collecting {
            what_is_referred_to_stays_and_the_rest_goes,
            a_quota_takes_the_longest_unused_first,
            a_commit_notices_what_was_collected_meanwhile,
            beside_running_work_nothing_is_lost,
            artifacts_of_other_records_are_left_alone,
        }
    }
}
