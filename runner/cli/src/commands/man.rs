//! `runner man [DIR]`

use std::{fs, path::PathBuf};

use clap::{CommandFactory, ValueHint};
use clap_mangen::Man;

use crate::{Exit, args::Cli, failure::Failure, output::Output};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Write runner.1, runner-run.1 and so on there, instead of printing runner.1
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let command = Cli::command();
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(Failure::failed)?;
        output.raw(&page)?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(folder).map_err(Failure::file("make", folder))?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder).map_err(Failure::file("write", folder))?;
    if output.json {
        output.document(&serde_json::json!({"folder": folder}))?;
    }
    output.text(&format!("the pages are in {}: man -l {}\n", folder.display(), folder.join("runner.1").display()))?;
    Ok(Exit::Done)
}
