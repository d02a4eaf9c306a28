//! Two runs of one pipeline on one pair of stores.

use std::thread::sleep;

use crate::site::{Site, UNDISTURBED};

/// Both are right, and together they did the work once.
fn share(site: &Site) {
    let (one, other) = (site.start(), site.start());
    for child in [one, other] {
        let ended = site.finish(child);
        site.is_right(&ended, "together");
    }
    site.settles("together");
}

/// What the dead one held, the other takes over; what the dead one had done stays done.
fn take_over(site: impl Fn() -> Site) {
    for part in [0.3, 0.6] {
        let site = site();
        let (mut one, other) = (site.start(), site.start());
        sleep(UNDISTURBED.took.mul_f64(part));
        one.kill().unwrap();
        site.finish(one);
        let ended = site.finish(other);
        site.is_right(&ended, "the other was killed");
        site.settles("taken over");
    }
}

#[test]
fn two_runs_share_the_work_on_sqlite_and_a_folder() {
    share(&Site::local());
    take_over(Site::local);
}

#[test]
fn two_runs_share_the_work_on_postgresql_and_a_bucket() {
    share(&Site::team());
    take_over(Site::team);
}
