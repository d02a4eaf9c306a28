//! `runner doctor`

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use runner_data::Catalog;
use runner_models::Hub;
use runner_nn::gpu::{self, GpuInfo};
use runner_store::{Place, Store};
use serde_json::json;

use crate::{
    Exit,
    app::{App, architecture},
    failure::Failure,
    output::{count, size, table},
    redact::redact,
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

/// Something looked at.
struct Check {
    name: &'static str,
    /// What was found, or what is wrong.
    found: Result<String, String>,
}

pub(crate) async fn run(_: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let services = app.services(&app.folder)?;
    let mut checks = vec![
        Check { name: "program", found: Ok(format!("runner {}", env!("CARGO_PKG_VERSION"))) },
        Check { name: "processor", found: Ok(format!("{}, {} threads", runner_nn::Isa::best().name(), app.threads)) },
        Check { name: "settings", found: Ok(settings(app)) },
    ];
    checks.extend(gpus());
    checks.extend(store(app).await);
    for reference in Hub::builtin() {
        let found = services.hub.open(&reference).map(|clip| format!("{reference}, embeddings of {}", clip.dim()));
        checks.push(Check { name: "model", found: found.map_err(|error| error.to_string()) });
    }
    for known in Catalog::known() {
        let found = if services.catalog.is_available(known) {
            let opened = services.catalog.open(known.reference);
            opened
                .map(|it| format!("{}, {} rows", known.reference, count(it.len() as u64)))
                .map_err(|error| error.to_string())
        } else {
            // Missing is no fault: most pipelines do not need it.
            Ok(format!("{}: not here; runner dataset fetch {}", known.reference, known.fetch))
        };
        checks.push(Check { name: "dataset", found });
    }
    let sound = checks.iter().all(|check| check.found.is_ok());
    if app.output.json {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| {
                let (Ok(text) | Err(text)) = &check.found;
                json!({"check": check.name, "ok": check.found.is_ok(), "found": text})
            })
            .collect();
        app.output.document(&json!({"ok": sound, "checks": checks}))?;
    } else {
        let row = |check: &Check| match &check.found {
            Ok(text) => vec!["ok".to_owned(), check.name.to_owned(), text.clone()],
            Err(text) => vec!["wrong".to_owned(), check.name.to_owned(), text.clone()],
        };
        let rows: Vec<_> = checks.iter().map(row).collect();
        app.output.text(&table(&[("", false), ("", false), ("", false)], &rows, app.output.paint))?;
    }
    Ok(if sound { Exit::Done } else { Exit::Failed })
}

/// The GPUs. A build that cannot use any is no fault; one that could and finds none has one.
fn gpus() -> Vec<Check> {
    let check = |found: Result<String, runner_nn::Error>| Check {
        name: "GPU",
        found: found.map_err(|error| error.to_string()),
    };
    let count = match gpu::count() {
        Ok(0) => return vec![check(gpu::describe(0).map(|_| String::new()))],
        Ok(count) => count,
        Err(error @ runner_nn::Error::WithoutCuda) => return vec![check(Ok(error.to_string()))],
        Err(error) => return vec![check(Err(error))],
    };
    let described = |found: GpuInfo| {
        let (memory, free) = found.memory;
        let name = found.name.as_deref().unwrap_or("of unknown name");
        format!("cuda:{} {name}, {}, {} of {} free", found.index, architecture(&found), size(free), size(memory))
    };
    (0..count).map(|index| check(gpu::describe(index).map(described))).collect()
}

fn settings(app: &App<'_>) -> String {
    let files: Vec<_> = app.config.files.iter().map(|path| app.short(path)).collect();
    if files.is_empty() { "no runner.toml".to_owned() } else { files.join(", ") }
}

/// Opens the store where there is one, and looks whether records and artifacts can be read and written.
async fn store(app: &App<'_>) -> Vec<Check> {
    let check = |name, found| Check { name, found };
    let wrong = |failure: Failure| vec![check("store", Err(told(&failure)))];
    let (name, place) = match (app.store_name(), app.place()) {
        (Ok(name), Ok(place)) => (name, place),
        (Err(failure), _) | (_, Err(failure)) => return wrong(failure),
    };
    let store = match app.existing_store().await {
        Err(failure) => return wrong(failure),
        Ok(None) => return vec![check("store", Ok(format!("{name}, will be made by the first run")))],
        Ok(Some(store)) => store,
    };
    let (records, artifacts) = (records(&store, &place, app).await, artifacts(&store, &place, app).await);
    store.close().await;
    vec![check("records", records), check("artifacts", artifacts)]
}

async fn records(store: &Store, place: &Place, app: &App<'_>) -> Result<String, String> {
    let probe = store.records().probe().await.map_err(|error| error.to_string())?;
    probe.writable.map_err(|error| format!("cannot be written: {error}"))?;
    let runs = store.records().runs(usize::MAX).await.map_err(|error| error.to_string())?;
    let place = match &place.records {
        Some(url) => redact(url),
        None => app.short(&place.folder),
    };
    let (migrations, latency) = (probe.migrations, millis(probe.latency));
    Ok(format!("{place}: {}, {migrations} migrations, {latency} a query, {} runs", probe.backend, runs.len()))
}

/// Writes, reads and removes a small artifact that no run can have made.
async fn artifacts(store: &Store, place: &Place, app: &App<'_>) -> Result<String, String> {
    let place = match &place.artifacts {
        Some(place) => place.to_string(),
        None => app.short(&place.folder),
    };
    let artifacts = store.artifacts();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let content = format!("runner doctor, process {} at {now}", std::process::id());
    let failed = |what: &str| {
        let what = format!("cannot {what} in {place}");
        move |error| format!("{what}: {error}")
    };
    let began = Instant::now();
    let digest = artifacts.put(content.clone()).await.map_err(failed("write"))?;
    let written = began.elapsed();
    let began = Instant::now();
    let read = artifacts.get(&digest).await.map_err(failed("read"));
    let took = began.elapsed();
    // Whatever was read, nothing stays.
    artifacts.delete(&digest).await.map_err(failed("remove"))?;
    if read? != content.as_bytes() {
        return Err(format!("{place} gives back another content than was written"));
    }
    if artifacts.exists(&digest).await.map_err(failed("look"))? {
        return Err(format!("{place} does not remove what is removed"));
    }
    let all = artifacts.list().await.map_err(failed("list"))?;
    let bytes = all.iter().map(|(_, size)| size).sum();
    let (written, took) = (millis(written), millis(took));
    Ok(format!("{place}: {} artifacts ({}), {written} to write, {took} to read", all.len(), size(bytes)))
}

/// A failure with its hint, in one text.
fn told(failure: &Failure) -> String {
    match failure.hint() {
        Some(hint) => redact(&format!("{failure}; {hint}")),
        None => redact(&failure.to_string()),
    }
}

/// `0.4 ms`
fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
