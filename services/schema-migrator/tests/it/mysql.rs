//! What holds on MariaDB holds on MySQL itself, where that is installed; and gh-ost, which needs MySQL.

use crate::run_world::{ON_MYSQL, is_on_mysql};
use grey_testkit::{Mysql, Spawned};
use std::time::Duration;

/// Tests that are run once more, with MySQL in MariaDB's place.
const TESTS: [&str; 29] = [
    "run::migrations_are_applied_once_and_recorded",
    "run::a_failing_statement_takes_the_whole_upgrade_back",
    "run::an_upgrade_that_fails_leaves_what_others_applied",
    "run::half_a_migration_without_undo_says_what_is_applied",
    "run::an_undo_that_leaves_something_behind_needs_repair",
    "run::migrations_are_undone_down_to_a_version",
    "run::an_undo_that_fails_applies_again_what_it_had_undone",
    "run::a_check_that_finds_a_row_fails_the_migration",
    "run::a_running_statement_is_stopped_when_asked_or_out_of_time",
    "run_cuts::no_lost_request_is_done_twice_or_left_out_on_mariadb",
    "run_faults::a_refused_login_is_told_at_once_and_without_the_password",
    "run_faults::a_database_that_does_not_exist_is_refused",
    "run_faults::a_database_that_is_away_is_tried_until_the_deadline",
    "run_faults::a_connection_that_is_cut_anywhere_is_recovered_from",
    "run_history::histories_of_databases_on_one_server_are_read_together",
    "run_history::what_flyway_has_migrated_is_taken_over",
    "run_history::a_backup_is_made_before_anything_is_run",
    "run_kill::a_killed_migrator_leaves_what_can_be_finished_on_mariadb",
    "run_kill::a_migrator_killed_inside_a_statement_leaves_no_doubt",
    "run_locks::of_two_migrators_one_runs_and_the_other_finds_nothing_to_do",
    "run_locks::a_history_that_is_locked_is_left_alone",
    "run_locks::a_table_that_someone_else_holds_fails_the_upgrade_in_time",
    "run_property::everything_is_applied_or_nothing_is_on_mariadb",
    "online::an_algorithm_that_the_server_cannot_keep_to_is_told_of_and_changes_nothing",
    "external::real_gh_ost_changes_a_table_while_rows_are_written",
    "external::a_change_that_real_gh_ost_refuses_leaves_the_table_and_nothing_else",
    "external::cancelling_real_gh_ost_leaves_the_table_and_nothing_else",
    "external::real_gh_ost_encrypts_when_the_url_says_so",
    "killed_tools::real_gh_ost_dies_with_its_migrator_and_the_next_one_goes_on",
];

#[tokio::test]
async fn what_holds_on_mariadb_holds_on_mysql() {
    if is_on_mysql() || !Mysql::is_installed() {
        return;
    }
    let mut again = Spawned::builder(std::env::current_exe().unwrap()).env(ON_MYSQL, "1");
    for argument in TESTS.iter().copied().chain(["--exact", "--test-threads=4"]) {
        again = again.arg(argument);
    }
    let again = again.start().unwrap();
    let status = again.wait(Duration::from_secs(1_200)).await.unwrap();
    let output = again.output();
    assert!(status.success(), "{output}");
    assert!(output.contains(&format!("{} passed", TESTS.len())), "a test was not found: {output}");
}
