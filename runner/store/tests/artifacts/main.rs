//! What is promised of artifacts, wherever they are: by content, whole or not at all, told apart from damage, and safe
//! against what servers, networks and disks do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;
mod conformance;
mod faults;
mod full;
mod messages;
