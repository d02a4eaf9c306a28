//! `dataset`: rows read from datasets, named or by path.

use std::{collections::BTreeMap, sync::Arc};

use runner_contract::{Batch, Digest, Input, KindInfo, Problem, Shape, ShardInfo, Source, Stage, StageError};
use runner_data::{Amount, Catalog, Choice, DataError, LABEL, OpenOptions, classes_schema, imagenet_classes, subset};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::{Binding, Defined, Definition, Services, definition::output};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What to read: `mnist:test`, a name from `runner.toml` (`imagenet:val`), a path or `s3://` URL of an image folder, of tar
    /// (WebDataset) or Parquet files, of CIFAR or IDX files, of a CSV or JSONL file. A list is read one after the other; classes
    /// are joined by name.
    source: References,
    /// The name of each class, by label, where the files do not say or say it badly; `imagenet` for ImageNet's 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    classes: Option<Classes>,
    /// Some of the rows. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subset: Option<Subset>,
}

/// Which rows: `rows` or `share`, and how they are picked.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Subset {
    /// So many; all if there are fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    rows: Option<usize>,
    /// This share of all, above 0 up to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    share: Option<f64>,
    /// `random`: by seed and file name, the same ones from every layout of the same files; `first`: the first ones.
    #[serde(default)]
    pick: Pick,
    /// Another seed, another sample.
    #[serde(default)]
    seed: u64,
    /// As many of each class as it has among all.
    #[serde(default)]
    stratified: bool,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Pick {
    #[default]
    Random,
    First,
}

impl Subset {
    /// What it says, if that makes sense.
    fn choice(self) -> Result<Choice, String> {
        let amount = match (self.rows, self.share) {
            (Some(0), None) => return Err("`rows` is 0: no rows".into()),
            (Some(rows), None) => Amount::Rows(rows),
            (None, Some(share)) if share > 0.0 && share <= 1.0 => Amount::Share(share),
            (None, Some(share)) => return Err(format!("`share` is {share}, expected a number above 0 up to 1")),
            _ => return Err("expected `rows` or `share`".into()),
        };
        let pick = match self.pick {
            Pick::Random => runner_data::Pick::Random(self.seed),
            Pick::First => runner_data::Pick::First,
        };
        Ok(Choice { amount, pick, stratified: self.stratified })
    }
}

/// Class names.
#[derive(Clone, Serialize)]
#[serde(transparent)]
struct Classes(Vec<String>);

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Classes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of class names, or `imagenet`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Classes, E> {
                match name {
                    "imagenet" => Ok(Classes(imagenet_classes().to_vec())),
                    _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Classes, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Classes(all))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Classes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Classes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"const": "imagenet"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        })
    }
}

impl Settings {
    fn options(&self) -> OpenOptions {
        OpenOptions { classes: self.classes.as_ref().map(|classes| classes.0.clone()) }
    }

    /// The rows that are meant.
    fn open(&self, catalog: &Catalog) -> Result<Arc<dyn runner_data::Dataset>, DataError> {
        let all = catalog.open_all(&self.source.0, &self.options())?;
        match self.subset {
            None => Ok(all),
            Some(some) => subset(all, some.choice().map_err(DataError::Invalid)?),
        }
    }
}

/// One reference or several. Kept as a list, so that `a` and `[a]` are the same settings.
#[derive(Clone, Serialize)]
#[serde(transparent)]
struct References(Vec<String>);

impl<'de> Deserialize<'de> for References {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = References;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a dataset reference such as `mnist:test`, or a list of them")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<References, E> {
                Ok(References(vec![one.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<References, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(References(all))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for References {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "References".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        })
    }
}

struct Dataset {
    catalog: Arc<Catalog>,
}

pub(crate) fn kind(services: &Services) -> Defined<impl Definition> {
    Defined::new(Dataset { catalog: services.catalog.clone() })
}

impl Definition for Dataset {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "dataset",
            version: 1,
            summary: "rows read from a dataset",
            shape: Shape::Source,
            inputs: &[],
            outputs: const {
                &[output("rows", "the dataset's rows"), output("classes", "one row a class: `label` and `name`")]
            },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let References(references) = &settings.source;
        let mut fine = !references.is_empty();
        for (i, reference) in references.iter().enumerate() {
            if let Err(error) = self.catalog.open_with(reference, &settings.options()) {
                fine = false;
                let mut problem = crate::problem_of(error);
                problem.path = vec!["with".into(), "source".into()];
                problem.path.extend((references.len() > 1).then(|| i.to_string()));
                binding.problem(problem);
            }
        }
        if references.is_empty() {
            binding.problem(Problem::setting("source", "no dataset named").hint("write `source: mnist:test`"));
        }
        if let Some(Err(message)) = settings.subset.map(Subset::choice) {
            fine = false;
            binding.problem(Problem::setting("subset", message).hint("write `subset: {rows: 1000, seed: 0}`"));
        }
        if !fine {
            return;
        }
        match settings.open(&self.catalog) {
            Ok(dataset) => {
                binding.gives("rows", dataset.schema().columns.clone());
                if dataset.classes().is_some() {
                    binding.gives("classes", classes_schema().columns);
                } else {
                    binding.gives_nothing("classes", no_classes(dataset.as_ref()));
                }
            }
            Err(error) => {
                binding.problem(Problem { path: vec!["with".into(), "source".into()], ..crate::problem_of(error) });
            }
        }
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let dataset = settings.open(&self.catalog).map_err(|error| StageError::new(error.to_string()))?;
        Ok(Stage::Source(Box::new(Rows(dataset))))
    }
}

/// What to do about a dataset without class names.
fn no_classes(dataset: &dyn runner_data::Dataset) -> &'static str {
    match dataset.schema().get(LABEL) {
        Some(_) => {
            "its labels are numbers: write `classes: imagenet`, or a list of names, under `with:`, or put a classnames.txt beside the files, one name a line"
        }
        None => {
            "its rows have no labels: expected a sub-folder for each class, `cls` members in the tars, or a column of labels"
        }
    }
}

/// An open dataset, shared with the catalogue.
struct Rows(Arc<dyn runner_data::Dataset>);

impl Source for Rows {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        self.0.shards(limit)
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        self.0.read(shard, limit, columns)
    }

    fn rows(
        &self,
        shard: usize,
        limit: Option<usize>,
        positions: &[u32],
        columns: &[String],
    ) -> Result<Batch, StageError> {
        self.0.rows(shard, limit, positions, columns)
    }

    fn side(&self, port: &str) -> Result<(Digest, Batch), StageError> {
        self.0.side(port)
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::Output;
    use serde_json::json;

    use super::*;
    use crate::testing::{bind, open, problems};

    #[test]
    fn the_embedded_digits_are_rows_and_classes() {
        let bound = bind("dataset", json!({"source": "mnist:test"}), &[]).unwrap();
        assert_eq!(bound.settings, json!({"source": ["mnist:test"]}));
        let Output::Rows(rows) = &bound.outputs["rows"] else { panic!("not rows") };
        assert_eq!(rows.names(), "id, image, label");
        assert!(bound.outputs.contains_key("classes"));

        let Stage::Source(source) = open("dataset", json!({"source": ["mnist:test"]}), &[]) else {
            panic!("not a source")
        };
        assert_eq!(source.shards(Some(100)).unwrap().iter().map(|shard| shard.rows).sum::<usize>(), 100);
        let (_, classes) = source.side("classes").unwrap();
        assert_eq!(classes.text("name").unwrap().value(7), "7");
    }

    #[test]
    fn every_reference_that_cannot_be_read_is_named_in_its_place() {
        let found = problems("dataset", json!({"source": ["mnist:tset", "mnist:test", "no/such/folder"]}), &[]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("with.source.0: ") && found[1].starts_with("with.source.2: "), "{found:?}");
        assert!(problems("dataset", json!({"source": []}), &[])[0].starts_with("with.source: no dataset named"));
        assert!(problems("dataset", json!({"source": 3}), &[])[0].contains("a dataset reference such as"));
    }
}
