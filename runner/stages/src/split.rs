//! `split`: rows dealt out to training and validation by a hash of their id.

use std::collections::BTreeMap;

use runner_contract::{
    Context, Input, Inputs, KindInfo, PortKind, Prepared, Problem, Produced, Random, Shape, Stage, StageError, Stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The share of rows for validation, between 0 and 1.
    #[serde(default = "validation")]
    validation: f64,
    /// Another seed deals another way.
    #[serde(default)]
    seed: u64,
}

fn validation() -> f64 {
    0.05
}

struct Split;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Split)
}

impl Definition for Split {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "split",
            version: 1,
            summary: "rows dealt out to training and validation by a hash of their id",
            shape: Shape::Filter,
            inputs: const { &[input("rows", PortKind::Rows, "any rows")] },
            outputs: const { &[output("train", "the rows to train on"), output("validation", "the others")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        if !(settings.validation > 0.0 && settings.validation < 1.0) {
            let message = format!("the share for validation is {}, expected between 0 and 1", settings.validation);
            binding.problem(Problem::setting("validation", message).hint("`validation: 0.05` keeps a twentieth"));
        }
        binding.schema("rows");
        binding.gives("train", []);
        binding.gives("validation", []);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Stream(Box::new(Dealer(settings))))
    }
}

struct Dealer(Settings);

impl Stream for Dealer {
    fn apply(&self, _: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for (i, id) in (0u32..).zip(crate::port(inputs, "rows")?.ids()?.iter().flatten()) {
            let side = if Random::new(self.0.seed, "split", id).uniform() < self.0.validation {
                &mut validation
            } else {
                &mut train
            };
            side.push(i);
        }
        let rows = |take| Produced { take: Some(take), ..Produced::default() };
        Ok(BTreeMap::from([("train".to_owned(), rows(train)), ("validation".to_owned(), rows(validation))]))
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::Batch;
    use serde_json::json;

    use crate::testing::{apply, problems, rows};

    fn ids(n: usize) -> Batch {
        Batch::new((0..n).map(|i| format!("digits/{i}")).collect())
    }

    fn split(batch: Batch, seed: u64) -> [Vec<String>; 2] {
        let out = apply("split", json!({"validation": 0.2, "seed": seed}), &[("rows", batch)]);
        ["train", "validation"].map(|port| out[port].ids().unwrap().iter().flatten().map(str::to_owned).collect())
    }

    #[test]
    fn every_row_is_on_one_side_and_the_share_is_right() {
        let [train, validation] = split(ids(2000), 0);
        assert_eq!(train.len() + validation.len(), 2000);
        assert!((350..450).contains(&validation.len()), "{}", validation.len());
    }

    #[test]
    fn a_row_stays_on_its_side_whatever_else_there_is() {
        let [_, many] = split(ids(2000), 0);
        let [_, few] = split(ids(500), 0);
        assert_eq!(few, many[..few.len()]);
        assert_ne!(many, split(ids(2000), 1)[1]);
    }

    #[test]
    fn a_share_outside_0_to_1_is_refused() {
        let found = problems("split", json!({"validation": 5}), &rows(&[("rows", &ids(1))]));
        assert!(found[0].starts_with("with.validation: the share for validation is 5"), "{found:?}");
    }
}
