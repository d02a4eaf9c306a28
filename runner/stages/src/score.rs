//! `score`: every query against every candidate.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Context, ID, Input, Inputs, KindInfo, PortKind, Prepared, Problem, Produced,
    Shape, Stage, StageError, Stream,
};
use runner_nn::Workers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, LOGIT_SCALE, Services,
    definition::{input, output},
    pool::is_embedding,
    vectors::{best, dot, normalize, softmax},
};

/// Metadata of a `scores` column: the candidates' names, a JSON array.
pub(crate) const NAMES: &str = "names";
/// Metadata of a `scores` column: the candidates' labels, a JSON array.
pub(crate) const LABELS: &str = "labels";
/// Metadata of a `scores` column: what a score is. Left out, or [`PROBABILITIES`].
pub(crate) const UNIT: &str = "unit";
/// Scores that are probabilities and no logits.
pub(crate) const PROBABILITIES: &str = "probabilities";

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Also give `probabilities`: the softmax of the scores over the candidates.
    #[serde(default)]
    probabilities: bool,
    /// What the cosines are multiplied by. Left out: the model's own `logit_scale`.
    #[serde(default)]
    logit_scale: Option<f64>,
    /// Score each query against one candidate only: the one that it belongs to. Then there is one score a row and no
    /// prediction.
    #[serde(default)]
    pair: Option<Pair>,
}

/// Which candidate a query belongs to: the one whose value is the query's.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    /// A text column of the queries, for instance `parent`, or `id`.
    query: String,
    /// A text column of the candidates, or `id`.
    candidate: String,
}

struct Score;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Score)
}

impl Definition for Score {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "score",
            version: 3,
            summary: "every query against every candidate: logit scale times cosine",
            shape: Shape::Map,
            inputs: const {
                &[
                    input("queries", PortKind::Rows, "rows with `embedding`"),
                    input(
                        "candidates",
                        PortKind::Whole,
                        "rows with `embedding`, and `name` and `label` where they have them",
                    ),
                ]
            },
            outputs: const { &[output("rows", "`scores`, one a candidate, and `prediction`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let queries = binding.column("queries", "embedding", "embedding", is_embedding);
        let candidates = binding.column("candidates", "embedding", "embedding", is_embedding);
        if let (Some(queries), Some(candidates)) = (queries, candidates)
            && queries.kind != candidates.kind
        {
            let message = format!(
                "the candidates' embeddings ({}) are of another model than the queries' ({})",
                describe(&candidates.kind),
                describe(&queries.kind)
            );
            binding.problem(Problem::input("candidates", message).hint("give both `encode` stages the same `model`"));
        }
        let optional = [("name", ColumnType::Text), ("label", ColumnType::Label)];
        for (name, kind) in optional {
            if binding.schema("candidates").is_some_and(|schema| schema.get(name).is_some()) {
                binding.column("candidates", name, kind.name(), |found| *found == kind);
            }
        }
        if settings.logit_scale.is_some_and(|scale| !scale.is_finite() || scale <= 0.0) {
            binding.problem(Problem::setting("logit_scale", "expected a number above 0"));
        }
        let mut columns = vec![Column::new("scores", ColumnType::Scores)];
        match &settings.pair {
            None => columns.push(Column::new("prediction", ColumnType::Label)),
            Some(pair) => {
                for (port, name) in [("queries", &pair.query), ("candidates", &pair.candidate)] {
                    if name != ID {
                        binding.column(port, name, "text", |kind| *kind == ColumnType::Text);
                    }
                }
                if settings.probabilities {
                    let message = "one candidate a query has no probabilities";
                    binding.problem(Problem::setting("probabilities", message).hint("remove it, or `pair`"));
                }
            }
        }
        if settings.probabilities {
            columns.push(Column::new("probabilities", ColumnType::Scores));
        }
        binding.gives("rows", columns);
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Stream(Box::new(Scorer { settings, candidates: Mutex::default() })))
    }
}

fn describe(kind: &ColumnType) -> String {
    match kind {
        ColumnType::Embedding { dim, space } => format!("{dim} components, model {}", space.short()),
        other => other.to_string(),
    }
}

struct Scorer {
    settings: Settings,
    /// The candidates as they were read last, and from which rows: all chunks have the same.
    candidates: Mutex<Option<(Batch, Arc<Candidates>)>>,
}

/// The candidates, normalised, with what is written beside the scores.
struct Candidates {
    /// `[candidates, dim]`, each of length 1.
    vectors: Vec<f32>,
    labels: Vec<i64>,
    names: Vec<String>,
}

impl Candidates {
    fn read(rows: &Batch) -> Result<Self, StageError> {
        let (values, dim) = rows.vectors("embedding")?;
        let vectors = normalized(values, dim);
        let labels = match rows.has("label") {
            true => rows.integers("label")?.to_vec(),
            false => (0..rows.len() as i64).collect(),
        };
        let names = match rows.has("name") {
            true => rows.text("name")?.iter().flatten().map(str::to_owned).collect(),
            false => rows.ids()?.iter().flatten().map(str::to_owned).collect(),
        };
        Ok(Self { vectors, labels, names })
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (NAMES.to_owned(), Value::from(self.names.clone()).to_string()),
            (LABELS.to_owned(), Value::from(self.labels.clone()).to_string()),
        ])
    }
}

impl Stream for Scorer {
    fn apply(&self, context: &Context, inputs: &Inputs, _: Prepared) -> Result<BTreeMap<String, Produced>, StageError> {
        let queries = crate::port(inputs, "queries")?;
        let rows = context.whole("candidates")?;
        let (query_kind, candidate_kind) = (queries.kind("embedding"), rows.kind("embedding"));
        if let (Some(query), Some(candidate)) = (&query_kind, &candidate_kind)
            && query != candidate
        {
            return Err(StageError::new(format!(
                "queries ({}) and candidates ({}) are embeddings of different models",
                describe(query),
                describe(candidate)
            )));
        }
        if rows.is_empty() {
            return Err(StageError::new("there are no candidates to score against"));
        }
        let scale = self.scale(queries, rows)?;
        let candidates = self.candidates(rows)?;
        let produced = match &self.settings.pair {
            None => self.all(context, queries, &candidates, scale)?,
            Some(pair) => pairs(pair, queries, rows, &candidates, scale)?,
        };
        Ok(BTreeMap::from([("rows".to_owned(), produced)]))
    }
}

const NOT_FINITE: &str = "its embedding is not finite";

/// Each query against the candidate that it belongs to.
fn pairs(
    pair: &Pair,
    queries: &Batch,
    rows: &Batch,
    candidates: &Candidates,
    scale: f32,
) -> Result<Produced, StageError> {
    let (values, dim) = queries.vectors("embedding")?;
    let places: BTreeMap<_, _> = rows.text(&pair.candidate)?.iter().flatten().zip(0usize..).collect();
    let (mut take, mut scores, mut output) = (Vec::new(), Vec::new(), Produced::default());
    let (ids, wanted) = (queries.ids()?, queries.text(&pair.query)?);
    for (i, query) in values.chunks_exact(dim.max(1)).enumerate() {
        let mut bad = |reason: String| output.bad.push((ids.value(i).to_owned(), reason));
        let Some(place) = places.get(wanted.value(i)) else {
            bad(format!("no candidate has the {} `{}`", pair.candidate, wanted.value(i)));
            continue;
        };
        let mut query = query.to_vec();
        normalize(&mut query);
        let score = scale * dot(&query, &candidates.vectors[place * dim..][..dim]);
        if !score.is_finite() {
            bad(NOT_FINITE.to_owned());
            continue;
        }
        scores.push(score);
        take.push(i as u32);
    }
    output.take = (take.len() < queries.len()).then_some(take);
    let metadata = BTreeMap::from([(LOGIT_SCALE.to_owned(), scale.to_string())]);
    Ok(output.column_with("scores", ColumnData::Scores(scores, 1), metadata)?)
}

/// Vectors `[n, dim]`, each of length 1.
fn normalized(values: &[f32], dim: usize) -> Vec<f32> {
    let mut vectors = values.to_vec();
    vectors.chunks_exact_mut(dim.max(1)).for_each(normalize);
    vectors
}

impl Scorer {
    fn candidates(&self, rows: &Batch) -> Result<Arc<Candidates>, StageError> {
        let mut last = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, candidates)) = last.as_ref().filter(|(old, _)| same(old, rows)) {
            return Ok(candidates.clone());
        }
        let candidates = Arc::new(Candidates::read(rows)?);
        *last = Some((rows.clone(), candidates.clone()));
        Ok(candidates)
    }

    /// Each query against all candidates.
    fn all(
        &self,
        context: &Context,
        queries: &Batch,
        candidates: &Candidates,
        scale: f32,
    ) -> Result<Produced, StageError> {
        let (values, dim) = queries.vectors("embedding")?;
        let width = candidates.labels.len();
        let mut scores = vec![0.0; queries.len() * width];
        let workers = Workers::new(context.threads).map_err(|error| StageError::new(error.to_string()))?;
        workers.dot_products(&normalized(values, dim), &candidates.vectors, dim, &mut scores);
        scores.iter_mut().for_each(|score| *score *= scale);
        let mut output = Produced::default();
        let (mut take, mut predictions) = (Vec::with_capacity(queries.len()), Vec::with_capacity(queries.len()));
        let ids = queries.ids()?;
        for i in 0..queries.len() {
            let row = &scores[i * width..][..width];
            match best(row).filter(|_| row.iter().all(|score| score.is_finite())) {
                Some(winner) => {
                    predictions.push(candidates.labels[winner]);
                    scores.copy_within(i * width..(i + 1) * width, take.len() * width);
                    take.push(i as u32);
                }
                None => output.bad.push((ids.value(i).to_owned(), NOT_FINITE.into())),
            }
        }
        scores.truncate(take.len() * width);
        let probabilities = self.settings.probabilities.then(|| {
            let mut probabilities = scores.clone();
            probabilities.chunks_exact_mut(width).for_each(softmax);
            probabilities
        });
        output.take = (take.len() < queries.len()).then_some(take);
        let mut metadata = candidates.metadata();
        let mut output = output
            .column_with("scores", ColumnData::Scores(scores, width), metadata.clone())?
            .column("prediction", ColumnData::Labels(predictions))?;
        if let Some(probabilities) = probabilities {
            metadata.insert(UNIT.to_owned(), PROBABILITIES.to_owned());
            output = output.column_with("probabilities", ColumnData::Scores(probabilities, width), metadata)?;
        }
        Ok(output)
    }

    fn scale(&self, queries: &Batch, candidates: &Batch) -> Result<f32, StageError> {
        if let Some(scale) = self.settings.logit_scale {
            return Ok(scale as f32);
        }
        let written = queries
            .metadata("embedding", LOGIT_SCALE)
            .or_else(|| candidates.metadata("embedding", LOGIT_SCALE))
            .ok_or_else(|| {
                StageError::new("the embeddings do not say their model's logit scale; set `logit_scale` under `with:`")
            })?;
        written.parse().map_err(|error| StageError::because(format!("logit scale `{written}`"), error))
    }
}

/// Whether two batches share their columns, so that what was made of one is that of the other.
fn same(one: &Batch, other: &Batch) -> bool {
    let (one, other) = (one.records().columns(), other.records().columns());
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| Arc::ptr_eq(a, b))
}

#[cfg(test)]
mod tests {
    use runner_contract::Digest;
    use serde_json::json;

    use super::*;
    use crate::testing::{problems, rows, try_apply};

    fn vectors(values: &[f32], model: &[u8], scale: &str) -> Batch {
        let n = values.len() / 2;
        let metadata = BTreeMap::from([(LOGIT_SCALE.to_owned(), scale.to_owned())]);
        let data = ColumnData::Embeddings(values.to_vec(), 2, Digest::of(model));
        Batch::new((0..n).map(|i| format!("r{i}")).collect()).with_metadata("embedding", data, metadata).unwrap()
    }

    fn classes(model: &[u8]) -> Batch {
        vectors(&[2.0, 0.0, 0.0, 3.0], model, "10")
            .with("label", ColumnData::Labels(vec![5, 7]))
            .unwrap()
            .with("name", ColumnData::Text(vec!["five".into(), "seven".into()]))
            .unwrap()
    }

    #[test]
    fn scores_are_scaled_cosines_and_predict_the_label() {
        let queries = vectors(&[3.0, 4.0, 1.0, 0.0], b"m", "10");
        let settings = json!({"probabilities": true});
        let out =
            &try_apply("score", settings, &[("queries", queries)], &[("candidates", classes(b"m"))]).unwrap()["rows"];
        let (scores, width) = out.vectors("scores").unwrap();
        assert_eq!(width, 2);
        assert!(scores.iter().zip([6.0, 8.0, 10.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{scores:?}");
        assert_eq!(out.integers("prediction").unwrap(), [7, 5]);
        assert_eq!(out.metadata("scores", NAMES).unwrap(), r#"["five","seven"]"#);
        assert_eq!(out.metadata("scores", LABELS).unwrap(), "[5,7]");
        let (probabilities, _) = out.vectors("probabilities").unwrap();
        assert!((probabilities[1] - 1.0 / (1.0 + (-2.0f32).exp())).abs() < 1e-6);
    }

    #[test]
    fn embeddings_of_another_model_are_refused_before_and_at_run_time() {
        let (queries, candidates) = (vectors(&[1.0, 0.0], b"a", "10"), classes(b"b"));
        let found = problems("score", json!({}), &rows(&[("queries", &queries), ("candidates", &candidates)]));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("inputs.candidates: the candidates' embeddings"), "{found:?}");

        let Stage::Stream(stream) =
            crate::testing::open("score", json!({}), &[("queries", queries.clone()), ("candidates", classes(b"a"))])
        else {
            panic!("not a stream")
        };
        let context = crate::testing::context(&[("candidates", candidates)]);
        let result = stream.apply(&context, &BTreeMap::from([("queries".into(), queries)]), Box::new(()));
        assert!(result.err().unwrap().to_string().contains("different models"));
    }

    #[test]
    fn a_pair_is_scored_alone_and_a_query_without_its_candidate_is_bad() {
        let queries = vectors(&[3.0, 4.0, 0.0, 1.0, 1.0, 0.0], b"m", "10")
            .with("parent", ColumnData::Text(["r1", "r0", "r9"].map(str::to_owned).to_vec()))
            .unwrap();
        let settings = json!({"pair": {"query": "parent", "candidate": "id"}});
        let out = try_apply("score", settings, &[("queries", queries)], &[("candidates", classes(b"m"))]).unwrap();
        let (scores, width) = out["rows"].vectors("scores").unwrap();
        assert_eq!((out["rows"].len(), width), (2, 1));
        assert!((scores[0] - 8.0).abs() < 1e-5 && scores[1].abs() < 1e-5, "{scores:?}");
    }

    #[test]
    fn a_row_that_is_not_finite_is_bad_and_the_others_stay() {
        let queries = vectors(&[f32::NAN, 0.0, 1.0, 0.0], b"m", "10");
        let out = try_apply("score", json!({}), &[("queries", queries)], &[("candidates", classes(b"m"))]).unwrap();
        assert_eq!(out["rows"].ids().unwrap().value(0), "r1");
        assert_eq!(out["rows"].integers("prediction").unwrap(), [5]);
    }
}
