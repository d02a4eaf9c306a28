//! The disk is full.

use crate::site::Site;

/// The program may not write files of more than so many KiB, which is the same to it as a full disk and needs no rights.
#[test]
fn a_full_disk_is_told_and_the_next_run_goes_on() {
    for limit in [64, 150, 400] {
        let site = Site::local();
        let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", limit * 2);
        let ended = site.run_after(&["sh", "-c", &limited]);
        let context = format!("{limit} KiB");
        if ended.code == Some(0) {
            site.is_right(&ended, &context);
        } else {
            let told =
                ["no room left", "disk is full", "disk I/O error"].iter().any(|text| ended.stderr.contains(text));
            assert!(told, "{context}: {}", ended.stderr);
        }
        site.settles(&context);
    }
}
