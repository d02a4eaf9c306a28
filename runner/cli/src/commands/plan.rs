//! `runner plan PIPELINE`

use std::{collections::BTreeSet, time::Duration};

use runner_engine::{Plan, PlannedResult, PlannedStage, PlannedState};
use serde_json::{Value, json};

use crate::{
    Exit,
    app::App,
    args::RunArgs,
    failure::Failure,
    output::{self, count, span, table},
};

/// Characters of a reason that are shown in a table.
const SHOWN: usize = 120;
/// Changes whose values are shown.
const CHANGES: usize = 10;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Show every shard by itself
    #[arg(long)]
    shards: bool,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let services = app.services(&app.folder)?;
    let pipeline = app.pipeline(&args.run.pipeline, &services)?;
    let options = args.run.options();
    options.check(&pipeline)?;
    let skipped = pipeline.skipped.join(", ");
    let store = app.open_store().await?;
    let engine = app.engine(&pipeline, &services, store.clone());
    let plan = engine.plan(pipeline, options).await?;
    if app.output.json {
        let (cached, compute) = plan.counts();
        let document = json!({
            "pipeline": plan.pipeline().name,
            "stages": plan.stages(),
            "skipped": plan.pipeline().skipped,
            "tasks": plan.tasks(),
            "seconds": plan.seconds(),
            "results": {"cached": cached, "compute": compute},
        });
        app.output.document(&document)?;
    } else {
        app.output.text(&if args.shards { shards(&plan, app) } else { stages(&plan, app) })?;
        if !skipped.is_empty() {
            app.output.text(&format!("left out by `when:`: {skipped}\n"))?;
        }
        app.output.text(&output::escaped(&changes(&plan)))?;
        app.output.text(&total(&plan))?;
    }
    store.close().await;
    Ok(Exit::Done)
}

/// A line a stage.
fn stages(plan: &Plan, app: &App<'_>) -> String {
    let rows: Vec<_> = plan.stages().iter().map(row).collect();
    let columns = [
        ("stage", false),
        ("kind", false),
        ("cached", true),
        ("to compute", true),
        ("on the way", true),
        ("rows", true),
        ("time", true),
        ("why", false),
    ];
    table(&columns, &rows, app.output.paint)
}

fn row(stage: &PlannedStage) -> Vec<String> {
    let of = |state| stage.results.iter().filter(move |result| result.state == state);
    let number = |state| match of(state).count() {
        0 => String::new(),
        n => n.to_string(),
    };
    let rows = stage.results.iter().filter_map(|result| result.rows).sum::<u64>();
    // Why the work that there is, or why there is none.
    let why = of(PlannedState::Compute).next().or_else(|| stage.results.first());
    vec![
        stage.name.clone(),
        stage.kind.clone(),
        number(PlannedState::Cached),
        number(PlannedState::Compute),
        number(PlannedState::Pass),
        if rows > 0 { count(rows) } else { String::new() },
        time(stage.seconds),
        why.map(|result| cut(&result.why)).unwrap_or_default(),
    ]
}

/// A line a result.
fn shards(plan: &Plan, app: &App<'_>) -> String {
    let line = |stage: &PlannedStage, result: &PlannedResult| {
        let state = match result.state {
            PlannedState::Cached => "cached",
            PlannedState::Compute => "to compute",
            PlannedState::Pass => "on the way",
            PlannedState::Idle => "not needed",
        };
        vec![
            stage.name.clone(),
            result.shard.map_or_else(|| "result".to_owned(), |shard| shard.to_string()),
            state.to_owned(),
            result.rows.map(count).unwrap_or_default(),
            time(result.seconds),
            result.key.short(),
            cut(&result.why),
        ]
    };
    let rows: Vec<_> =
        plan.stages().iter().flat_map(|stage| stage.results.iter().map(move |result| line(stage, result))).collect();
    let columns = [
        ("stage", false),
        ("shard", true),
        ("state", false),
        ("rows", true),
        ("time", true),
        ("key", false),
        ("why", false),
    ];
    table(&columns, &rows, app.output.paint)
}

/// What the settings that changed were in the last run, and what they are now.
fn changes(plan: &Plan) -> String {
    let results = plan.stages().iter().flat_map(|stage| &stage.results);
    let mut seen = BTreeSet::new();
    let changed = results.flat_map(|result| &result.changed).filter(|change| seen.insert(change.what.clone()));
    let values = changed.filter_map(|change| match (&change.was, &change.now) {
        (None, None) => None,
        (was, now) => Some((&change.what, said(was.as_ref()), said(now.as_ref()))),
    });
    let lines: Vec<_> = values.map(|(what, was, now)| format!("{what}: {was} -> {now}\n")).collect();
    let more = lines.len().saturating_sub(CHANGES);
    let mut text: String = lines.into_iter().take(CHANGES).collect();
    if more > 0 {
        text.push_str(&format!("and {more} more changes\n"));
    }
    text
}

fn said(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| cut(&value.to_string()))
}

/// How much there is to do, and how long that took when it was done last.
fn total(plan: &Plan) -> String {
    let (cached, compute) = plan.counts();
    let tasks = plan.tasks();
    let time = match plan.seconds() {
        Some(seconds) if tasks > 0 => format!(", about {} as in the last runs", time(Some(seconds))),
        _ => String::new(),
    };
    format!("{cached} results cached, {compute} to compute in {tasks} tasks{time}\n")
}

fn time(seconds: Option<f64>) -> String {
    // What takes no time is not said to take some.
    let time = seconds.filter(|seconds| *seconds >= 5e-4).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map(span).unwrap_or_default()
}

/// A text that fits into a table; `--json` has it whole.
fn cut(text: &str) -> String {
    output::cut(&text.replace('\n', " "), SHOWN)
}
