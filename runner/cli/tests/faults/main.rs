//! The real program while everything round it fails: it ends right, or it fails with a clear error, and the next run
//! repairs.

#![expect(clippy::unwrap_used, reason = "a broken set-up shall fail loudly")]

mod bucket;
mod database;
mod disk;
mod kills;
mod site;
mod tars;
mod together;
