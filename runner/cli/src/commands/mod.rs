//! The commands, one a file.

pub(crate) mod classify;
pub(crate) mod completions;
pub(crate) mod dataset;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod graph;
pub(crate) mod kinds;
pub(crate) mod model;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod validate;

use crate::{
    Exit,
    app::App,
    args::{Cli, Command},
    failure::Failure,
    output::Output,
};

/// Runs the command that was typed.
pub(crate) fn dispatch(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    if let Command::Completions(args) = &cli.command {
        return completions::run(args, output);
    }
    let app = App::new(&cli.global, output)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let runtime = runtime.map_err(Failure::failed)?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(&args, &app).await,
            Command::Plan(args) => plan::run(&args, &app).await,
            Command::Validate(args) => validate::run(&args, &app),
            Command::Graph(args) => graph::run(&args, &app),
            Command::Runs(args) => runs::run(&args, &app).await,
            Command::Show(args) => show::run(&args, &app).await,
            Command::Export(args) => export::run(&args, &app).await,
            Command::Classify(args) => classify::run(&args, &app),
            Command::Dataset(command) => dataset::run(&command, &app),
            Command::Model(command) => model::run(&command, &app),
            Command::Kinds(args) => kinds::run(&args, &app),
            Command::Schema(args) => schema::run(&args, &app),
            Command::Doctor(args) => doctor::run(&args, &app).await,
            Command::Completions(args) => completions::run(&args, output),
        }
    })
}
