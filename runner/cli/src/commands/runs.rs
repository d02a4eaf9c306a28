//! `runner runs`

use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use runner_store::{Run, RunFilter, RunStatus, Time};
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
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Only those of this pipeline, by its name
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only those that stand so
    #[arg(long, value_enum, value_name = "STATUS")]
    status: Option<Status>,
    /// Only those that began in this time: 2h, 7d
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Status {
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<Status> for RunStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Running => Self::Running,
            Status::Succeeded => Self::Succeeded,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

impl Args {
    fn filter(&self) -> RunFilter {
        let since = self.since.and_then(|span| SystemTime::now().checked_sub(span)).map(Time::from);
        let status = self.status.map(RunStatus::from);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        RunFilter { pipeline: self.pipeline.clone(), status, since, limit }
    }

    /// Whether there may be more than is asked for.
    fn picks(&self) -> bool {
        self.pipeline.is_some() || self.status.is_some() || self.since.is_some()
    }
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let runs = match app.existing_store().await? {
        Some(store) => store.records().find(&args.filter()).await?,
        None => Vec::new(),
    };
    if app.output.json {
        app.output.document(&runs.iter().map(document).collect::<Vec<_>>())?;
    } else if runs.is_empty() && args.picks() {
        app.output.text("no such run\n")?;
    } else if runs.is_empty() {
        app.output.text(&format!("no run is recorded in {} yet\n", app.store_name()?))?;
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
        "reason": run.reason,
        "started": moment(run.started),
        "ended": run.ended.map(moment),
        "host": run.host,
        "tasks": {"executed": run.executed, "cached": run.cached},
    })
}

fn row(run: &Run) -> Vec<String> {
    let took = duration(run).map(span).unwrap_or_default();
    let note = match (&run.reason, run.status) {
        (Some(reason), _) => reason.lines().next().unwrap_or_default().to_owned(),
        (None, RunStatus::Running) => format!("process {} on {}", run.pid, run.host),
        _ => String::new(),
    };
    let started = run.started.format("%Y-%m-%d %H:%M:%S").to_string();
    vec![run.id.clone(), run.pipeline.clone(), run.status.to_string(), started, took, note]
}
