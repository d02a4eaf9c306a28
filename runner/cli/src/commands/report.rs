//! `runner report [RUN] -o FILE`

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueHint;
use runner_report::{BadRow, EVALUATION, Evaluation, Metric, Page, Stage};
use runner_store::{GateRecord, Run, RunStatus, Store, StoreError};
use serde_json::{Value, json};

use crate::{
    Exit,
    app::App,
    explain,
    failure::Failure,
    output::{number, size, span},
    repeat,
    summary::{self, duration, moment},
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest
    #[arg(default_value = "latest", value_name = "RUN")]
    run: String,
    /// The file, or - for stdout
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, default_value = "report.html")]
    output: PathBuf,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let store = app.existing_store().await?.ok_or(StoreError::NoRuns)?;
    let run = store.records().run(&args.run).await?;
    let html = page(&store, &run, app).await?.html();
    store.close().await;
    if args.output == Path::new("-") {
        app.output.raw(html.as_bytes())?;
        return Ok(Exit::Done);
    }
    fs::write(&args.output, &html).map_err(Failure::file("write", &args.output))?;
    if app.output.json {
        app.output.document(&json!({"run": run.id, "file": args.output, "bytes": html.len()}))?;
    }
    let file = args.output.display();
    app.output.text(&format!("{file}: run {}, {}\n", run.id, size(html.len() as u64)))?;
    Ok(Exit::Done)
}

async fn page(store: &Store, run: &Run, app: &App<'_>) -> Result<Page, Failure> {
    let records = store.records();
    let took = duration(run).map(|time| format!(", {}", span(time))).unwrap_or_default();
    let gates = records.gates(&run.id).await?;
    let metrics = records.metrics(&run.id).await?;
    let stages = records.stages(&run.id).await?;
    let unusable = summary::unusable(store, &stages).await.into_iter();
    let bad = unusable.flat_map(|(stage, rows)| {
        rows.into_iter().map(move |row| BadRow { stage: stage.clone(), id: row.id, reason: row.reason })
    });
    let bad = bad.collect();
    let metric = |it: runner_store::Metric| Metric { name: it.name, value: it.value, n: it.n, bad: it.n_bad };
    let stage = |it: runner_store::StageRecord| Stage {
        name: it.name,
        kind: it.kind,
        status: it.status.to_string(),
        rows: it.rows,
        bad: it.bad,
        took: if it.wall > 0.0 { span(Duration::from_secs_f64(it.wall)) } else { String::new() },
    };
    Ok(Page {
        title: run.pipeline.clone(),
        description: description(&run.text),
        run: run.id.clone(),
        status: run.status.to_string(),
        good: run.status == RunStatus::Succeeded,
        reason: run.reason.clone(),
        when: format!("{}{took}", moment(run.started).replace('T', " ").trim_end_matches('Z')),
        gates: gates.iter().map(|gate| (in_words(gate), gate.passed)).collect(),
        evaluations: evaluations(store, run, app).await?,
        metrics: metrics.into_iter().map(metric).collect(),
        stages: stages.into_iter().map(stage).collect(),
        bad,
        params: params(run),
        environment: explain::facts(run),
        repeat: repeat::script(run),
        pipeline: run.text.clone(),
    })
}

/// The pipeline's `description:`, if it stands on a line of its own.
fn description(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("description:"))?.trim();
    let quoted = |quote: char| line.strip_prefix(quote)?.strip_suffix(quote);
    let bare = quoted('"').or_else(|| quoted('\'')).unwrap_or(line);
    (!bare.is_empty() && !bare.starts_with(['|', '>', '&', '*'])).then(|| bare.to_owned())
}

fn in_words(gate: &GateRecord) -> String {
    let bounds = [("≥", gate.min), ("≤", gate.max)];
    let bounds: Vec<_> =
        bounds.iter().filter_map(|(sign, bound)| Some(format!("{sign} {}", number((*bound)?)))).collect();
    let value = gate.value.map_or_else(|| "missing".to_owned(), number);
    format!("{}: {} is {value}, wanted {}", gate.name, gate.metric, bounds.join(" and "))
}

/// What the stages measured. What is gone or cannot be read is said and left out.
async fn evaluations(store: &Store, run: &Run, app: &App<'_>) -> Result<Vec<(String, Evaluation)>, Failure> {
    let mut all = Vec::new();
    for file in store.records().files(&run.id).await? {
        if file.name != EVALUATION {
            continue;
        }
        let content = store.artifacts().get(&file.digest).await;
        let read = content.map_err(|error| error.to_string());
        match read.and_then(|bytes| Evaluation::read(&bytes).map_err(|error| error.to_string())) {
            Ok(evaluation) => all.push((file.stage, evaluation)),
            Err(reason) => app.output.warning(&format!("{} is left out: {reason}", file.stage)),
        }
    }
    Ok(all)
}

fn params(run: &Run) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut params: Vec<_> =
        run.params.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect();
    if let Some(limit) = run.limit {
        params.push(("limit".to_owned(), format!("{limit} rows of each dataset")));
    }
    params
}
