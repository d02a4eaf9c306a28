//! `runner runs`

use runner_store::{Run, RunStatus};
use serde_json::{Value, json};

use crate::{
    Exit,
    app::App,
    failure::Failure,
    output::{span, table},
    summary::{duration, moment},
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// How many, the newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let runs = match app.existing_store().await? {
        Some(store) => store.records().runs(args.limit).await?,
        None => Vec::new(),
    };
    if app.output.json {
        app.output.document(&runs.iter().map(document).collect::<Vec<_>>())?;
    } else if runs.is_empty() {
        app.output.text(&format!("no run is recorded in {} yet\n", app.short(&app.store)))?;
    } else {
        let rows: Vec<_> = runs.iter().map(row).collect();
        let columns =
            [("run", false), ("pipeline", false), ("status", false), ("started", false), ("took", true), ("", false)];
        app.output.text(&table(&columns, &rows, app.output.paint))?;
    }
    Ok(Exit::Done)
}

fn document(run: &Run) -> Value {
    json!({
        "run": run.id,
        "pipeline": run.pipeline,
        "status": run.status,
        "started": moment(run.started),
        "ended": run.ended.map(moment),
    })
}

fn row(run: &Run) -> Vec<String> {
    let took = duration(run).map(span).unwrap_or_default();
    let note = match (&run.reason, run.status) {
        (Some(reason), _) => reason.clone(),
        (None, RunStatus::Running) => format!("process {} on {}", run.pid, run.host),
        _ => String::new(),
    };
    let started = run.started.format("%Y-%m-%d %H:%M:%S").to_string();
    vec![run.id.clone(), run.pipeline.clone(), run.status.to_string(), started, took, note]
}
