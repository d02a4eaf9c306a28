//! `runner show RUN`

use std::collections::BTreeMap;

use runner_store::Metric;
use serde_json::json;

use crate::{
    Exit,
    app::App,
    failure::Failure,
    output::{number, table},
    summary,
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest
    #[arg(default_value = "latest", value_name = "RUN")]
    run: String,
    /// Print the pipeline as it was run
    #[arg(long)]
    pipeline: bool,
    /// Print what was measured by step: loss, validation accuracy
    #[arg(long, conflicts_with = "pipeline")]
    series: bool,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let store = app.existing_store().await?.ok_or(runner_store::StoreError::NoRuns)?;
    let run = store.records().run(&args.run).await?;
    if args.pipeline {
        if app.output.json {
            app.output.document(&json!({"run": run.id, "pipeline": run.text}))?;
        }
        app.output.text(&run.text)?;
        return Ok(Exit::Done);
    }
    if args.series {
        series(&store.records().series(&run.id).await?, app)?;
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

/// Values by series: `{"clip.loss": [[step, value], …]}`, or a table.
fn series(values: &[Metric], app: &App<'_>) -> Result<(), Failure> {
    if app.output.json {
        let mut document: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for it in values {
            document.entry(&it.name).or_default().push(json!([it.step, it.value]));
        }
        return app.output.document(&document);
    }
    let step = |it: &Metric| it.step.map(|step| step.to_string()).unwrap_or_default();
    let rows: Vec<_> = values.iter().map(|it| vec![it.name.clone(), step(it), number(it.value)]).collect();
    app.output.text(&table(&[("series", false), ("step", true), ("value", true)], &rows, app.output.paint))
}
