//! `runner classify IMAGE… [--labels "a,b"]`

use std::path::PathBuf;

use runner_models::{Classified, Loaded, classify};
use serde_json::{Value, json};

use crate::{
    Exit,
    app::App,
    failure::Failure,
    files::{self, MAX_LABELS, MAX_PICTURE},
    output::{cut, escaped, table},
};

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what"))]
pub(crate) struct Args {
    /// The pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The labels, separated by commas; a classifier has its own
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

/// Classes shown of a classifier's own, the most probable.
const SHOWN: usize = 5;
/// Characters shown of a label; `--json` has it whole.
const LABEL: usize = 60;

pub(crate) fn run(args: &Args, app: &App<'_>) -> Result<Exit, Failure> {
    let given = args.labels.is_some() || args.labels_file.is_some();
    let labels = if given { labels(args)? } else { Vec::new() };
    if !args.template.contains("{}") {
        return Err(Failure::usage("--template has no {}", "write {} where the label stands: \"a photo of a {}\""));
    }
    let model = app.services(&app.folder)?.hub.open(&args.model)?;
    if given == matches!(*model, Loaded::Classifier(_)) {
        let (problem, hint) = match given {
            true => {
                ("knows its own classes only, so labels mean nothing to it", "leave out --labels and --labels-file")
            }
            false => ("has no classes of its own", "say what a picture may show: --labels \"a cat,a dog\""),
        };
        return Err(Failure::usage(format!("{} {problem}", args.model), hint));
    }
    let mut images = Vec::with_capacity(args.images.len());
    for path in &args.images {
        let bytes = files::read(path, MAX_PICTURE)?;
        images.push((path.display().to_string(), bytes));
    }
    let (found, labels, shown) = match model.as_ref() {
        Loaded::Clip(clip) => {
            let texts: Vec<_> = labels.iter().map(|label| args.template.replace("{}", label)).collect();
            (classify(clip, &images, &texts, app.threads)?, labels, usize::MAX)
        }
        Loaded::Classifier(classifier) => {
            (classifier.classify(&images, app.threads)?, classifier.classes().to_vec(), SHOWN)
        }
    };
    if app.output.json {
        let each = found.iter().zip(&images);
        let document: Vec<_> = each.map(|(it, (path, _))| document(it, path, &labels, shown)).collect();
        app.output.document(&document)?;
    }
    for (i, (it, (path, _))) in found.iter().zip(&images).enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        let path = app.output.paint.bold(&escaped(path));
        app.output.text(&format!("{gap}{path}\n{}", ranked(it, &labels, shown, app)))?;
    }
    Ok(Exit::Done)
}

/// The labels as they were given, in order.
fn labels(args: &Args) -> Result<Vec<String>, Failure> {
    let labels: Vec<String> = match (&args.labels, &args.labels_file) {
        (_, Some(path)) => {
            let text = files::read_text(path, MAX_LABELS)?;
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

/// Given labels in their order; of a classifier's classes the most probable, best first.
fn document(found: &Classified, path: &str, labels: &[String], shown: usize) -> Value {
    let order = if shown < labels.len() { order(found, shown) } else { (0..labels.len()).collect() };
    let labels: Vec<_> = order
        .into_iter()
        .map(|i| json!({"label": labels[i], "logit": found.logits[i], "probability": found.probabilities[i]}))
        .collect();
    json!({"image": path, "labels": labels})
}

/// The most probable, best first.
fn order(found: &Classified, shown: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..found.logits.len()).collect();
    order.sort_by(|&a, &b| found.logits[b].total_cmp(&found.logits[a]));
    order.truncate(shown);
    order
}

/// A table, the most probable first.
fn ranked(found: &Classified, labels: &[String], shown: usize, app: &App<'_>) -> String {
    let row = |i: usize| {
        let label = cut(&escaped(&labels[i]), LABEL);
        vec![label, format!("{:.2} %", 100.0 * found.probabilities[i]), format!("{:.3}", found.logits[i])]
    };
    let rows: Vec<_> = order(found, shown).into_iter().map(row).collect();
    table(&[("label", false), ("probability", true), ("logit", true)], &rows, app.output.paint)
}
