//! The bucket refuses, stalls, breaks off and lies.

use std::time::Duration;

use runner_testbed::{Fault, On};

use crate::site::Site;

#[test]
fn a_run_outlives_what_passes() {
    let site = Site::team();
    let faults = site.s3().faults();
    for (skip, fault) in (0..).zip([
        Fault::SLOW_DOWN,
        Fault::INTERNAL,
        Fault::TOO_MANY,
        Fault::Close,
        Fault::LoseReply,
        Fault::Unsaid,
        Fault::HalfBody,
        Fault::Hang,
        Fault::Delay(Duration::from_millis(300)),
    ]) {
        for on in [On::put(), On::get(), On::head(), On::list()] {
            faults.add(on.skip(skip), fault.clone());
        }
    }
    let ended = site.run();
    assert!(faults.happened() >= 9, "{}", faults.happened());
    faults.clear();
    site.is_right(&ended, "faults that pass");
    site.settles("faults that pass");
}

#[test]
fn a_run_outlives_a_slow_bucket() {
    let site = Site::team();
    site.s3().faults().add(On::any().always(), Fault::Delay(Duration::from_millis(30)));
    let ended = site.run();
    site.is_right(&ended, "slow");
    site.settles("slow");
}

/// The run may end right where nobody reads what is missing; the next one finds out.
#[test]
fn lies_are_found_out() {
    for fault in [Fault::Lie, Fault::Truncate] {
        for skip in [0, 2, 5, 9] {
            let (site, context) = (Site::team(), format!("{fault:?} after {skip}"));
            site.s3().faults().add(On::put().skip(skip), fault.clone());
            let ended = site.run();
            if ended.code == Some(0) {
                site.is_right(&ended, &context);
            } else {
                assert!(ended.stderr.contains("artifact"), "{context}: {}", ended.stderr);
            }
            site.repairs(&context);
        }
    }
}

#[test]
fn a_bucket_that_stays_away_is_told() {
    for (fault, on) in [
        (Fault::SLOW_DOWN, On::put().skip(3)),
        (Fault::Close, On::any().skip(12)),
        (Fault::Refuse(403, "AccessDenied"), On::put().skip(1)),
    ] {
        let (site, context) = (Site::team().impatient("300ms"), format!("{fault:?}"));
        site.s3().faults().add(on.always(), fault);
        let ended = site.run();
        assert!(ended.code.is_some_and(|code| code != 0), "{context}");
        assert!(ended.stderr.contains("s3://pictures/team/runner"), "{context}: {}", ended.stderr);
        site.s3().faults().clear();
        site.settles(&context);
    }
}
