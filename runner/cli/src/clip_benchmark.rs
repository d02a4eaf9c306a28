//! A run's metrics as CLIP_benchmark writes them: one JSON object a dataset and model.

use std::path::Path;

use runner_spec::{InputRef, Pipeline};
use serde_json::{Map, Value, json};

/// What one stage measured.
pub(crate) struct Entry {
    /// The stage.
    pub(crate) stage: String,
    /// The object.
    pub(crate) document: Value,
}

impl Entry {
    /// The file's name, as CLIP_benchmark's default: `DATASET_PRETRAINED_MODEL_LANGUAGE_TASK.json`.
    pub(crate) fn file(&self) -> String {
        let part = |name: &str| {
            let text = self.document.get(name).and_then(Value::as_str).unwrap_or_default();
            let plain = |c: char| if c.is_alphanumeric() || "-_.@".contains(c) { c } else { '_' };
            text.chars().map(plain).collect::<String>()
        };
        let parts = ["dataset", "pretrained", "model", "language", "task"].map(part);
        // Two stages of one run may differ in nothing that stands in the name but themselves.
        let stage: String = self.stage.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        format!("{}_{}.json", parts.join("_"), stage.trim_matches('_'))
    }
}

/// The entries of the stages that measured something that CLIP_benchmark measures. `metrics` are all of the run's, by full name.
pub(crate) fn entries(pipeline: &Pipeline, metrics: &[(String, f64)], language: &str) -> Vec<Entry> {
    let all = (0..).zip(&pipeline.stages).filter_map(|(position, stage)| {
        let own = |name: &str| {
            let full = format!("{}.{name}", stage.name);
            metrics.iter().find(|(name, _)| *name == full).map(|(_, value)| *value)
        };
        let mut values = Map::new();
        let task = match stage.kind.as_str() {
            "metrics" if own("top1").is_some() => {
                for (theirs, ours) in
                    [("acc1", "top1"), ("acc5", "top5"), ("mean_per_class_recall", "mean_per_class_recall")]
                {
                    // Theirs is NaN below five classes, which JSON does not have.
                    values.insert(theirs.to_owned(), json!(own(ours)));
                }
                "zeroshot_classification"
            }
            "retrieval" => {
                let of_stage = format!("{}.", stage.name);
                let recalls = metrics.iter().filter_map(|(name, value)| {
                    let name = name.strip_prefix(&of_stage)?;
                    let is_value = name.contains("_retrieval_recall@") && !name.contains('.');
                    is_value.then(|| (name.to_owned(), json!(value)))
                });
                values.extend(recalls);
                "zeroshot_retrieval"
            }
            _ => return None,
        };
        if values.is_empty() {
            return None;
        }
        let (dataset, (model, pretrained)) = origin(pipeline, position);
        let document = json!({
            "dataset": dataset,
            "model": model,
            "pretrained": pretrained,
            "task": task,
            "metrics": values,
            "language": language,
        });
        Some(Entry { stage: stage.name.clone(), document })
    });
    all.collect()
}

/// The dataset that the rows of a stage come from, and the model that encoded them: the nearest on the way up.
fn origin(pipeline: &Pipeline, stage: usize) -> (String, (String, String)) {
    let (mut dataset, mut model) = (None, None);
    let (mut next, mut seen) = (std::collections::VecDeque::from([stage]), vec![false; pipeline.stages.len()]);
    while let Some(position) = next.pop_front() {
        let Some(stage) = pipeline.stages.get(position) else { continue };
        if seen.get(position).copied().unwrap_or(true) {
            continue;
        }
        seen[position] = true;
        if let (None, Some(source)) = (&dataset, stage.bound.settings.get("source")) {
            let names = source.as_array().map_or_else(|| vec![source.clone()], Clone::clone);
            let names: Vec<_> = names.iter().filter_map(Value::as_str).map(known).collect();
            dataset = Some(names.join("+"));
        }
        for input in stage.inputs.values() {
            match input {
                InputRef::Stage { stage: before, port } => {
                    if port == "model" && model.is_none() {
                        let name = pipeline.stages.get(*before).map(|stage| stage.name.clone());
                        model = Some((name.unwrap_or_default(), "trained in this run".to_owned()));
                    }
                    next.push_back(*before);
                }
                InputRef::Model { reference, info } => {
                    model.get_or_insert_with(|| named(reference, &info.identity.short().to_string()));
                }
            }
        }
    }
    (dataset.unwrap_or_default(), model.unwrap_or_default())
}

/// A dataset's name there, where it has one.
fn known(reference: &str) -> String {
    match reference {
        "mnist:test" => "mnist",
        "cifar10:test" => "cifar10",
        "cifar100:test" => "cifar100",
        "imagenet:val" => "imagenet1k",
        other => other,
    }
    .to_owned()
}

/// Model and weights: `open_clip:ViT-B-32=/models/b32.pt` names both; otherwise the weights are named by their digest.
fn named(reference: &str, identity: &str) -> (String, String) {
    match reference.strip_prefix("open_clip:").and_then(|pair| pair.split_once('=')) {
        Some((model, path)) => {
            let file = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
            (model.to_owned(), file.unwrap_or_else(|| path.to_owned()))
        }
        None => (reference.to_owned(), identity.to_owned()),
    }
}
