//! `runner export RUN STAGE -o FILE`

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use runner_data::write::Writer;
use runner_engine::stage_models;
use runner_spec::Pipeline;
use runner_stages::Services;
use runner_store::{Run, Store, StoreError};
use serde_json::{Value, json};

use crate::{Exit, app::App, failure::Failure, output::count, repeat};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest
    #[arg(value_name = "RUN")]
    run: String,
    /// The stage, with a port where it has several: data, split.train, metrics[model=b32]
    #[arg(value_name = "STAGE")]
    stage: String,
    /// The file; its ending says how: .parquet, .csv, .jsonl, .png; .safetensors for a model
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The columns, besides id [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    columns: Option<Vec<String>>,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let ending = args.output.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if ending.eq_ignore_ascii_case("safetensors") {
        return model(args, app).await;
    }
    // Before anything is computed.
    let mut writer = Writer::create(&args.output)?;
    let (store, run) = recorded(args, app).await?;
    let mut services = app.services(Path::new(&run.folder))?;
    let environment = repeat::variables(&run).into_iter().collect();
    services.surroundings = services.surroundings.recorded(environment, run.includes.clone());
    let pipeline = again(&run, &services)?;
    let engine = app.engine(&pipeline, &services, store.clone());
    let cancel = app.cancel_on_interrupt();
    let limit = run.limit.and_then(|limit| usize::try_from(limit).ok());
    let columns: Option<Vec<String>> = args.columns.as_ref().map(|columns| {
        columns.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty() && name != "id").collect()
    });
    let mut rows = 0;
    let mut sink = |batch: runner_contract::Batch| {
        rows += batch.len() as u64;
        writer.push(&batch).map_err(|error| error.to_string())
    };
    engine.export(pipeline, limit, &args.stage, columns.as_deref(), &cancel, &mut sink).await?;
    let left_out = writer.finish()?;
    if left_out > 0 {
        app.output.warning(&format!("the picture shows the first {} of {}", count(rows - left_out), count(rows)));
    }
    if app.output.json {
        app.output.document(&json!({"run": run.id, "stage": args.stage, "file": args.output, "rows": rows}))?;
    }
    app.output.text(&format!("{}: {} rows of {}\n", args.output.display(), count(rows), args.stage))?;
    store.close().await;
    Ok(Exit::Done)
}

/// Writes the model that a stage made.
async fn model(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let (store, run) = recorded(args, app).await?;
    let mut models = BTreeMap::new();
    for stage in store.records().stages(&run.id).await? {
        let Some(manifest) = stage.manifest else { continue };
        for (port, digest) in stage_models(&store, &manifest).await? {
            models.insert(format!("{}.{port}", stage.name), digest);
        }
    }
    let digest = models.get(&args.stage).or_else(|| models.get(&format!("{}.model", args.stage)));
    let Some(digest) = digest else {
        let names: Vec<_> = models.keys().map(String::as_str).collect();
        let hint = match names.as_slice() {
            [] => "the run made no models".to_owned(),
            names => format!("the run made {}", names.join(", ")),
        };
        return Err(Failure::usage(format!("run {} has no model `{}`", run.id, args.stage), hint));
    };
    let content = store.artifacts().get(digest).await?;
    std::fs::write(&args.output, &content).map_err(Failure::file("write", &args.output))?;
    if app.output.json {
        app.output.document(&json!({"run": run.id, "stage": args.stage, "file": args.output, "digest": digest}))?;
    }
    app.output.text(&format!("{}: model of {}\n", args.output.display(), args.stage))?;
    store.close().await;
    Ok(Exit::Done)
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
