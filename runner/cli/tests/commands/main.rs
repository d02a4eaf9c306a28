//! The real binary, command by command.

#![expect(clippy::unwrap_used, reason = "a broken set-up shall fail loudly")]

mod models;
mod program;
mod run;
mod text;
