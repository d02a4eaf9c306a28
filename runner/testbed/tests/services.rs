//! What the testbed promises: servers that work, go when they should, and fail as they are told.

use std::time::{Duration, Instant};

use runner_testbed::Postgres;

#[test]
fn every_test_has_its_own_database() {
    let (a, b) = (Postgres::start(), Postgres::start());
    a.execute("CREATE TABLE t (x BIGINT); INSERT INTO t VALUES (7)");
    b.execute("CREATE TABLE t (x BIGINT)");
    assert_eq!((a.number("SELECT x FROM t"), b.number("SELECT count(*) FROM t")), (7, 0));
}

#[tokio::test]
async fn what_is_committed_outlives_a_stop_and_a_crash() {
    let postgres = Postgres::alone();
    postgres.execute("CREATE TABLE t (x BIGINT)");
    postgres.execute("INSERT INTO t VALUES (1)");
    let (began, url) = (Instant::now(), postgres.url());
    postgres.restart();
    postgres.execute("INSERT INTO t VALUES (2)");
    postgres.crash();
    postgres.restart();
    assert_eq!(postgres.number("SELECT count(*) FROM t"), 2);
    assert_eq!(postgres.url(), url);
    assert!(began.elapsed() < Duration::from_secs(20));
}
