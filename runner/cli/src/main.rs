//! The program: `runner run pipelines/zero_shot_eval.yaml`.

mod app;
mod args;
mod cases;
mod clip_benchmark;
mod commands;
mod config;
mod explain;
mod failure;
mod files;
mod junit;
mod memory;
mod objects;
mod output;
mod place;
mod progress;
mod redact;
mod repeat;
mod secrets;
mod signals;
mod summary;

use std::process::ExitCode;

use clap::Parser;

use crate::{args::Cli, output::Output};

/// A tenth of a training step, and more of a decoding one, is spent in allocation otherwise.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All is well.
    Done,
    /// What was recorded failed, and was shown.
    Failed,
    /// A pipeline is invalid, and it was shown why.
    Invalid,
    /// A run ended, and a gate is not met.
    GateNotMet,
    /// Stopped on request.
    Cancelled,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let output = Output::new(&cli.global);
    let ended = commands::dispatch(cli, &output).unwrap_or_else(|failure| failure.report(&output));
    ExitCode::from(match ended {
        Exit::Done => 0,
        Exit::Failed => 1,
        Exit::Invalid => 2,
        Exit::GateNotMet => 3,
        Exit::Cancelled => 130,
    })
}

/// Shows help, or what is wrong with the command line: without the passwords that stand in it.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = output::escaped(&redact::redact(&error.to_string())).into_owned();
    // What was typed stands in it, coloured or not.
    let typed = std::env::args_os().any(|argument| argument.to_string_lossy().contains(char::is_control));
    let plain = text == error.to_string() && !typed;
    if !error.use_stderr() || plain {
        error.exit();
    }
    Output::complain(&text);
    ExitCode::from(2)
}
