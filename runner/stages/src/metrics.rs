//! `metrics`: how good predictions are, in numbers and pictures.

mod candidates;
mod classification;
mod clip_score;
mod examples;
#[cfg(test)]
mod parity;
mod tally;

use std::collections::BTreeMap;

use runner_contract::{ColumnType, Input, KindInfo, PortKind, Problem, Shape, Stage, StageError};
use runner_report::Estimate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    bootstrap::Bootstrap,
    definition::{input, output},
};
use classification::Classifying;
use clip_score::Fitting;

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What is measured.
    task: Task,
    /// The column with the true class.
    #[serde(default = "label")]
    label: String,
    /// The column with the scores, one a class.
    #[serde(default = "scores")]
    scores: String,
    /// How many of the worst mistakes (of `clip_score`: of the lowest pairs) are shown.
    #[serde(default = "mistakes")]
    mistakes: usize,
    /// How often rows are drawn anew for the bootstrap's 95 % intervals (`top1.low`, `top1.high`); 0 for none.
    #[serde(default = "resamples")]
    resamples: usize,
    /// Another seed draws other rows.
    #[serde(default)]
    seed: u64,
}

impl Settings {
    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { resamples: self.resamples, seed: self.seed }
    }
}

/// Most resamples that can be asked for.
pub(crate) const MOST_RESAMPLES: usize = 100_000;

pub(crate) fn resamples() -> usize {
    1000
}

fn label() -> String {
    "label".into()
}

fn scores() -> String {
    "scores".into()
}

fn mistakes() -> usize {
    48
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Task {
    /// Top-1 and, from five classes on, top-5 accuracy; mean recall of the classes; the scores' softmax as probabilities: log-loss
    /// and expected calibration error (15 bins of equal width); recall by class; confusion matrix; the worst mistakes.
    Classification,
    /// Of pictures and the texts that belong to them (`score` with `pair`): the mean `cosine`; `clip_s`, the mean of
    /// 2.5·max(cosine, 0) (CLIPScore, Hessel et al. 2021); `clip_score`, 100 · the mean cosine, at least 0, as torchmetrics has it.
    ClipScore,
}

struct Metrics;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Metrics)
}

impl Definition for Metrics {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "metrics",
            version: 2,
            summary: "how good predictions are: numbers, a confusion matrix, the worst mistakes",
            shape: Shape::Fold,
            inputs: const { &[input("rows", PortKind::Rows, "rows with `scores` and the true `label`")] },
            outputs: const {
                &[output(
                    "rows",
                    "one row a class: `label`, `name`, `n`, `recall`, `precision`; of `clip_score` the lowest pairs: `cosine`",
                )]
            },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        binding.column("rows", &settings.scores, "scores", |kind| *kind == ColumnType::Scores);
        if matches!(settings.task, Task::Classification) {
            binding.column("rows", &settings.label, "label", |kind| *kind == ColumnType::Label);
        }
        if settings.resamples > MOST_RESAMPLES {
            let message = format!("{} resamples, expected at most {MOST_RESAMPLES}", settings.resamples);
            binding.problem(Problem::setting("resamples", message));
        }
        match settings.task {
            Task::Classification => binding.gives("rows", classification::columns()),
            Task::ClipScore => binding.gives("rows", clip_score::columns()),
        }
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let rows = match inputs.get("rows") {
            Some(Input::Rows(schema)) => Some(schema),
            _ => None,
        };
        let image = rows.and_then(|rows| rows.matching(|kind| *kind == ColumnType::Image).next());
        let image = image.map(|column| column.name.clone());
        let text = rows.and_then(|rows| rows.get("text")).filter(|column| column.kind == ColumnType::Text);
        let text = text.map(|column| column.name.clone());
        Ok(Stage::Fold(match settings.task {
            Task::Classification => Box::new(Classifying { settings, image }),
            Task::ClipScore => Box::new(Fitting { settings, image, text }),
        }))
    }
}

/// Metrics by name: an estimate is `top1`, its interval `top1.low` and `top1.high`.
pub(crate) fn metrics(estimates: &[Estimate]) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    for Estimate { name, value, interval, .. } in estimates {
        metrics.insert(name.clone(), *value);
        if let Some((low, high)) = interval {
            metrics.insert(format!("{name}.low"), *low);
            metrics.insert(format!("{name}.high"), *high);
        }
    }
    metrics
}
