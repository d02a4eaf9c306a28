//! `runner show RUN`

use crate::{Exit, app::App, failure::Failure, summary};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest
    #[arg(default_value = "latest", value_name = "RUN")]
    run: String,
    /// Print the pipeline as it was run
    #[arg(long)]
    pipeline: bool,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let store = app.existing_store().await?.ok_or(runner_store::StoreError::NoRuns)?;
    let run = store.records().run(&args.run).await?;
    if args.pipeline {
        if app.output.json {
            app.output.document(&serde_json::json!({"run": run.id, "pipeline": run.text}))?;
        }
        app.output.text(&run.text)?;
        return Ok(Exit::Done);
    }
    let summary = summary::Summary::load(app, &store, run).await?;
    if app.output.json {
        app.output.document(&summary.document())?;
    } else {
        app.output.text(&summary.text(app))?;
    }
    Ok(Exit::Done)
}
