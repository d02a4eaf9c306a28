//! `runner run PIPELINE`

use std::collections::BTreeMap;

use runner_engine::RunReport;
use runner_store::RunStatus;
use serde_json::{Value, json};

use crate::{Exit, app::App, args::RunArgs, failure::Failure, progress::Progress, summary::Summary};

pub(crate) async fn run(args: &RunArgs, app: &App<'_>) -> Result<Exit, Failure> {
    let services = app.services(&app.folder);
    let pipeline = app.pipeline(&args.pipeline, &services)?;
    if !pipeline.skipped.is_empty() {
        app.output.note(&format!("left out by `when:`: {}", pipeline.skipped.join(", ")));
    }
    let store = app.open_store().await?;
    let engine = app.engine(&services, store.clone());
    let cancel = app.cancel_on_interrupt();
    let plan = engine.plan(pipeline, args.limit()).await?;
    let command: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();

    let mut progress = Progress::new(app.output);
    let report = engine.execute(plan, command, &cancel, &mut |event| progress.hear(event)).await;
    progress.end();
    let report = report?;

    // What is shown and told is what is recorded.
    let run = store.records().run(&report.run).await?;
    let status = run.status;
    let summary = Summary::load(app, &store, run).await?;
    if app.output.json {
        app.output.document(&document(&report, status))?;
    } else {
        app.output.text(&summary.text(app))?;
    }
    summary.tell_trouble(app);
    store.close().await;
    Ok(match status {
        RunStatus::Cancelled => Exit::Cancelled,
        _ if report.status == RunStatus::Succeeded && !report.passed() => Exit::GateNotMet,
        RunStatus::Succeeded => Exit::Done,
        _ => Exit::Failed,
    })
}

fn document(report: &RunReport, status: RunStatus) -> Value {
    let metrics: BTreeMap<_, _> = report.metrics.iter().map(|(name, metric)| (name, metric.value)).collect();
    json!({
        "run": report.run,
        "status": status,
        "metrics": metrics,
        "artifacts": report.artifacts,
        "tasks": {"executed": report.tasks.executed, "cached": report.tasks.cached},
    })
}
