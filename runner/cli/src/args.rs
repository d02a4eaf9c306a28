//! The command line as it is typed.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum, ValueHint,
    builder::{OsStringValueParser, TypedValueParser as _},
};
use runner_engine::PlanOptions;

use crate::commands::{
    cancel, classify, completions, dataset, doctor, export, gc, graph, kinds, logs, man, model, plan, report, runs,
    schema, show, test, validate,
};

/// Run image-text model pipelines: zero-shot classification, scoring, training.
#[derive(Debug, Parser)]
#[command(name = "runner", version, propagate_version = true, max_term_width = 100, after_help = EXITS)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXITS: &str = "\
Exit codes: 0 done, 1 failed, 2 usage or invalid pipeline, 3 gate not met, 130 cancelled
Example: runner run pipelines/zero_shot_eval.yaml --set dataset=mnist:test";

/// What every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Folder of records and artifacts [default: .runner beside runner.toml, or here]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        // An empty one is none, as with the other variables.
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        env = "RUNNER_STORE",
        hide_env_values = true
    )]
    pub(crate) store: Option<PathBuf>,
    /// Where records are: postgres://USER@HOST/DATABASE, or `local` [default: SQLite in the store's folder]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "URL",
        env = "RUNNER_RECORDS",
        hide_env_values = true
    )]
    pub(crate) records: Option<String>,
    /// Where artifacts are: s3://BUCKET/PREFIX, a folder, or `local` [default: in the store's folder]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "URL|DIR",
        env = "RUNNER_ARTIFACTS",
        hide_env_values = true
    )]
    pub(crate) artifacts: Option<String>,
    /// Threads to compute with [default: all]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "N",
        env = "RUNNER_THREADS",
        hide_env_values = true
    )]
    pub(crate) threads: Option<usize>,
    /// Write one JSON document to stdout and nothing else
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress, less text
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More text
    #[arg(short, long, global = true, hide_short_help = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// When to colour (NO_COLOR is honoured)
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", hide_short_help = true)]
    pub(crate) color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline; what is computed already is taken from the cache
    Run(RunArgs),
    /// Show what a run would compute, why, and what it would find in the cache
    Plan(plan::Args),
    /// Check pipelines and show everything that is wrong
    Validate(validate::Args),
    /// Run the tests that stand beside pipelines
    Test(test::Args),
    /// Draw a pipeline (Mermaid, DOT, SVG)
    Graph(graph::Args),
    /// List the recorded runs
    Runs(runs::Args),
    /// Show a recorded run
    Show(show::Args),
    /// Show what a run said, stage by stage; -f goes on until it ends
    Logs(logs::Args),
    /// Ask a running run to stop, from wherever its records can be reached
    Cancel(cancel::Args),
    /// Write the rows of a stage to a file (.parquet, .csv, .jsonl, .png), its model (.safetensors), or a run's metrics as
    /// CLIP_benchmark has them
    Export(export::Args),
    /// Make one page of a run: its numbers with intervals, the worst mistakes, how it was made
    Report(report::Args),
    /// Tell which of some labels fits pictures best
    Classify(classify::Args),
    /// List, fetch and look into datasets
    #[command(subcommand)]
    Dataset(dataset::Command),
    /// List, look into and try models
    #[command(subcommand)]
    Model(model::Command),
    /// List the stage kinds, or explain one
    #[command(visible_alias = "stages")]
    Kinds(kinds::Args),
    /// Print the JSON Schema of pipelines, for editors
    Schema(schema::Args),
    /// Remove what nobody needs any more: old runs, and the results that were used longest ago
    Gc(gc::Args),
    /// Look whether everything is in place
    Doctor(doctor::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page, or write the pages of all commands into a folder
    Man(man::Args),
}

/// A pipeline to read: shared by the commands that take one.
#[derive(Args, Debug)]
pub(crate) struct PipelineArgs {
    /// The pipeline's file, or - for stdin
    #[arg(value_name = "PIPELINE", value_hint = ValueHint::FilePath)]
    pub(crate) pipeline: PathBuf,
    /// Give a parameter another value
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
}

/// A pipeline to plan or to run.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Cut every dataset to its first rows
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only these stages, and what they need that is not stored
    #[arg(long, value_name = "STAGE,…")]
    only: Vec<String>,
    /// Compute these stages and all behind them anew
    #[arg(long, value_name = "STAGE,…")]
    from: Vec<String>,
    /// Read every file of a dataset again, even if its size and time are as they were
    #[arg(long)]
    pub(crate) rehash: bool,
}

impl RunArgs {
    /// What to plan.
    pub(crate) fn options(&self) -> PlanOptions {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        PlanOptions { limit, only: names(&self.only), from: names(&self.from) }
    }
}

/// The names of lists of stages. A name may have commas in its brackets: `metrics[model=b32,seed=1]`.
fn names(lists: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for list in lists {
        let mut depth = 0usize;
        let mut name = String::new();
        for c in list.chars().chain([',']) {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    names.push(std::mem::take(&mut name).trim().to_owned());
                    continue;
                }
                _ => {}
            }
            name.push(c);
        }
        // Brackets that stay open: the engine says that there is no such stage.
        names.push(name.trim_end_matches(',').trim().to_owned());
    }
    names.retain(|name| !name.is_empty());
    names
}

pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_brackets_part_no_names() {
        let lists = ["a, m[x=1,y=2]".to_owned(), "b,,c[".to_owned()];
        assert_eq!(names(&lists), ["a", "m[x=1,y=2]", "b", "c["]);
    }
}
