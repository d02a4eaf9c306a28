//! `runner export RUN STAGE -o FILE`, `runner export RUN --format clip-benchmark`

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use runner_data::{DataError, write::Writer};
use runner_engine::stage_models;
use runner_spec::Pipeline;
use runner_stages::Services;
use runner_store::{Run, Store, StoreError};
use serde_json::{Value, json};

use crate::{Exit, app::App, clip_benchmark, failure::Failure, output::count, repeat};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest
    #[arg(value_name = "RUN")]
    run: String,
    /// The stage, with a port where it has several: data, split.train, metrics[model=b32]
    #[arg(value_name = "STAGE", required_unless_present = "format")]
    stage: Option<String>,
    /// The file; its ending says how: .parquet, .csv, .jsonl, .png; .safetensors for a model. Metrics: a file, or a folder for
    /// one file a stage [default: stdout]
    #[arg(short, long, value_name = "FILE", required_unless_present = "format")]
    output: Option<PathBuf>,
    /// Write the run's metrics as another program does
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "columns")]
    format: Option<Format>,
    /// The language that CLIP_benchmark's field of that name says
    #[arg(long, value_name = "CODE", default_value = "en", requires = "format", hide_short_help = true)]
    language: String,
    /// The columns, besides id [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    columns: Option<Vec<String>>,
}

/// Programs whose files of metrics can be written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// CLIP_benchmark's JSON
    ClipBenchmark,
}

/// What rows or a model are written with.
struct Target<'a> {
    stage: &'a str,
    output: &'a Path,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let target = match (args.format, &args.stage, &args.output) {
        (None, Some(stage), Some(output)) => Target { stage, output },
        _ => return metrics(args, app).await,
    };
    let ending = target.output.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if ending.eq_ignore_ascii_case("safetensors") {
        return model(args, &target, app).await;
    }
    // Before anything is computed.
    let mut writer = Writer::create(target.output).map_err(|error| match error {
        DataError::Invalid(_) => Failure::misnamed(&error),
        error => error.into(),
    })?;
    let (store, run) = recorded(args, app).await?;
    let services = services(&run, app)?;
    let pipeline = again(&run, &services)?;
    let columns: Option<Vec<String>> = args.columns.as_ref().map(|columns| {
        columns.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty() && name != "id").collect()
    });
    let engine = app.engine(&pipeline, &services, store.clone());
    let cancel = app.cancel_on_interrupt();
    let limit = run.limit.and_then(|limit| usize::try_from(limit).ok());
    let mut rows = 0;
    let mut sink = |batch: runner_contract::Batch| {
        rows += batch.len() as u64;
        writer.push(&batch).map_err(|error| error.to_string())
    };
    engine.export(pipeline, limit, target.stage, columns.as_deref(), &cancel, &mut sink).await?;
    let left_out = writer.finish()?;
    if left_out > 0 {
        app.output.warning(&format!("the picture shows the first {} of {}", count(rows - left_out), count(rows)));
    }
    if app.output.json {
        app.output.document(&json!({"run": run.id, "stage": target.stage, "file": target.output, "rows": rows}))?;
    }
    app.output.text(&format!("{}: {} rows of {}\n", target.output.display(), count(rows), target.stage))?;
    store.close().await;
    Ok(Exit::Done)
}

/// Writes the model that a stage made.
async fn model(args: &Args, target: &Target<'_>, app: &App<'_>) -> Result<Exit, Failure> {
    let (store, run) = recorded(args, app).await?;
    let mut models = BTreeMap::new();
    for stage in store.records().stages(&run.id).await? {
        let Some(manifest) = stage.manifest else { continue };
        for (port, digest) in stage_models(&store, &manifest).await? {
            models.insert(format!("{}.{port}", stage.name), digest);
        }
    }
    let digest = models.get(target.stage).or_else(|| models.get(&format!("{}.model", target.stage)));
    let Some(digest) = digest else {
        let names: Vec<_> = models.keys().map(String::as_str).collect();
        let hint = match names.as_slice() {
            [] => "the run made no models".to_owned(),
            names => format!("the run made {}", names.join(", ")),
        };
        return Err(Failure::usage(format!("run {} has no model `{}`", run.id, target.stage), hint));
    };
    let content = store.artifacts().get(digest).await?;
    std::fs::write(target.output, &content).map_err(Failure::file("write", target.output))?;
    if app.output.json {
        let document = json!({"run": run.id, "stage": target.stage, "file": target.output, "digest": digest});
        app.output.document(&document)?;
    }
    app.output.text(&format!("{}: model of {}\n", target.output.display(), target.stage))?;
    store.close().await;
    Ok(Exit::Done)
}

/// Writes the run's metrics as CLIP_benchmark does.
async fn metrics(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let (store, run) = recorded(args, app).await?;
    let pipeline = again(&run, &services(&run, app)?)?;
    let metrics = store.records().metrics(&run.id).await?;
    store.close().await;
    let metrics: Vec<_> = metrics.into_iter().map(|it| (it.name, it.value)).collect();
    let mut entries = clip_benchmark::entries(&pipeline, &metrics, &args.language);
    if let Some(stage) = &args.stage {
        entries.retain(|entry| entry.stage == *stage);
    }
    if entries.is_empty() {
        let message = match &args.stage {
            Some(stage) => format!("run {} measured nothing in `{stage}` that CLIP_benchmark measures", run.id),
            None => format!("run {} measured nothing that CLIP_benchmark measures", run.id),
        };
        return Err(Failure::usage(message, "it knows stages of kind `metrics` (classification) and `retrieval`"));
    }
    let write = |path: &Path, document: &Value| {
        std::fs::write(path, document.to_string()).map_err(Failure::file("write", path))?;
        app.output.text(&format!("{}\n", path.display()))
    };
    match &args.output {
        None => entries.iter().try_for_each(|entry| app.output.raw(format!("{}\n", entry.document).as_bytes()))?,
        Some(folder) if folder.is_dir() => {
            entries.iter().try_for_each(|entry| write(&folder.join(entry.file()), &entry.document))?;
        }
        Some(file) => match entries.as_slice() {
            [only] => write(file, &only.document)?,
            several => {
                let stages: Vec<_> = several.iter().map(|entry| entry.stage.as_str()).collect();
                let message = format!("{} stages measured something: {}", several.len(), stages.join(", "));
                return Err(Failure::usage(message, "name one of them, or give a folder that is there"));
            }
        },
    }
    Ok(Exit::Done)
}

/// What the run took its datasets, models and variables from.
fn services(run: &Run, app: &App<'_>) -> Result<Services, Failure> {
    let mut services = app.services(Path::new(&run.folder))?;
    let environment = repeat::variables(run).into_iter().collect();
    services.surroundings = services.surroundings.recorded(environment, run.includes.clone());
    Ok(services)
}

async fn recorded(args: &Args, app: &App<'_>) -> Result<(Store, Run), Failure> {
    let store = app.existing_store().await?.ok_or(StoreError::NoRuns)?;
    let run = store.records().run(&args.run).await?;
    Ok((store, run))
}

/// The pipeline of a recorded run, checked again.
fn again(run: &Run, services: &Services) -> Result<Pipeline, Failure> {
    let as_text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let params = run.params.as_object().into_iter().flatten();
    let set: Vec<_> = params.map(|(name, value)| (name.clone(), as_text(value))).collect();
    let registry = runner_stages::registry(services);
    // Where the files that it includes are looked for starts at its own.
    let file = repeat::file(run);
    runner_spec::load(&file.to_string_lossy(), run.text.as_bytes(), &set, &registry, services)
        .map_err(Failure::Pipeline)
}
