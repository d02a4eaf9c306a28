//! `runner logs [RUN] [STAGE]`

use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use runner_store::{Level, LogLine, RunStatus, Store, StoreError, Time};
use serde_json::{Value, json};

use crate::{Exit, app::App, failure::Failure, output::escaped, summary::moment};

/// Lines that are read at once.
pub(crate) const PAGE: usize = 1000;
/// How often to look for new lines.
const EVERY: Duration = Duration::from_millis(300);

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest
    #[arg(default_value = "latest", value_name = "RUN")]
    run: String,
    /// Only this stage
    #[arg(value_name = "STAGE")]
    stage: Option<String>,
    /// Go on until the run ends; with --json a document a line
    #[arg(short, long)]
    follow: bool,
    /// Only what is younger: 10m, 2h, 2026-11-23T15:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Only what is at least as grave
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    level: Least,
}

/// The least grave lines to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Least {
    /// Everything.
    #[default]
    Info,
    /// Warnings and errors.
    Warning,
    /// Errors.
    Error,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let store = app.existing_store().await?.ok_or(StoreError::NoRuns)?;
    let run = store.records().run(&args.run).await?.id;
    if let Some(stage) = &args.stage {
        let stages = store.records().stages(&run).await?;
        if !stages.iter().any(|it| it.name == *stage) {
            let names: Vec<_> = stages.iter().map(|it| it.name.as_str()).collect();
            let hint = format!("its stages are {}", names.join(", "));
            return Err(Failure::usage(format!("run {run} has no stage `{stage}`"), hint));
        }
    }
    let (mut after, mut all) = (0, Vec::new());
    loop {
        // Asked first, so that what is said last is not missed.
        let ended = !args.follow || store.records().run(&run).await?.status != RunStatus::Running;
        loop {
            let lines = store.records().logs(&run, args.stage.as_deref(), after, PAGE).await?;
            after = lines.last().map_or(after, |line| line.seq);
            let read = lines.len();
            for line in lines.into_iter().filter(|line| wanted(line, args)) {
                match (app.output.json, args.follow) {
                    (true, true) => app.output.line(&document(&line))?,
                    (true, false) => all.push(document(&line)),
                    (false, _) => app.output.text(&text(&line, app))?,
                }
            }
            if read < PAGE || app.output.is_unread() {
                break;
            }
        }
        if ended || app.output.is_unread() {
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    if app.output.json && !args.follow {
        app.output.document(&all)?;
    }
    finish(&store, &run, args, app).await
}

/// Says how a run ended that was followed.
async fn finish(store: &Store, run: &str, args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    if args.follow {
        let run = store.records().run(run).await?;
        let reason = run.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        app.output.note(&format!("run {} {}{reason}", run.id, run.status));
    }
    Ok(Exit::Done)
}

fn wanted(line: &LogLine, args: &Args) -> bool {
    let grave = match args.level {
        Least::Info => true,
        Least::Warning => line.level != Level::Info,
        Least::Error => line.level == Level::Error,
    };
    grave && args.since.is_none_or(|since| line.time >= Time::from(since))
}

pub(crate) fn document(line: &LogLine) -> Value {
    json!({
        "seq": line.seq,
        "time": moment(line.time),
        "stage": line.stage,
        "shard": line.shard,
        "level": line.level,
        "text": line.text,
    })
}

/// `15:04:05.123  warning  image, shard 3: …`
fn text(line: &LogLine, app: &App<'_>) -> String {
    let paint = app.output.paint;
    let level = format!("{:7}", line.level);
    let level = match line.level {
        Level::Info => paint.dim(&level),
        Level::Warning => paint.yellow(&level),
        Level::Error => paint.red(&level),
    };
    let shard = line.shard.map(|shard| format!(", shard {shard}")).unwrap_or_default();
    let place = line.stage.as_ref().map(|stage| format!("{}{shard}: ", paint.bold(stage))).unwrap_or_default();
    let time = paint.dim(&line.time.format("%H:%M:%S%.3f").to_string());
    // What goes over several lines stays under its first.
    format!("{time}  {level}  {place}{}\n", escaped(line.text.trim_end()).replace('\n', "\n                       "))
}

/// A span before now, or a moment.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(span) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(span).ok_or_else(|| "longer ago than time goes".to_owned());
    }
    let moment = humantime::parse_rfc3339_weak(text);
    moment.map_err(|_| "expected a span such as 10m or 2h, or a moment such as 2026-11-23T15:00:00Z".to_owned())
}
