//! The database goes away in the middle.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use runner_testbed::Direction;

use crate::site::Site;

/// Runs, lets `disturb` do its worst as soon as so many tasks are done, and expects the right result all the same.
fn outlives(site: &Site, context: &str, tasks: i64, disturb: impl FnOnce()) {
    let mut child = site.start();
    if site.wait_for_tasks(&mut child, tasks) {
        disturb();
    }
    let ended = site.finish(child);
    site.is_right(&ended, context);
    site.settles(context);
}

#[test]
fn a_run_outlives_cut_connections() {
    let site = Site::team();
    outlives(&site, "ended by the server", 2, || site.postgres().disconnect());
    let site = Site::team();
    outlives(&site, "cut by the network", 3, || site.database().cut());
}

#[test]
fn a_run_outlives_a_server_that_restarts_or_crashes() {
    let site = Site::team_alone();
    outlives(&site, "restarted", 2, || site.postgres().restart());
    let site = Site::team_alone();
    outlives(&site, "crashed", 2, || {
        site.postgres().crash();
        thread::sleep(Duration::from_millis(200));
        site.postgres().restart();
    });
}

/// Nobody knows whether it was committed; to do it again must do no harm.
#[test]
fn a_run_outlives_lost_replies_to_commit() {
    for skip in 0..3 {
        let site = Site::team();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // The reply to every second, third, fourth commit.
                let mut lost = u64::MAX;
                while !over.load(Ordering::Relaxed) {
                    let happened = site.database().happened();
                    if happened != lost {
                        lost = happened;
                        site.database().lose_reply(b"COMMIT", skip + 1);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let ended = site.run();
            over.store(true, Ordering::Relaxed);
            site.is_right(&ended, "lost replies");
        });
        assert!(site.database().happened() > 0);
        site.database().heal();
        site.settles("lost replies");
    }
}

#[test]
fn a_run_outlives_a_connection_that_breaks_anywhere() {
    for bytes in [2_000, 8_000, 20_000] {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let site = Site::team();
            site.database().cut_after(direction, bytes);
            let (ended, context) = (site.run(), format!("{bytes} bytes {direction:?}"));
            // Before the program has seen the database at all it may also say that there is none.
            let told = ended.stderr.contains(&format!("no connection to {}", site.database().address()));
            if ended.code != Some(1) || !told {
                site.is_right(&ended, &context);
            }
            site.database().heal();
            site.settles(&context);
        }
    }
}

#[test]
fn a_database_that_is_not_there_is_told() {
    let site = Site::team_alone();
    let address = site.database().address().to_string();
    site.postgres().stop();
    let ended = site.run();
    assert!(ended.code.is_some_and(|code| code != 0));
    assert!(ended.stderr.contains(&address.replace("127.0.0.1:", "")), "{}", ended.stderr);
    site.postgres().restart();
    site.settles("started");
}
