//! `runner validate PIPELINE`

use serde_json::json;

use crate::{Exit, app::App, args::PipelineArgs, failure::Failure};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

pub(crate) fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let services = app.services(&app.folder);
    match app.pipeline(&args.pipeline, &services) {
        Ok(pipeline) => {
            if app.output.json {
                let stages: Vec<_> = pipeline.stages.iter().map(|stage| &stage.name).collect();
                let document = json!({
                    "valid": true,
                    "pipeline": pipeline.name,
                    "params": pipeline.params,
                    "stages": stages,
                    "skipped": pipeline.skipped,
                    "diagnostics": [],
                });
                app.output.document(&document)?;
            }
            let (stages, gates) = (pipeline.stages.len(), pipeline.gates.len());
            let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let file = args.pipeline.pipeline.display();
            app.output.text(&format!("{file} is valid: {}, {}\n", plural(stages, "stage"), plural(gates, "gate")))?;
            if !pipeline.skipped.is_empty() {
                app.output.text(&format!("left out by `when:`: {}\n", pipeline.skipped.join(", ")))?;
            }
            Ok(Exit::Done)
        }
        Err(Failure::Pipeline(diagnostics)) if app.output.json => {
            app.output.document(&json!({"valid": false, "diagnostics": diagnostics}))?;
            Ok(Exit::Invalid)
        }
        Err(failure) => Err(failure),
    }
}
