//! `texts`: a source of texts that stand in the pipeline itself.

use std::collections::BTreeMap;

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, Input, KeyHasher, KindInfo, Problem, Shape, ShardInfo, Source,
    Stage, StageError,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Binding, Defined, Definition, Services, definition::output};

/// Rows a chunk.
const CHUNK: usize = 64;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The texts, one a row. Each is a class of its own: its place in the list is its label.
    values: Vec<String>,
}

struct Texts;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Texts)
}

impl Definition for Texts {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "texts",
            version: 1,
            summary: "rows of the texts given here, each a class of its own",
            shape: Shape::Source,
            inputs: &[],
            outputs: const { &[output("rows", "one row a text")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        if settings.values.is_empty() {
            binding.problem(
                Problem::setting("values", "no texts").hint("give at least one: `values: [\"a cat\", \"a dog\"]`"),
            );
        }
        let mut seen = BTreeMap::new();
        for (i, value) in settings.values.iter().enumerate() {
            let mut problem = |message: String| {
                let path = vec!["with".into(), "values".into(), i.to_string()];
                binding.problem(Problem { path, message, hint: None });
            };
            if value.trim().is_empty() {
                problem("an empty text".into());
            } else if let Some(first) = seen.insert(value, i) {
                problem(format!("the same text as number {}", first + 1));
            }
        }
        binding.gives(
            "rows",
            [
                Column::new("text", ColumnType::Text),
                Column::new("label", ColumnType::Label),
                Column::new("name", ColumnType::Text),
            ],
        );
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Source(Box::new(Values(settings.values))))
    }
}

struct Values(Vec<String>);

impl Values {
    fn digest(&self, what: &str) -> Digest {
        let key = KeyHasher::new("texts/1").part("what", what.as_bytes());
        self.0.iter().fold(key, |key, value| key.part("value", value.as_bytes())).finish()
    }
}

impl Source for Values {
    /// One shard. A limit does not cut it: these are labels and prompts, and half a label set is another question.
    fn shards(&self, _: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let columns = ["text", "label", "name"].map(|name| (name.to_owned(), self.digest(name)));
        Ok(vec![ShardInfo { rows: self.0.len(), ids: self.digest("id"), columns: columns.into() }])
    }

    fn read<'a>(
        &'a self,
        _: usize,
        _: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let columns = columns.to_vec();
        Ok(Box::new(self.0.chunks(CHUNK).enumerate().map(move |(chunk, values)| {
            let range = chunk * CHUNK..chunk * CHUNK + values.len();
            let mut batch = Batch::new(range.clone().map(|i| i.to_string()).collect());
            for column in &columns {
                batch = match column.as_str() {
                    "label" => batch.with("label", ColumnData::Labels(range.clone().map(|i| i as i64).collect()))?,
                    name => batch.with(name, ColumnData::Text(values.to_vec()))?,
                };
            }
            Ok(batch)
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bind, problems};

    #[test]
    fn every_text_is_a_row_with_its_place_as_label() {
        let source = Values((0..70).map(|i| format!("text {i}")).collect());
        let columns = ["text", "label", "name"].map(str::to_owned);
        let chunks: Result<Vec<_>, _> = source.read(0, None, &columns).unwrap().collect();
        let all = Batch::concat(&chunks.unwrap()).unwrap();
        assert_eq!(all.len(), 70);
        assert_eq!(all.text("text").unwrap().value(69), "text 69");
        assert_eq!(all.text("name").unwrap().value(69), "text 69");
        assert_eq!(all.integers("label").unwrap()[69], 69);
    }

    #[test]
    fn empty_and_repeated_texts_are_named() {
        let found = problems("texts", serde_json::json!({"values": ["a", " ", "a"]}), &[]);
        assert_eq!(found, ["with.values.1: an empty text", "with.values.2: the same text as number 1"]);
        assert_eq!(problems("texts", serde_json::json!({"values": []}), &[]).len(), 1);
        assert!(bind("texts", serde_json::json!({"values": ["a"]}), &[]).is_ok());
    }
}
