//! The commands, one a file.

pub(crate) mod cancel;
pub(crate) mod classify;
pub(crate) mod completions;
pub(crate) mod dataset;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod graph;
pub(crate) mod kinds;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod model;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod test;
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
    match &cli.command {
        Command::Completions(args) => return completions::run(args, output),
        Command::Man(args) => return man::run(args, output),
        _ => {}
    }
    let rehash = match &cli.command {
        Command::Run(args) => args.rehash,
        Command::Plan(args) => args.run.rehash,
        _ => false,
    };
    let app = App::new(&cli.global, rehash, output)?;
    match &cli.command {
        Command::Run(args) => wait(run::run(args, &app)),
        Command::Plan(args) => wait(plan::run(args, &app)),
        Command::Test(args) => wait(test::run(args, &app)),
        Command::Validate(args) => validate::run(args, &app),
        Command::Graph(args) => graph::run(args, &app),
        Command::Runs(args) => wait(runs::run(args, &app)),
        Command::Show(args) => wait(show::run(args, &app)),
        Command::Logs(args) => wait(logs::run(args, &app)),
        Command::Cancel(args) => wait(cancel::run(args, &app)),
        Command::Export(args) => wait(export::run(args, &app)),
        Command::Report(args) => wait(report::run(args, &app)),
        Command::Classify(args) => classify::run(args, &app),
        Command::Dataset(command) => dataset::run(command, &app),
        Command::Model(command) => model::run(command, &app),
        Command::Kinds(args) => kinds::run(args, &app),
        Command::Schema(args) => schema::run(args, &app),
        Command::Gc(args) => wait(gc::run(args, &app)),
        Command::Doctor(args) => wait(doctor::run(args, &app)),
        Command::Completions(args) => completions::run(args, output),
        Command::Man(args) => man::run(args, output),
    }
}

/// Runs what waits for a store. The others start no threads for it.
fn wait(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    runtime.map_err(Failure::failed)?.block_on(command)
}
