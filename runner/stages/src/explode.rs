//! `explode`: a row for each text of a column that holds several.

use std::collections::BTreeMap;

use runner_contract::{
    Column, ColumnData, ColumnType, Context, Input, Inputs, KindInfo, PortKind, Prepared, Problem, Produced, Schema,
    Shape, Stage, StageError, Stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, output},
};

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The column with several texts a row. Left out: the only one there is, or `captions`.
    #[serde(default)]
    column: Option<String>,
}

struct Explode;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Explode)
}

impl Definition for Explode {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "explode",
            version: 1,
            summary: "a row for each text of a column that holds several, such as a picture's captions",
            shape: Shape::Expand,
            inputs: const { &[input("rows", PortKind::Rows, "rows with several texts each")] },
            outputs: const { &[output("rows", "one row a text: `text`, and the row that it is of as `parent`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        if let Some(schema) = binding.schema("rows") {
            match choose(settings, schema) {
                Ok(name) => {
                    binding.column("rows", &name, "texts", |kind| *kind == ColumnType::Texts);
                }
                Err(problem) => binding.problem(problem),
            }
        }
        binding.gives("rows", [Column::new("text", ColumnType::Text)]);
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let Some(Input::Rows(schema)) = inputs.get("rows") else { return Err(StageError::new("`explode` needs rows")) };
        let column = choose(&settings, schema).map_err(|problem| StageError::new(problem.message))?;
        Ok(Stage::Stream(Box::new(Texts(column))))
    }
}

/// The column that is meant.
fn choose(settings: &Settings, schema: &Schema) -> Result<String, Problem> {
    if let Some(column) = &settings.column {
        return Ok(column.clone());
    }
    let fitting: Vec<_> = schema.matching(|kind| *kind == ColumnType::Texts).map(|column| &column.name).collect();
    match fitting.as_slice() {
        [] => Err(Problem::input("rows", format!("no column holds several texts: the rows have {}", schema.names()))),
        [only] => Ok((*only).clone()),
        several if several.iter().any(|name| *name == "captions") => Ok("captions".to_owned()),
        several => {
            let names = several.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let problem = Problem::input("rows", format!("each of {names} holds several texts"));
            Err(problem.hint(format!("say which: `with: {{column: {}}}`", several[0])))
        }
    }
}

struct Texts(String);

impl Stream for Texts {
    fn apply(&self, _: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let rows = crate::port(inputs, "rows")?;
        let (mut take, mut all) = (Vec::new(), Vec::new());
        for (row, texts) in (0u32..).zip(rows.texts(&self.0)?) {
            take.extend(std::iter::repeat_n(row, texts.len()));
            all.extend(texts);
        }
        let produced = Produced { take: Some(take), ..Produced::default() };
        Ok(BTreeMap::from([("rows".to_owned(), produced.column("text", ColumnData::Text(all))?)]))
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::Batch;
    use serde_json::json;

    use super::*;
    use crate::testing::{apply, problems, rows};

    fn captioned() -> Batch {
        let captions = vec![vec!["x".to_owned(), "y".to_owned()], vec![], vec!["z".to_owned()]];
        Batch::new(["a", "b", "c"].map(str::to_owned).to_vec()).with("captions", ColumnData::Texts(captions)).unwrap()
    }

    #[test]
    fn every_text_is_a_row() {
        let out = apply("explode", json!({}), &[("rows", captioned())]);
        let texts: Vec<_> = out["rows"].text("text").unwrap().iter().flatten().map(str::to_owned).collect();
        assert_eq!(texts, ["x", "y", "z"]);
        let of: Vec<_> = out["rows"].ids().unwrap().iter().flatten().map(str::to_owned).collect();
        assert_eq!(of, ["a", "a", "c"], "the engine numbers the children");
    }

    #[test]
    fn the_column_is_the_only_one_or_the_usual_one() {
        let two = captioned().with("tags", ColumnData::Texts(vec![vec![], vec![], vec![]])).unwrap();
        assert!(problems("explode", json!({}), &rows(&[("rows", &two)])).is_empty());
        let none = Batch::new(vec!["a".into()]);
        let found = problems("explode", json!({}), &rows(&[("rows", &none)]));
        assert_eq!(found, ["inputs.rows: no column holds several texts: the rows have id"]);
        let found = problems("explode", json!({"column": "tgas"}), &rows(&[("rows", &two)]));
        assert!(found[0].contains("no column `tgas`"), "{found:?}");
    }
}
