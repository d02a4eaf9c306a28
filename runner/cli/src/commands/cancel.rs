//! `runner cancel [RUN]`

use runner_store::{CancelRequest, Records, Run, RunFilter, RunStatus, StoreError};
use serde_json::json;

use crate::{Exit, app::App, failure::Failure};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest [default: the one that is running]
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Stop at the next chunk or step, instead of finishing what is in flight
    #[arg(long)]
    now: bool,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let store = app.existing_store().await?.ok_or(StoreError::NoRuns)?;
    let run = match &args.run {
        Some(run) => store.records().run(run).await?,
        None => running(store.records()).await?,
    };
    let how = if args.now { CancelRequest::Now } else { CancelRequest::Finish };
    if run.status != RunStatus::Running || !store.records().request_cancel(&run.id, how).await? {
        let run = store.records().run(&run.id).await?;
        return Err(Failure::usage(
            format!("run {} is not running: {}", run.id, run.status),
            "runner runs --status running",
        ));
    }
    if app.output.json {
        app.output.document(&json!({"run": run.id, "request": how}))?;
    }
    let text = match how {
        CancelRequest::Finish => format!(
            "run {} starts nothing more and ends with what is in flight\n  runner cancel {} --now\n",
            run.id, run.id
        ),
        CancelRequest::Now => format!("run {} stops\n", run.id),
    };
    app.output.text(&text)?;
    Ok(Exit::Done)
}

/// The only run that is running.
async fn running(records: &Records) -> Result<Run, Failure> {
    let filter = RunFilter { status: Some(RunStatus::Running), limit: 10, ..RunFilter::default() };
    let mut runs = records.find(&filter).await?;
    match (runs.pop(), runs.is_empty()) {
        (Some(run), true) => Ok(run),
        (None, _) => Err(Failure::usage("no run is running", "runner runs")),
        (Some(last), false) => {
            let ids: Vec<_> = runs.iter().chain([&last]).map(|run| run.id.as_str()).collect();
            Err(Failure::usage(
                format!("several runs are running: {}", ids.join(", ")),
                format!("runner cancel {}", last.id),
            ))
        }
    }
}
