//! What a run ran with, for people: versions, machine, command, parameters, models, sources.

use runner_store::{LogLine, Run, TaskRecord, TaskStatus};
use serde_json::Value;

use crate::{
    app::App,
    output::{Paint, count, size, span, table},
    repeat::{self, quoted},
    summary::duration,
};

/// Attempts that are shown one by one.
const ATTEMPTS: usize = 10;

/// The table of what a run ran with.
pub(crate) fn run(run: &Run, app: &App<'_>) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), value]);
        }
    };
    say("pipeline", format!("{}, {}", run.pipeline, repeat::file(run).display()));
    let took = duration(run).map(|time| format!(", {}", span(time))).unwrap_or_default();
    say("started", format!("{} UTC{took}", run.started.format("%Y-%m-%d %H:%M:%S")));
    say("host", format!("{}, process {}", run.host, run.pid));
    say("folder", run.folder.clone());
    say("command", run.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
    say("version", format!("runner {}", run.version));
    for (name, value) in run.params.as_object().into_iter().flatten() {
        say("parameter", format!("{name} = {}", plain(value)));
    }
    if let Some(limit) = run.limit {
        say("limit", format!("{} rows of each dataset", count(limit)));
    }
    for (name, value) in repeat::variables(run) {
        say("variable", format!("{name} = {value}"));
    }
    for (name, value) in facts(run) {
        say(&name, value);
    }
    for name in run.includes.keys() {
        say("includes", name.clone());
    }
    table(&[("run", false), (run.id.as_str(), false)], &rows, app.output.paint)
}

/// What a run ran with besides its parameters: machine, kinds, models, sources.
pub(crate) fn facts(run: &Run) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    for (name, value) in run.environment.as_object().into_iter().flatten() {
        let mut say = |name: &str, value: String| {
            if !value.is_empty() {
                facts.push((name.to_owned(), value));
            }
        };
        match (name.as_str(), value) {
            // Said elsewhere.
            ("file" | "env" | "runner", _) => {}
            ("memory", Value::Number(bytes)) => say("memory", bytes.as_u64().map(size).unwrap_or_default()),
            ("models" | "sources", Value::Object(of)) => {
                of.iter().for_each(|(of, value)| say(name.trim_end_matches('s'), format!("{of}  {}", plain(value))));
            }
            (_, value) => say(name, plain(value)),
        }
    }
    facts
}

/// A value on one line: `a 1, b 2` for an object, digests short.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            text.chars().take(12).collect()
        }
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) && name_like(items) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        Value::Object(of) => {
            let pairs: Vec<_> = of.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
            pairs.join(", ")
        }
        other => other.to_string(),
    }
}

/// Whether texts can stand beside each other without quotes.
fn name_like(items: &[Value]) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_:./".contains(c);
    items.iter().filter_map(Value::as_str).all(|text| !text.is_empty() && text.chars().all(plain))
}

/// The tasks that took more than one attempt; nothing if there is none.
pub(crate) fn attempts(tasks: &[TaskRecord], paint: Paint) -> String {
    let again: Vec<_> = tasks.iter().filter(|task| task.attempt > 1).collect();
    let mut rows: Vec<_> = again
        .iter()
        .take(ATTEMPTS)
        .map(|task| {
            let error = task.error.as_deref().filter(|_| task.status != TaskStatus::Done);
            vec![
                task.stages.join(", "),
                task.shard.map(|shard| shard.to_string()).unwrap_or_default(),
                task.attempt.to_string(),
                task.status.to_string(),
                error.and_then(|error| error.lines().next()).unwrap_or_default().to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    if again.len() > ATTEMPTS {
        rows.push(vec![format!("and {} more", again.len() - ATTEMPTS)]);
    }
    let columns = [("again", false), ("shard", true), ("attempts", true), ("", false), ("", false)];
    table(&columns, &rows, paint)
}

/// The last lines of a log.
pub(crate) fn tail(lines: &[LogLine], run: &str, paint: Paint) -> String {
    let row = |line: &LogLine| {
        let text = line.text.lines().next().unwrap_or_default().to_owned();
        let time = line.time.format("%H:%M:%S").to_string();
        vec![time, line.level.to_string(), line.stage.clone().unwrap_or_default(), text]
    };
    let rows: Vec<_> = lines.iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = [("log", false), ("", false), ("", false), ("", false)];
    format!("{}  runner logs {run}\n", table(&columns, &rows, paint))
}
