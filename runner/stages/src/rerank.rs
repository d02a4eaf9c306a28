//! `rerank`: the best few of every group.

use std::collections::BTreeMap;

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Context, Input, Inputs, KindInfo, Need, PARENT, PortKind, Prepared, Problem,
    Produced, Shape, Stage, StageError, Stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    definition::{input, optional, output},
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The column whose equal values make a group.
    #[serde(default = "parent")]
    group: String,
    /// The column to order by; of several scores a row the largest counts.
    #[serde(default = "scores")]
    by: String,
    /// Rows to keep of each group.
    #[serde(default = "one")]
    keep: usize,
    /// Keep the smallest instead of the largest.
    #[serde(default)]
    ascending: bool,
}

fn parent() -> String {
    PARENT.into()
}

fn scores() -> String {
    "scores".into()
}

fn one() -> usize {
    1
}

struct Rerank;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Rerank)
}

impl Definition for Rerank {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "rerank",
            version: 1,
            summary: "the best few of every group, by a score",
            shape: Shape::Group,
            inputs: const {
                &[
                    input("rows", PortKind::Rows, "the children of each parent"),
                    optional("scores", PortKind::Rows, "the same rows with the scores, where `rows` lacks them"),
                ]
            },
            outputs: const { &[output("rows", "the rows kept, best first within a group, and their `rank` from 0")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        binding.column("rows", &settings.group, "text", |kind| *kind == ColumnType::Text);
        let port = if binding.has("scores") { "scores" } else { "rows" };
        let sortable =
            |kind: &ColumnType| matches!(kind, ColumnType::Scores | ColumnType::Number | ColumnType::Integer);
        if binding.column(port, &settings.by, "scores, a number or an integer", sortable).is_some() {
            binding.reads(port, Need::column(&settings.by));
        }
        if settings.keep == 0 {
            binding.problem(Problem::setting("keep", "expected at least 1"));
        }
        binding.gives("rows", [Column::new("rank", ColumnType::Integer)]);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Stream(Box::new(Reranker(settings))))
    }
}

struct Reranker(Settings);

impl Stream for Reranker {
    fn apply(&self, _: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let Settings { group, by, keep, ascending } = &self.0;
        let rows = crate::port(inputs, "rows")?;
        let values = match inputs.get("scores") {
            Some(scores) => aligned(rows, scores, by)?,
            None => values(rows, by)?,
        };
        let mut groups: Vec<(&str, Vec<u32>)> = Vec::new();
        let mut places = BTreeMap::new();
        for (i, name) in (0u32..).zip(rows.text(group)?.iter().flatten()) {
            let place = *places.entry(name).or_insert(groups.len());
            if place == groups.len() {
                groups.push((name, Vec::new()));
            }
            groups[place].1.push(i);
        }
        let (mut take, mut ranks) = (Vec::new(), Vec::new());
        for (_, mut members) in groups {
            let value = |i: u32| values[i as usize];
            members.sort_by(
                |&a, &b| {
                    if *ascending { value(a).total_cmp(&value(b)) } else { value(b).total_cmp(&value(a)) }
                },
            );
            members.truncate(*keep);
            ranks.extend(0..members.len() as i64);
            take.extend(members);
        }
        let produced =
            Produced { take: Some(take), ..Produced::default() }.column("rank", ColumnData::Integers(ranks))?;
        Ok(BTreeMap::from([("rows".to_owned(), produced)]))
    }
}

/// What to order by, a value a row.
fn values(rows: &Batch, column: &str) -> Result<Vec<f64>, StageError> {
    Ok(match rows.kind(column) {
        Some(ColumnType::Scores) => {
            let (scores, width) = rows.vectors(column)?;
            let largest = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.chunks_exact(width.max(1)).map(|row| f64::from(largest(row))).collect()
        }
        Some(ColumnType::Number) => rows.numbers(column)?.to_vec(),
        _ => rows.integers(column)?.iter().map(|&x| x as f64).collect(),
    })
}

/// The same from another port, by id.
fn aligned(rows: &Batch, scores: &Batch, column: &str) -> Result<Vec<f64>, StageError> {
    let by_id: BTreeMap<_, _> = scores.ids()?.iter().flatten().zip(values(scores, column)?).collect();
    rows.ids()?
        .iter()
        .flatten()
        .map(|id| by_id.get(id).copied().ok_or_else(|| StageError::new(format!("row `{id}` has no `{column}`"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::apply;

    fn children() -> Batch {
        Batch::new(["a/0", "a/1", "b/0", "b/1", "b/2"].map(str::to_owned).to_vec())
            .with(PARENT, ColumnData::Text(["a", "a", "b", "b", "b"].map(str::to_owned).to_vec()))
            .unwrap()
    }

    fn scored() -> Batch {
        children().with("scores", ColumnData::Scores(vec![1.0, 2.0, 5.0, 3.0, 5.0], 1)).unwrap()
    }

    fn ids(batch: &Batch) -> Vec<&str> {
        batch.ids().unwrap().iter().flatten().collect()
    }

    #[test]
    fn the_best_of_every_group_stay_and_equals_keep_their_order() {
        let out = apply("rerank", json!({"keep": 2}), &[("rows", scored())]);
        assert_eq!(ids(&out["rows"]), ["a/1", "a/0", "b/0", "b/2"]);
        assert_eq!(out["rows"].integers("rank").unwrap(), [0, 1, 0, 1]);
        let out = apply("rerank", json!({"ascending": true}), &[("rows", scored())]);
        assert_eq!(ids(&out["rows"]), ["a/0", "b/1"]);
    }

    #[test]
    fn scores_can_come_from_another_port() {
        let scores = scored().take(&[4, 3, 2, 1, 0]).unwrap();
        let out = apply("rerank", json!({}), &[("rows", children()), ("scores", scores)]);
        assert_eq!(ids(&out["rows"]), ["a/1", "b/0"]);
    }
}
