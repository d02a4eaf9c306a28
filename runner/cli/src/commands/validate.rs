//! `runner validate PIPELINE…`

use std::path::{Path, PathBuf};

use clap::ValueHint;
use runner_spec::Pipeline;
use serde_json::{Value, json};

use crate::{
    Exit,
    app::{self, App},
    args::assignment,
    failure::Failure,
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The pipelines' files, or - for stdin
    #[arg(required = true, value_name = "PIPELINE", value_hint = ValueHint::FilePath)]
    pipelines: Vec<PathBuf>,
    /// Give a parameter another value
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

pub(crate) fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    // What models and datasets offer is found out once for all files.
    let services = app.services(&app.folder)?;
    let registry = runner_stages::registry(&services);
    let mut documents = Vec::new();
    let mut exit = Exit::Done;
    for path in &args.pipelines {
        let read = app::read(path);
        let loaded = read.and_then(|(name, text)| {
            runner_spec::load(&name, &text, &args.set, &registry, &services).map_err(Failure::Pipeline)
        });
        match loaded {
            Ok(pipeline) => {
                documents.push(valid(path, &pipeline));
                app.output.text(&text(path, &pipeline))?;
            }
            Err(Failure::Pipeline(diagnostics)) => {
                exit = Exit::Invalid;
                // The document says the same.
                if !app.output.json {
                    app.output.diagnostics(&diagnostics);
                }
                documents.push(json!({"file": path, "valid": false, "diagnostics": diagnostics}));
            }
            Err(failure) => {
                exit = Exit::Invalid;
                let message = failure.to_string();
                if args.pipelines.len() == 1 {
                    return Err(failure);
                }
                app.output.error(&message, None);
                documents.push(json!({"file": path, "valid": false, "error": message, "diagnostics": []}));
            }
        }
    }
    if app.output.json {
        match (documents.len(), documents.pop()) {
            (1, Some(only)) => app.output.document(&only)?,
            (_, last) => {
                documents.extend(last);
                app.output.document(&json!({"valid": exit == Exit::Done, "files": documents}))?;
            }
        }
    }
    Ok(exit)
}

fn valid(path: &Path, pipeline: &Pipeline) -> Value {
    let stages: Vec<_> = pipeline.stages.iter().map(|stage| &stage.name).collect();
    json!({
        "file": path,
        "valid": true,
        "pipeline": pipeline.name,
        "params": pipeline.params,
        "stages": stages,
        "skipped": pipeline.skipped,
        "diagnostics": [],
    })
}

fn text(path: &Path, pipeline: &Pipeline) -> String {
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (stages, gates) = (plural(pipeline.stages.len(), "stage"), plural(pipeline.gates.len(), "gate"));
    let mut text = format!("{} is valid: {stages}, {gates}\n", path.display());
    if !pipeline.skipped.is_empty() {
        text.push_str(&format!("left out by `when:`: {}\n", pipeline.skipped.join(", ")));
    }
    text
}
