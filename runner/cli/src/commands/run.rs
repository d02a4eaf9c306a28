//! `runner run PIPELINE`

use std::{collections::BTreeMap, env};

use runner_engine::{RunMeta, RunReport};
use runner_spec::Pipeline;
use runner_store::{Collect, RunStatus, Store};
use serde_json::{Value, json};

use crate::{
    Exit,
    app::App,
    args::RunArgs,
    failure::Failure,
    output::{count, size},
    progress::Progress,
    redact::redact,
    summary::Summary,
};

pub(crate) async fn run(args: &RunArgs, app: &App<'_>) -> Result<Exit, Failure> {
    let services = app.services(&app.folder)?;
    let pipeline = app.pipeline(&args.pipeline, &services)?;
    let options = args.options();
    options.check(&pipeline)?;
    if !pipeline.skipped.is_empty() {
        app.output.note(&format!("left out by `when:`: {}", pipeline.skipped.join(", ")));
    }
    let store = app.open_store().await?;
    let engine = app.engine(&pipeline, &services, store.clone());
    let cancel = app.cancel_on_interrupt();
    let meta = meta(args, app, &pipeline)?;
    let plan = engine.plan(pipeline, options).await?;

    let mut progress = Progress::new(app.output);
    let report = engine.execute(plan, meta, &cancel, &mut |event| progress.hear(event)).await;
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
    keep_quota(app, &store).await;
    store.close().await;
    Ok(match status {
        RunStatus::Cancelled => Exit::Cancelled,
        _ if report.status == RunStatus::Succeeded && !report.passed() => Exit::GateNotMet,
        RunStatus::Succeeded => Exit::Done,
        _ => Exit::Failed,
    })
}

/// What is recorded of how the run was called, so that it can be repeated.
fn meta(args: &RunArgs, app: &App<'_>, pipeline: &Pipeline) -> Result<RunMeta, Failure> {
    let command = env::args_os().map(|argument| redact(&argument.to_string_lossy())).collect();
    let environment = json!({
        "file": args.pipeline.pipeline,
        "env": pipeline.environment,
        "store": app.store_name()?,
    });
    Ok(RunMeta { command, environment })
}

/// Removes what was used longest ago, if there is more than shall be kept. The run is done, whatever becomes of it.
async fn keep_quota(app: &App<'_>, store: &Store) {
    let Some(quota) = app.config.cache_quota else { return };
    match store.collect(&Collect { max_bytes: Some(quota), ..Collect::default() }).await {
        Ok(collected) if collected.entries > 0 => app.output.note(&format!(
            "cache_quota: {} results removed that were used longest ago, {}",
            count(collected.entries),
            size(collected.bytes())
        )),
        Ok(_) => {}
        Err(error) => app.output.warning(&format!("cache_quota: {error}")),
    }
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
