//! `runner doctor`

use runner_data::Catalog;
use runner_models::Hub;
use serde_json::json;

use crate::{
    Exit,
    app::App,
    failure::Failure,
    output::{count, size, table},
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
    let services = app.services(&app.folder);
    let mut checks = vec![
        Check { name: "program", found: Ok(format!("runner {}", env!("CARGO_PKG_VERSION"))) },
        Check { name: "processor", found: Ok(format!("{}, {} threads", runner_nn::instruction_set(), app.threads)) },
        Check { name: "settings", found: Ok(settings(app)) },
        Check { name: "store", found: store(app).await },
    ];
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

fn settings(app: &App<'_>) -> String {
    let files: Vec<_> = app.config.files.iter().map(|path| app.short(path)).collect();
    if files.is_empty() { "no runner.toml".to_owned() } else { files.join(", ") }
}

/// Opens the store where there is one, and looks whether one could be made where there is none.
async fn store(app: &App<'_>) -> Result<String, String> {
    let place = app.short(&app.store);
    match app.existing_store().await {
        Err(failure) => Err(failure.to_string()),
        Ok(None) => Ok(format!("{place}, will be made by the first run")),
        Ok(Some(store)) => {
            let runs = store.records().runs(usize::MAX).await.map_err(|error| error.to_string())?;
            let artifacts = store.artifacts().list().await.map_err(|error| error.to_string())?;
            let bytes = artifacts.iter().map(|(_, size)| size).sum();
            Ok(format!("{place}, {} runs, {} artifacts ({})", runs.len(), artifacts.len(), size(bytes)))
        }
    }
}
