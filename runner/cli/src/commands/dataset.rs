//! `runner dataset list|fetch|show`

use std::path::PathBuf;

use runner_data::{Catalog, DataError, Dataset, OpenOptions, fetch};
use serde_json::json;

use crate::{
    Exit,
    app::App,
    failure::Failure,
    output::{count, size, table},
};

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List the datasets known by name, and whether they are here
    List,
    /// Bring a dataset here, from its public mirrors or from files that you have
    Fetch {
        /// The dataset: mnist, fashion-mnist
        #[arg(value_name = "NAME")]
        name: String,
        /// A folder with its files, instead of the network
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
    },
    /// Show columns, classes and number of rows
    Show {
        /// The dataset: mnist:test, a name from runner.toml, or a path or s3:// URL of pictures, tar or Parquet files, a table
        #[arg(value_name = "DATASET")]
        dataset: String,
    },
}

pub(crate) fn run(command: &Command, app: &App<'_>) -> Result<Exit, Failure> {
    let catalog = app.services(&app.folder)?.catalog;
    match command {
        Command::List => list(&catalog, app)?,
        Command::Fetch { name, from } => bring(name, from.as_deref(), &catalog, app)?,
        Command::Show { dataset } => {
            let (found, what) = catalog.recognise(dataset, &OpenOptions::default())?;
            show(dataset, found.as_ref(), &what, app)?;
        }
    }
    Ok(Exit::Done)
}

fn list(catalog: &Catalog, app: &App<'_>) -> Result<(), Failure> {
    let known = Catalog::known();
    if app.output.json {
        let document: Vec<_> = known
            .iter()
            .map(|it| {
                let available = catalog.is_available(it);
                json!({"dataset": it.reference, "rows": it.rows, "available": available, "summary": it.summary})
            })
            .chain(catalog.aliases().iter().map(|(name, path)| json!({"dataset": name, "path": path})))
            .collect();
        return app.output.document(&document);
    }
    let rows: Vec<_> = known
        .iter()
        .map(|it| {
            let place = match (it.embedded, catalog.is_available(it)) {
                (true, _) => "in the program".to_owned(),
                (_, true) => "here".to_owned(),
                _ => format!("runner dataset fetch {}", it.fetch),
            };
            vec![it.reference.to_owned(), count(it.rows as u64), place, it.summary.to_owned()]
        })
        .collect();
    app.output.text(&table(
        &[("dataset", false), ("rows", true), ("where", false), ("", false)],
        &rows,
        app.output.paint,
    ))?;
    let named: Vec<_> =
        catalog.aliases().iter().map(|(name, path)| vec![name.clone(), path.display().to_string()]).collect();
    if !named.is_empty() {
        let named = table(&[("named in runner.toml", false), ("where", false)], &named, app.output.paint);
        app.output.text(&format!("{named}\n"))?;
    }
    app.output.text(&format!("downloads lie in {}\n", catalog.cache().display()))
}

fn bring(name: &str, from: Option<&std::path::Path>, catalog: &Catalog, app: &App<'_>) -> Result<(), Failure> {
    let fetched = fetch::fetch(name, catalog.cache(), from, &mut |progress| {
        if app.output.verbose {
            let of = progress.total.map(|total| format!(" of {}", size(total))).unwrap_or_default();
            app.output.note(&format!("{}: {}{of}", progress.file, size(progress.done)));
        }
    });
    let fetched = fetched.map_err(|error| match error {
        DataError::Reference { .. } => Failure::misnamed(&error),
        error => error.into(),
    })?;
    if app.output.json {
        return app.output.document(&json!({
            "dataset": name,
            "folder": fetched.folder,
            "added": fetched.added,
            "kept": fetched.kept,
        }));
    }
    let (folder, added, kept) = (fetched.folder.display(), fetched.added, fetched.kept);
    app.output.text(&format!("{name} is in {folder}: {added} files new, {kept} there already\n"))
}

fn show(reference: &str, dataset: &dyn Dataset, what: &str, app: &App<'_>) -> Result<(), Failure> {
    let columns = &dataset.schema().columns;
    if app.output.json {
        let columns: Vec<_> = columns.iter().map(|it| json!({"name": it.name, "type": it.kind.name()})).collect();
        return app.output.document(&json!({
            "dataset": reference,
            "name": dataset.name(),
            "recognised": what,
            "rows": dataset.len(),
            "counted": dataset.is_counted(),
            "columns": columns,
            "classes": dataset.classes(),
        }));
    }
    let columns: Vec<_> = columns.iter().map(|it| format!("{} ({})", it.name, it.kind)).collect();
    let about = if dataset.is_counted() { "" } else { "about " };
    let mut rows = vec![
        vec!["recognised".to_owned(), what.to_owned()],
        vec!["rows".to_owned(), format!("{about}{}", count(dataset.len() as u64))],
        vec!["columns".to_owned(), columns.join(", ")],
    ];
    if let Some(classes) = dataset.classes() {
        let shown = classes.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
        let rest = if classes.len() > 20 { ", …" } else { "" };
        rows.push(vec!["classes".to_owned(), format!("{}: {shown}{rest}", count(classes.len() as u64))]);
    }
    app.output.text(&table(&[(reference, false), ("", false)], &rows, app.output.paint))
}
