//! `runner completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Exit, args::Cli, failure::Failure, output::Output};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "runner", &mut script);
    output.raw(&script)?;
    Ok(Exit::Done)
}
