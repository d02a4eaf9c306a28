//! The real binary, command by command.

#![expect(clippy::unwrap_used, reason = "a broken set-up shall fail loudly")]

mod evaluation;
mod explain;
mod models;
mod places;
mod program;
mod run;
mod test;
mod text;
mod watch;
