//! SIGKILL at any moment loses nothing that was done.
//!
//! `RUNNER_KILLS=100` kills so often on each pair of stores.

use std::{thread::sleep, time::Duration};

use crate::site::{Site, UNDISTURBED};

/// How often on each pair.
fn kills() -> u64 {
    std::env::var("RUNNER_KILLS").map_or(4, |given| given.parse().unwrap())
}

/// Numbers that look random, from 0 to 1.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn survives(site: impl Fn() -> Site, seed: u64) {
    let mut moments = Moments(seed);
    let mut left = kills();
    while left > 0 {
        // Up to three times in one place: what was done before the first counts after the last.
        let (site, times) = (site(), (1 + (moments.next() * 3.) as u64).min(left));
        let mut context = format!("seed {seed}, {left} left, killed after");
        for _ in 0..times {
            let delay = UNDISTURBED.took.mul_f64(moments.next() * 1.1);
            let mut child = site.start();
            sleep(delay);
            child.kill().unwrap();
            let ended = site.finish(child);
            context += &format!(" {} ms ({:?})", delay.as_millis(), ended.code);
        }
        site.settles(&context);
        left -= times;
    }
}

#[test]
fn sqlite_and_a_folder_survive_kills() {
    survives(Site::local, 1);
}

#[test]
fn postgresql_and_a_bucket_survive_kills() {
    survives(Site::team, 2);
}

/// A program that is stopped for longer than others wait is taken for dead only where nobody can look; here it goes on.
#[test]
fn a_program_that_sleeps_goes_on() {
    let site = Site::local();
    let child = site.start();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").arg(name).arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
    };
    sleep(UNDISTURBED.took.mul_f64(0.3));
    signal("-STOP");
    sleep(Duration::from_millis(300));
    assert_eq!(site.call(&["runs"]).code, Some(0));
    signal("-CONT");
    let ended = site.finish(child);
    site.is_right(&ended, "slept");
    site.settles("slept");
}
