//! `runner classify IMAGE… --labels "a,b"`

use std::path::PathBuf;

use runner_models::{Classified, classify};
use serde_json::{Value, json};

use crate::{Exit, app::App, failure::Failure, output::table};

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct Args {
    /// The pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The labels, separated by commas
    #[arg(long, value_name = "LABEL,…", group = "what")]
    labels: Option<String>,
    /// The labels, from a file: a JSON array, or one a line
    #[arg(long, value_name = "FILE", group = "what")]
    labels_file: Option<PathBuf>,
    /// The model: builtin:NAME, a folder in Hugging Face's layout, a file
    #[arg(long, value_name = "MODEL", default_value = "builtin:mini-clip")]
    model: String,
    /// The text to compare with, {} being the label
    #[arg(long, value_name = "TEXT", default_value = "{}")]
    template: String,
}

pub(crate) fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let labels = labels(args)?;
    if !args.template.contains("{}") {
        return Err(Failure::usage("--template has no {}", "write {} where the label stands: \"a photo of a {}\""));
    }
    let texts: Vec<_> = labels.iter().map(|label| args.template.replace("{}", label)).collect();
    let mut images = Vec::with_capacity(args.images.len());
    for path in &args.images {
        let bytes = std::fs::read(path).map_err(Failure::file("read", path))?;
        images.push((path.display().to_string(), bytes));
    }
    let model = app.services(&app.folder)?.hub.open(&args.model)?;
    let found = classify(model.clip()?, &images, &texts, app.threads)?;
    if app.output.json {
        let document: Vec<_> = found.iter().zip(&images).map(|(it, (path, _))| document(it, path, &labels)).collect();
        app.output.document(&document)?;
    }
    for (i, (it, (path, _))) in found.iter().zip(&images).enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        app.output.text(&format!("{gap}{}\n{}", app.output.paint.bold(path), ranked(it, &labels, app)))?;
    }
    Ok(Exit::Done)
}

/// The labels as they were given, in order.
fn labels(args: &Args) -> Result<Vec<String>, Failure> {
    let labels: Vec<String> = match (&args.labels, &args.labels_file) {
        (_, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(Failure::file("read", path))?;
            if text.trim_start().starts_with('[') {
                serde_json::from_str(&text).map_err(|error| {
                    Failure::usage(format!("{}: {error}", path.display()), "expected a JSON array of strings")
                })?
            } else {
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
            }
        }
        (labels, None) => {
            let text = labels.as_deref().unwrap_or_default();
            text.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect()
        }
    };
    if labels.is_empty() { Err(Failure::usage("no labels", "--labels \"a cat,a dog\"")) } else { Ok(labels) }
}

fn document(found: &Classified, path: &str, labels: &[String]) -> Value {
    let labels: Vec<_> = labels
        .iter()
        .zip(found.logits.iter().zip(&found.probabilities))
        .map(|(label, (logit, probability))| json!({"label": label, "logit": logit, "probability": probability}))
        .collect();
    json!({"image": path, "labels": labels})
}

/// A table, the most probable first.
fn ranked(found: &Classified, labels: &[String], app: &App<'_>) -> String {
    let mut order: Vec<_> = (0..labels.len()).collect();
    order.sort_by(|&a, &b| found.probabilities[b].total_cmp(&found.probabilities[a]));
    let row = |&i: &usize| {
        vec![labels[i].clone(), format!("{:.2} %", 100.0 * found.probabilities[i]), format!("{:.3}", found.logits[i])]
    };
    let rows: Vec<_> = order.iter().map(row).collect();
    table(&[("label", false), ("probability", true), ("logit", true)], &rows, app.output.paint)
}
