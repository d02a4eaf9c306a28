//! `metrics`: how good predictions are, in numbers and pictures.

mod classification;

use std::collections::BTreeMap;

use runner_contract::{
    Access, Accumulator, ColumnType, Context, Fold, Input, Inputs, KindInfo, Need, Outcome, PortKind, Shape, Stage,
    StageError,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};
use classification::{Candidates, Tally};

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
    /// How many of the worst mistakes the picture shows.
    #[serde(default = "mistakes")]
    mistakes: usize,
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
    /// Top-1 and, above five classes, top-5 accuracy; recall by class; confusion matrix; the worst mistakes.
    Classification,
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
            version: 1,
            summary: "how good predictions are: numbers, a confusion matrix, the worst mistakes",
            shape: Shape::Fold,
            inputs: const { &[input("rows", PortKind::Rows, "rows with `scores` and the true `label`")] },
            outputs: const { &[output("rows", "one row a class: `label`, `name`, `n`, `recall`, `precision`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        binding.column("rows", &settings.scores, "scores", |kind| *kind == ColumnType::Scores);
        binding.column("rows", &settings.label, "label", |kind| *kind == ColumnType::Label);
        binding.gives("rows", classification::columns());
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let image = match inputs.get("rows") {
            Some(Input::Rows(schema)) => schema.matching(|kind| *kind == ColumnType::Image).next(),
            _ => None,
        };
        let image = image.map(|column| column.name.clone());
        Ok(Stage::Fold(Box::new(Classification { settings, image })))
    }
}

struct Classification {
    settings: Settings,
    /// The column to show mistakes from.
    image: Option<String>,
}

impl Fold for Classification {
    fn start(&self, _: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        Ok(Box::new(Counting { settings: self.settings.clone(), tally: Tally::default() }))
    }

    fn merge(&self, context: &Context, partials: Vec<Vec<u8>>, access: &dyn Access) -> Result<Outcome, StageError> {
        let mut tally = Tally::default();
        for partial in &partials {
            tally.merge(Tally::read(partial)?, self.settings.mistakes)?;
        }
        context.check()?;
        let pictures = match &self.image {
            Some(column) if !tally.mistakes.is_empty() => {
                let ids: Vec<_> = tally.mistakes.iter().map(|mistake| mistake.id.clone()).collect();
                Some((access.rows("rows")?.fetch(&ids, &[Need::pixels(column)])?, column.as_str()))
            }
            _ => None,
        };
        tally.outcome(pictures.as_ref().map(|(rows, column)| (rows, *column)))
    }
}

struct Counting {
    settings: Settings,
    tally: Tally,
}

impl Accumulator for Counting {
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError> {
        let rows = crate::port(inputs, "rows")?;
        if rows.is_empty() {
            return Ok(());
        }
        self.tally.fix_candidates(Candidates::of_scores(rows, &self.settings.scores)?)?;
        let (scores, width) = rows.vectors(&self.settings.scores)?;
        let ids = rows.ids()?;
        let labels = rows.integers(&self.settings.label)?;
        for (i, (&label, row)) in labels.iter().zip(scores.chunks_exact(width.max(1))).enumerate() {
            self.tally.add(ids.value(i), label, row);
        }
        self.tally.keep_worst(self.settings.mistakes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError> {
        Ok(self.tally.write())
    }
}
