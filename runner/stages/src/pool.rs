//! `pool`: one embedding a class from the embeddings of its prompts.

use std::collections::BTreeMap;

use runner_contract::{
    Access, Accumulator, Batch, Column, ColumnData, ColumnType, Context, Digest, Fold, Input, Inputs, KindInfo,
    Outcome, PortKind, Shape, Stage, StageError,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    codec::{Reader, Writer},
    definition::{input, output},
    vectors::normalize,
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What rows are pooled together.
    #[serde(default)]
    by: By,
    /// How.
    #[serde(default)]
    method: Method,
    /// The embedding column.
    #[serde(default = "embedding")]
    column: String,
}

fn embedding() -> String {
    "embedding".into()
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum By {
    /// Rows of equal `label`.
    #[default]
    Class,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// Normalise each embedding, take the mean, normalise again: CLIP's prompt ensemble.
    #[default]
    NormalizedMean,
}

struct Pool;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Pool)
}

impl Definition for Pool {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "pool",
            version: 1,
            summary: "one embedding a class: the mean over its prompts",
            shape: Shape::Fold,
            inputs: const { &[input("rows", PortKind::Rows, "rows with `label` and `embedding`")] },
            outputs: const { &[output("rows", "one row a class: `label`, `name`, `embedding`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        binding.column("rows", "label", "label", |kind| *kind == ColumnType::Label);
        let named = binding.schema("rows").is_some_and(|schema| schema.get("name").is_some());
        if named {
            binding.column("rows", "name", "text", |kind| *kind == ColumnType::Text);
        }
        let embedding = binding.column("rows", &settings.column, "embedding", is_embedding);
        let columns = [Column::new("label", ColumnType::Label), Column::new("name", ColumnType::Text)];
        let pooled = embedding.map(|column| Column::new("embedding", column.kind.clone()));
        binding.gives("rows", columns.into_iter().chain(pooled));
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let named = matches!(inputs.get("rows"), Some(Input::Rows(schema)) if schema.get("name").is_some());
        Ok(Stage::Fold(Box::new(Classes { column: settings.column, named })))
    }
}

/// Whether a column holds embeddings, of whatever space.
pub(crate) fn is_embedding(kind: &ColumnType) -> bool {
    matches!(kind, ColumnType::Embedding { .. })
}

struct Classes {
    column: String,
    named: bool,
}

impl Fold for Classes {
    fn start(&self, _: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        Ok(Box::new(Pooling { column: self.column.clone(), named: self.named, sums: Sums::default() }))
    }

    fn merge(&self, _: &Context, partials: Vec<Vec<u8>>, _: &dyn Access) -> Result<Outcome, StageError> {
        let mut all = Sums::default();
        for partial in &partials {
            all.merge(Sums::read(partial)?)?;
        }
        let rows = BTreeMap::from([("rows".to_owned(), all.into_batch()?)]);
        Ok(Outcome { rows, ..Outcome::default() })
    }
}

struct Pooling {
    column: String,
    named: bool,
    sums: Sums,
}

impl Accumulator for Pooling {
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError> {
        let rows = crate::port(inputs, "rows")?;
        if rows.is_empty() {
            return Ok(());
        }
        let Some(ColumnType::Embedding { space, .. }) = rows.kind(&self.column) else {
            return Err(StageError::new(format!("column `{}` does not say whose embeddings it holds", self.column)));
        };
        let (values, dim) = rows.vectors(&self.column)?;
        let scale = rows.metadata(&self.column, crate::LOGIT_SCALE);
        self.sums.fix_space(Space { space, dim, logit_scale: scale })?;
        let names = if self.named { Some(rows.text("name")?) } else { None };
        for (i, (&label, vector)) in rows.integers("label")?.iter().zip(values.chunks_exact(dim.max(1))).enumerate() {
            let name = names.map_or_else(|| label.to_string(), |names| names.value(i).to_owned());
            let mut vector = vector.to_vec();
            normalize(&mut vector);
            self.sums.add(label, name, vector.into_iter().map(f64::from));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError> {
        Ok(self.sums.write())
    }
}

/// Where the embeddings live.
#[derive(Clone, Debug, PartialEq)]
struct Space {
    space: Digest,
    dim: usize,
    logit_scale: Option<String>,
}

/// Sums of normalised embeddings by label, in f64. The mean's direction is the sum's, so no count is kept.
#[derive(Default)]
struct Sums {
    space: Option<Space>,
    classes: BTreeMap<i64, (String, Vec<f64>)>,
}

impl Sums {
    fn fix_space(&mut self, space: Space) -> Result<(), StageError> {
        match &self.space {
            Some(old) if old.space != space.space || old.dim != space.dim => Err(StageError::new(format!(
                "embeddings of two models in one column: {} ({}) and {} ({})",
                old.space.short(),
                old.dim,
                space.space.short(),
                space.dim
            ))),
            Some(_) => Ok(()),
            None => {
                self.space = Some(space);
                Ok(())
            }
        }
    }

    fn add(&mut self, label: i64, name: String, vector: impl ExactSizeIterator<Item = f64>) {
        let (_, sum) = self.classes.entry(label).or_insert_with(|| (name, vec![0.0; vector.len()]));
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
    }

    fn merge(&mut self, other: Self) -> Result<(), StageError> {
        if let Some(space) = other.space {
            self.fix_space(space)?;
        }
        for (label, (name, sum)) in other.classes {
            self.add(label, name, sum.into_iter());
        }
        Ok(())
    }

    fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new(1);
        let Some(space) = &self.space else {
            writer.text("");
            return writer.finish();
        };
        writer.text(&space.space.to_string());
        writer.u64(space.dim as u64);
        writer.text(space.logit_scale.as_deref().unwrap_or_default());
        writer.u64(self.classes.len() as u64);
        for (label, (name, sum)) in &self.classes {
            writer.i64(*label);
            writer.text(name);
            sum.iter().for_each(|&x| writer.f64(x));
        }
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<Self, StageError> {
        let mut reader = Reader::new(bytes, 1, "a partial of `pool`")?;
        let space = reader.text()?;
        if space.is_empty() {
            return Ok(Self::default());
        }
        let space = space.parse().map_err(|error| StageError::because("a partial of `pool` is damaged", error))?;
        let dim = reader.u64()? as usize;
        let logit_scale = Some(reader.text()?).filter(|scale| !scale.is_empty());
        let mut classes = BTreeMap::new();
        for _ in 0..reader.count()? {
            let (label, name) = (reader.i64()?, reader.text()?);
            let sum: Result<Vec<_>, _> = (0..dim).map(|_| reader.f64()).collect();
            classes.insert(label, (name, sum?));
        }
        reader.finish()?;
        Ok(Self { space: Some(Space { space, dim, logit_scale }), classes })
    }

    fn into_batch(self) -> Result<Batch, StageError> {
        let Some(Space { space, dim, logit_scale }) = self.space else {
            return Err(StageError::new("no embeddings to pool: the input has no rows"));
        };
        let labels: Vec<_> = self.classes.keys().copied().collect();
        let mut values = Vec::with_capacity(labels.len() * dim);
        let mut names = Vec::with_capacity(labels.len());
        for (name, sum) in self.classes.into_values() {
            let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
            let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
            values.extend(sum.iter().map(|x| (x * scale) as f32));
            names.push(name);
        }
        let metadata = logit_scale.map(|scale| (crate::LOGIT_SCALE.to_owned(), scale));
        Ok(Batch::new(labels.iter().map(i64::to_string).collect())
            .with("label", ColumnData::Labels(labels))?
            .with("name", ColumnData::Text(names))?
            .with_metadata("embedding", ColumnData::Embeddings(values, dim, space), metadata.into_iter().collect())?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::fold;

    fn prompts(labels: &[i64], values: &[f32], model: &[u8]) -> Batch {
        let ids = labels.iter().enumerate().map(|(i, label)| format!("{label}/{i}")).collect();
        let names = labels.iter().map(|label| format!("class {label}")).collect();
        let metadata = BTreeMap::from([(crate::LOGIT_SCALE.to_owned(), "100".to_owned())]);
        Batch::new(ids)
            .with("label", ColumnData::Labels(labels.to_vec()))
            .unwrap()
            .with("name", ColumnData::Text(names))
            .unwrap()
            .with_metadata("embedding", ColumnData::Embeddings(values.to_vec(), 2, Digest::of(model)), metadata)
            .unwrap()
    }

    #[test]
    fn a_class_is_the_normalised_mean_of_normalised_prompts() {
        // (10, 0) and (0, 1) have the same weight once normalised.
        let shards = [vec![prompts(&[1, 0], &[10.0, 0.0, 3.0, 4.0], b"m")], vec![prompts(&[1], &[0.0, 1.0], b"m")]];
        let outcome = fold("pool", json!({}), &shards).unwrap();
        let rows = &outcome.rows["rows"];
        assert_eq!(rows.integers("label").unwrap(), [0, 1]);
        assert_eq!(rows.text("name").unwrap().value(1), "class 1");
        assert_eq!(rows.metadata("embedding", crate::LOGIT_SCALE).unwrap(), "100");
        let half = 0.5f32.sqrt();
        let (values, _) = rows.vectors("embedding").unwrap();
        let expected = [0.6, 0.8, half, half];
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
    }

    #[test]
    fn embeddings_of_two_models_are_refused() {
        let shards = [vec![prompts(&[0], &[1.0, 0.0], b"a")], vec![prompts(&[0], &[1.0, 0.0], b"b")]];
        let error = fold("pool", json!({}), &shards).err().unwrap();
        assert!(error.to_string().starts_with("embeddings of two models in one column"), "{error}");
    }
}
