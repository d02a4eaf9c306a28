//! `runner show RUN`

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::ValueHint;
use runner_store::{Metric, Run, StoreError};
use serde_json::json;

use crate::{
    Exit,
    app::App,
    failure::Failure,
    output::{number, table},
    repeat,
    summary::Summary,
};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The run: its id, the beginning or end of it, or latest
    #[arg(default_value = "latest", value_name = "RUN")]
    run: String,
    /// Print the pipeline as it was run
    #[arg(long)]
    pipeline: bool,
    /// Write the pipeline and the files that it includes into a folder
    #[arg(short, long, requires = "pipeline", value_name = "DIR", value_hint = ValueHint::DirPath)]
    output: Option<PathBuf>,
    /// Print what was measured by step: loss, validation accuracy
    #[arg(long, conflicts_with = "pipeline")]
    series: bool,
    /// Print the commands that run it again
    #[arg(long, conflicts_with_all = ["pipeline", "series"])]
    repeat: bool,
}

pub(crate) async fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let store = app.existing_store().await?.ok_or(StoreError::NoRuns)?;
    let run = store.records().run(&args.run).await?;
    if args.pipeline {
        pipeline(&run, args.output.as_deref(), app)?;
        return Ok(Exit::Done);
    }
    if args.series {
        series(&store.records().series(&run.id).await?, app)?;
        return Ok(Exit::Done);
    }
    if args.repeat {
        let script = repeat::script(&run);
        if app.output.json {
            app.output.document(&json!({"run": run.id, "version": run.version, "commands": script}))?;
        }
        let heading = format!("# run {} of {}, with runner {}", run.id, run.pipeline, run.version);
        app.output.text(&format!("{heading}\n{}\n", script.join("\n")))?;
        return Ok(Exit::Done);
    }
    let summary = Summary::load(app, &store, run).await?.explained(&store).await?;
    if app.output.json {
        app.output.document(&summary.document())?;
    } else {
        app.output.text(&summary.explanation(app))?;
        app.output.text(&summary.text(app))?;
    }
    Ok(Exit::Done)
}

/// The pipeline's text, or its files.
fn pipeline(run: &Run, folder: Option<&Path>, app: &App<'_>) -> Result<(), Failure> {
    let Some(folder) = folder else {
        if app.output.json {
            app.output.document(&json!({"run": run.id, "pipeline": run.text, "includes": run.includes}))?;
        }
        return app.output.text(&run.text);
    };
    let file = repeat::file(run);
    let includes = run.includes.iter().map(|(name, text)| (PathBuf::from(name), text));
    let mut files = Vec::new();
    for (name, text) in [(file, &run.text)].into_iter().chain(includes) {
        let path = folder.join(repeat::inside(&name));
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(Failure::file("make", parent))?;
        fs::write(&path, text).map_err(Failure::file("write", &path))?;
        files.push(path);
    }
    if app.output.json {
        app.output.document(&json!({"run": run.id, "files": files}))?;
    }
    files.iter().try_for_each(|path| app.output.text(&format!("{}\n", path.display())))
}

/// Values by series: `{"clip.loss": [[step, value], …]}`, or a table.
fn series(values: &[Metric], app: &App<'_>) -> Result<(), Failure> {
    if app.output.json {
        let mut document: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for it in values {
            document.entry(&it.name).or_default().push(json!([it.step, it.value]));
        }
        return app.output.document(&document);
    }
    let step = |it: &Metric| it.step.map(|step| step.to_string()).unwrap_or_default();
    let rows: Vec<_> = values.iter().map(|it| vec![it.name.clone(), step(it), number(it.value)]).collect();
    app.output.text(&table(&[("series", false), ("step", true), ("value", true)], &rows, app.output.paint))
}
