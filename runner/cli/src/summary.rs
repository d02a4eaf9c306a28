//! A recorded run for people and programs: the end of `runner run`, and `runner show`.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use runner_store::{
    BadRow, FileRecord, GateRecord, Level, LogLine, Metric, Run, RunStatus, StageRecord, Store, TaskRecord, TaskStatus,
    Time,
};
use serde_json::{Value, json};

use crate::{
    app::App,
    commands::logs,
    explain,
    failure::Failure,
    output::{count, escaped, number, span, table},
    repeat,
};

/// Files that are shown one by one.
const SINGLE_FILES: usize = 12;
/// Unusable rows that are shown of a stage.
const BAD_ROWS: usize = 10;
/// Lines of the log that are shown of a run that failed.
const LOG_LINES: usize = 10;

/// What is recorded of a run.
pub(crate) struct Summary {
    run: Run,
    stages: Vec<StageRecord>,
    metrics: Vec<Metric>,
    gates: Vec<GateRecord>,
    /// The files for people, and where a copy of each lies; `None` if its content is gone.
    files: Vec<(FileRecord, Option<PathBuf>)>,
    /// What more there is to say, where somebody wants to know.
    more: Option<More>,
}

/// What explains a run beyond its results.
struct More {
    tasks: Vec<TaskRecord>,
    /// The last warnings and errors of its log, if it did not succeed.
    log: Vec<LogLine>,
    /// Rows that could not be used, by stage: the first ones of each shard.
    bad: Vec<(String, Vec<BadRow>)>,
}

impl Summary {
    /// Reads it, and puts copies of the files for people where they can be opened.
    pub(crate) async fn load(app: &App<'_>, store: &Store, run: Run) -> Result<Self, Failure> {
        let records = store.records();
        let mut files = Vec::new();
        for file in records.files(&run.id).await? {
            let path = place(store, &run.id, &file).await.map_err(|failure| app.output.warning(&failure.to_string()));
            files.push((file, path.ok()));
        }
        Ok(Self {
            stages: records.stages(&run.id).await?,
            metrics: records.metrics(&run.id).await?,
            gates: records.gates(&run.id).await?,
            files,
            run,
            more: None,
        })
    }

    /// Reads what explains it, too.
    pub(crate) async fn explained(mut self, store: &Store) -> Result<Self, Failure> {
        let tasks = store.records().tasks(&self.run.id).await?;
        let log = match self.run.status {
            RunStatus::Succeeded => Vec::new(),
            _ => tail(store, &self.run.id).await?,
        };
        let bad = unusable(store, &self.stages).await;
        self.more = Some(More { tasks, log, bad });
        Ok(self)
    }

    /// What it ran with, what was tried again, and what went wrong.
    pub(crate) fn explanation(&self, app: &App<'_>) -> String {
        let paint = app.output.paint;
        let Some(more) = self.more.as_ref().filter(|_| !app.output.quiet) else { return String::new() };
        let parts = [
            explain::run(&self.run, app),
            explain::attempts(&more.tasks, paint),
            explain::tail(&more.log, &self.run.id, paint),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).map(|part| part + "\n").collect();
        parts.concat()
    }

    /// The document that `show --json` prints.
    pub(crate) fn document(&self) -> Value {
        let run = &self.run;
        let metrics: BTreeMap<_, _> = self
            .metrics
            .iter()
            .map(|it| (&it.name, json!({"value": it.value, "n": it.n, "n_bad": it.n_bad})))
            .collect();
        let stages: Vec<_> = self
            .stages
            .iter()
            .map(|it| {
                json!({
                    "stage": it.name,
                    "kind": it.kind,
                    "status": it.status,
                    "tasks": {"executed": it.executed, "cached": it.cached},
                    "rows": it.rows,
                    "bad": it.bad,
                    "seconds": {"wall": it.wall, "busy": it.seconds},
                    "manifest": it.manifest,
                    "error": it.error,
                })
            })
            .collect();
        let gates: Vec<_> = self
            .gates
            .iter()
            .map(|it| {
                json!({
                    "gate": it.name,
                    "metric": it.metric,
                    "value": it.value,
                    "min": it.min,
                    "max": it.max,
                    "passed": it.passed,
                })
            })
            .collect();
        let files: Vec<_> = self
            .files
            .iter()
            .map(|(it, path)| json!({"stage": it.stage, "name": it.name, "path": path, "digest": it.digest, "bytes": it.bytes}))
            .collect();
        json!({
            "run": run.id,
            "pipeline": run.pipeline,
            "status": run.status,
            "reason": run.reason,
            "started": moment(run.started),
            "ended": run.ended.map(moment),
            "params": run.params,
            "limit": run.limit,
            "command": run.command,
            "folder": run.folder,
            "host": run.host,
            "pid": run.pid,
            "version": run.version,
            "environment": run.environment,
            "includes": run.includes,
            "repeat": repeat::script(run),
            "metrics": metrics,
            "stages": stages,
            "gates": gates,
            "files": files,
            "tasks": {"executed": run.executed, "cached": run.cached},
            "attempts": self.more.as_ref().map(|more| attempts(&more.tasks)),
            "bad_rows": self.more.as_ref().map(|more| bad_rows(&more.bad)),
            "log": self.more.as_ref().map(|more| more.log.iter().map(logs::document).collect::<Vec<_>>()),
        })
    }

    /// The tables that people read.
    pub(crate) fn text(&self, app: &App<'_>) -> String {
        let paint = app.output.paint;
        let mut text = String::new();
        if !self.metrics.is_empty() {
            text.push_str(&self.metrics_table(app));
            text.push('\n');
        }
        if !self.gates.is_empty() {
            for gate in &self.gates {
                let _ = writeln!(text, "  {}", gate_line(gate, app));
            }
            text.push('\n');
        }
        if !app.output.quiet {
            text.push_str(&self.stages_table(app));
            text.push('\n');
            if let Some(more) = self.more.as_ref().filter(|more| !more.bad.is_empty()) {
                let _ = writeln!(text, "{}", self.bad_table(&more.bad, app));
            }
            let rows = self.file_rows(app);
            if !rows.is_empty() {
                let _ = writeln!(text, "{}", table(&[("files", false), ("", false)], &rows, paint));
            }
        }
        let run = &self.run;
        let status = match run.status {
            RunStatus::Succeeded => paint.green("succeeded"),
            RunStatus::Failed => paint.red("failed"),
            other => paint.yellow(other.as_str()),
        };
        let reason = run.reason.as_ref().map(|reason| format!(": {}", escaped(reason))).unwrap_or_default();
        let took = duration(run).map(|time| format!(" in {}", span(time))).unwrap_or_default();
        let tasks = format!("{} tasks executed, {} cached", count(run.executed), count(run.cached));
        let _ = writeln!(text, "run {} {status}{took}, {tasks}{reason}", paint.bold(&run.id));
        if !app.output.quiet {
            if self.more.is_none() {
                let _ = writeln!(text, "  runner show {}", run.id);
            } else {
                let _ = writeln!(text, "  runner show {} --repeat", run.id);
            }
            for stage in self.stages.iter().filter(|it| it.kind == "train" && it.manifest.is_some()) {
                let (name, file) = (shell(&stage.name), plain(&stage.name));
                let _ = writeln!(text, "  runner export {} {name} -o {file}.safetensors", run.id);
            }
            if let Some(stage) = self.exportable() {
                let _ = writeln!(text, "  runner export {} {} -o {}.parquet", run.id, shell(stage), plain(stage));
            }
        }
        text
    }

    /// Says on stderr what went wrong.
    pub(crate) fn tell_trouble(&self, app: &App<'_>) {
        match (&self.run.reason, self.run.status) {
            (Some(reason), RunStatus::Failed) => app.output.error(reason, None),
            (None, RunStatus::Failed) => app.output.error("the run failed", None),
            _ => {}
        }
    }

    fn metrics_table(&self, app: &App<'_>) -> String {
        let optional = |number: Option<u64>| number.map(count).unwrap_or_default();
        let end = |name: &str, end: &str| self.metrics.iter().find(|it| it.name.strip_suffix(end) == Some(name));
        let interval = |name: &str| Some((end(name, ".low")?.value, end(name, ".high")?.value));
        // The ends of an interval stand beside their number.
        let is_end = |name: &str| {
            [".low", ".high"].iter().any(|end| name.strip_suffix(end).is_some_and(|name| interval(name).is_some()))
        };
        let any = self.metrics.iter().any(|it| is_end(&it.name));
        let rows: Vec<_> = self
            .metrics
            .iter()
            .filter(|it| !is_end(&it.name))
            .map(|it| {
                let mut row = vec![it.name.clone(), number(it.value)];
                if any {
                    let ends = interval(&it.name).map(|(low, high)| format!("{} – {}", number(low), number(high)));
                    row.push(ends.unwrap_or_default());
                }
                row.extend([optional(it.n), optional(it.n_bad)]);
                row
            })
            .collect();
        let mut columns =
            vec![("metric", false), ("value", true), ("95 % interval", true), ("n", true), ("n_bad", true)];
        if !any {
            columns.remove(2);
        }
        table(&columns, &rows, app.output.paint)
    }

    fn stages_table(&self, app: &App<'_>) -> String {
        let some = |number: u64| if number > 0 { count(number) } else { String::new() };
        let rows: Vec<_> = self
            .stages
            .iter()
            .map(|it| {
                let time = |seconds: f64| {
                    if seconds > 0.0 { span(Duration::from_secs_f64(seconds)) } else { String::new() }
                };
                vec![
                    it.name.clone(),
                    it.kind.clone(),
                    it.status.to_string(),
                    some(it.executed),
                    some(it.cached),
                    some(it.rows),
                    some(it.bad),
                    time(it.wall),
                    time(it.seconds),
                ]
            })
            .collect();
        let columns = [
            ("stage", false),
            ("kind", false),
            ("status", false),
            ("executed", true),
            ("cached", true),
            ("rows", true),
            ("bad", true),
            ("wall", true),
            ("busy", true),
        ];
        table(&columns, &rows, app.output.paint)
    }

    /// The first of the rows that could not be used.
    fn bad_table(&self, bad: &[(String, Vec<BadRow>)], app: &App<'_>) -> String {
        let mut rows = Vec::new();
        for (name, listed) in bad {
            let shown = listed.iter().take(BAD_ROWS);
            rows.extend(shown.map(|row| vec![name.clone(), row.id.clone(), row.reason.clone()]));
            let all = self.stages.iter().find(|stage| stage.name == *name).map_or(0, |stage| stage.bad);
            let rest = all.saturating_sub(listed.len().min(BAD_ROWS) as u64);
            rows.extend((rest > 0).then(|| vec![name.clone(), format!("{} more", count(rest)), String::new()]));
        }
        table(&[("unusable in", false), ("row", false), ("why", false)], &rows, app.output.paint)
    }

    /// Where the files lie: each by its path, or of many only their folders.
    fn file_rows(&self, app: &App<'_>) -> Vec<Vec<String>> {
        let there: Vec<_> = self.files.iter().filter_map(|(file, path)| Some((file, path.as_deref()?))).collect();
        if there.len() <= SINGLE_FILES {
            return there.iter().map(|(file, path)| vec![file.stage.clone(), app.short(path)]).collect();
        }
        let mut folders: BTreeMap<&str, (String, Vec<&str>)> = BTreeMap::new();
        for (file, path) in there {
            let folder = || app.short(path.parent().unwrap_or(path));
            let entry = folders.entry(&file.stage).or_insert_with(|| (folder(), Vec::new()));
            entry.1.push(&file.name);
        }
        folders
            .into_iter()
            .map(|(stage, (folder, names))| vec![stage.to_owned(), format!("{folder}: {}", names.join(", "))])
            .collect()
    }

    /// A stage whose rows somebody may want: the last of those that most rows went through.
    fn exportable(&self) -> Option<&str> {
        let ended = |it: &&StageRecord| matches!(it.status, TaskStatus::Done | TaskStatus::Cached);
        // These make numbers and models of rows, and no rows.
        let rows = |it: &&StageRecord| !["metrics", "train"].contains(&it.kind.as_str());
        self.stages.iter().filter(ended).filter(rows).max_by_key(|it| it.rows).map(|it| it.name.as_str())
    }
}

/// The rows that stages could not use, as far as they are listed, by stage.
pub(crate) async fn unusable(store: &Store, stages: &[StageRecord]) -> Vec<(String, Vec<BadRow>)> {
    let mut all = Vec::new();
    for stage in stages.iter().filter(|stage| stage.bad > 0) {
        if let Some(manifest) = &stage.manifest {
            // They may have been collected since; the number of them stays.
            let rows = runner_engine::bad_rows(store, manifest).await.unwrap_or_default();
            all.extend((!rows.is_empty()).then(|| (stage.name.clone(), rows)));
        }
    }
    all
}

/// The rows that could not be used.
fn bad_rows(bad: &[(String, Vec<BadRow>)]) -> Vec<Value> {
    let all = bad.iter().flat_map(|(stage, rows)| rows.iter().map(move |row| (stage, row)));
    all.map(|(stage, row)| json!({"stage": stage, "id": row.id, "reason": row.reason})).collect()
}

/// The tasks that took more than one attempt.
fn attempts(tasks: &[TaskRecord]) -> Vec<Value> {
    let again = tasks.iter().filter(|task| task.attempt > 1);
    again
        .map(|it| {
            json!({
                "task": it.task,
                "stages": it.stages,
                "shard": it.shard,
                "attempt": it.attempt,
                "status": it.status,
                "error": it.error,
            })
        })
        .collect()
}

/// The last warnings and errors of a run's log.
async fn tail(store: &Store, run: &str) -> Result<Vec<LogLine>, Failure> {
    let (mut last, mut after) = (VecDeque::new(), 0);
    loop {
        let lines = store.records().logs(run, None, after, logs::PAGE).await?;
        let read = lines.len();
        after = lines.last().map_or(after, |line| line.seq);
        last.extend(lines.into_iter().filter(|line| line.level != Level::Info));
        last.drain(..last.len().saturating_sub(LOG_LINES));
        if read < logs::PAGE {
            return Ok(last.into());
        }
    }
}

fn gate_line(gate: &GateRecord, app: &App<'_>) -> String {
    let paint = app.output.paint;
    let bounds = [("≥", gate.min), ("≤", gate.max)];
    let bounds = bounds.iter().filter_map(|(sign, bound)| Some(format!("{sign} {}", number((*bound)?))));
    let value = gate.value.map_or_else(|| "missing".to_owned(), number);
    let verdict = if gate.passed { paint.green("met") } else { paint.red("not met") };
    format!(
        "gate {} {verdict}: {} is {value}, wanted {}",
        gate.name,
        gate.metric,
        bounds.collect::<Vec<_>>().join(" and ")
    )
}

/// A copy of a file for people: `STORE/runs/RUN/STAGE/NAME`. A copy, so that whoever changes it harms nothing.
async fn place(store: &Store, run: &str, file: &FileRecord) -> Result<PathBuf, Failure> {
    let folder = store.root().join("runs").join(run).join(plain(&file.stage));
    // A stage decides on the name; it shall not lead out of the folder.
    let path = folder.join(Path::new(&file.name).file_name().unwrap_or_default());
    if fs::metadata(&path).is_ok_and(|found| found.len() == file.bytes) {
        return Ok(path);
    }
    let content = store.artifacts().get(&file.digest).await?;
    fs::create_dir_all(&folder).map_err(Failure::file("make", &folder))?;
    fs::write(&path, content).map_err(Failure::file("write", &path))?;
    Ok(path)
}

/// A stage's name as a file name.
fn plain(stage: &str) -> String {
    let name: String = stage.chars().map(|c| if c.is_alphanumeric() || "-_.=".contains(c) { c } else { '_' }).collect();
    name.trim_end_matches('_').to_owned()
}

/// A stage's name as a word of a command; a shell would take brackets for a pattern.
fn shell(stage: &str) -> String {
    if plain(stage) == stage { stage.to_owned() } else { format!("'{stage}'") }
}

/// From start to end; nothing while it goes on.
pub(crate) fn duration(run: &Run) -> Option<Duration> {
    (run.ended? - run.started).to_std().ok()
}

/// A moment as JSON has it.
pub(crate) fn moment(time: Time) -> String {
    // Milliseconds are what is recorded.
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
