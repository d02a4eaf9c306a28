//! `retrieval`: pictures found by their captions, and captions by their pictures.

use std::collections::{BTreeMap, HashMap};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, File, ID, Input, Job, JobContext, KindInfo, Need, Outcome, PortKind,
    Problem, Rows, Shape, Stage, StageError,
};
use runner_report::{EVALUATION, Estimate, Evaluation, Finding, Retrieval as Found};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    bootstrap::{Bootstrap, Draws},
    compare::{Nearest, Set, compare},
    definition::{input, output},
    metrics::{MOST_RESAMPLES, metrics, resamples},
    pictures::grouped,
    pool::is_embedding,
};

/// The largest `k`.
const MOST: usize = 1000;

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Among how many of the best a match counts.
    #[serde(default = "ks")]
    k: Vec<usize>,
    /// The column of the captions that names their picture by its id: `parent` where `explode` made rows of a picture's captions,
    /// `id` where every picture has one caption in its own row.
    #[serde(default = "parent")]
    image: String,
    /// How often pictures, each with its captions, are drawn anew for the bootstrap's 95 % intervals; 0 for none.
    #[serde(default = "resamples")]
    resamples: usize,
    /// Another seed draws others.
    #[serde(default)]
    seed: u64,
}

fn ks() -> Vec<usize> {
    vec![1, 5, 10]
}

fn parent() -> String {
    runner_contract::PARENT.into()
}

struct Retrieval;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Retrieval)
}

impl Definition for Retrieval {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "retrieval",
            version: 2,
            summary: "recall of pictures by their captions and of captions by their pictures, with several captions a picture",
            shape: Shape::Job,
            inputs: const {
                &[
                    input("images", PortKind::Rows, "pictures with `embedding`"),
                    input("captions", PortKind::Rows, "captions with `embedding` and the id of their picture"),
                ]
            },
            outputs: const { &[output("rows", "one row a `k`: `k`, `image_recall`, `text_recall`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let images = binding.column("images", "embedding", "embedding", is_embedding);
        let captions = binding.column("captions", "embedding", "embedding", is_embedding);
        if let (Some(images), Some(captions)) = (images, captions)
            && images.kind != captions.kind
        {
            let problem = Problem::input("captions", "the captions' embeddings are of another model than the images'");
            binding.problem(problem.hint("give both `encode` stages the same `model`"));
        }
        if settings.image != ID {
            binding.column("captions", &settings.image, "text", |kind| *kind == ColumnType::Text);
        }
        if settings.k.is_empty() || settings.k.iter().any(|&k| k == 0 || k > MOST) {
            binding.problem(Problem::setting("k", format!("expected numbers from 1 to {MOST}")));
        }
        if settings.resamples > MOST_RESAMPLES {
            let message = format!("{} resamples, expected at most {MOST_RESAMPLES}", settings.resamples);
            binding.problem(Problem::setting("resamples", message));
        }
        binding.gives(
            "rows",
            [
                Column::new("k", ColumnType::Integer),
                Column::new("image_recall", ColumnType::Number),
                Column::new("text_recall", ColumnType::Number),
            ],
        );
    }

    fn open(&self, mut settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        settings.k.sort_unstable();
        settings.k.dedup();
        Ok(Stage::Job(Box::new(Search(settings))))
    }
}

struct Search(Settings);

/// A picture with its captions.
#[derive(Clone, Debug, Default)]
struct Picture {
    /// Its captions.
    captions: u32,
    /// For each `k`, its captions that find it.
    finding: Vec<u32>,
    /// The place of the first of its own captions among the captions nearest to it.
    found: Option<usize>,
}

/// Which picture each caption belongs to, where that is there.
fn owners(images: &dyn Rows, captions: &dyn Rows, column: &str) -> Result<(usize, Vec<Option<usize>>), StageError> {
    let mut places = HashMap::new();
    for rows in images.scan(&[])? {
        for id in rows?.ids()?.iter().flatten() {
            places.insert(id.to_owned(), places.len());
        }
    }
    let mut owners = Vec::new();
    let needs = if column == ID { Vec::new() } else { vec![Need::column(column)] };
    for rows in captions.scan(&needs)? {
        owners.extend(rows?.text(column)?.iter().map(|id| places.get(id?).copied()));
    }
    Ok((places.len(), owners))
}

impl Job for Search {
    fn run(&self, context: &JobContext<'_>) -> Result<Outcome, StageError> {
        let Settings { k, image, .. } = &self.0;
        let (images, captions) = (context.access.rows("images")?, context.access.rows("captions")?);
        let (count, owners) = owners(images.as_ref(), captions.as_ref(), image)?;
        let base = &context.base;
        let lost = owners.iter().filter(|owner| owner.is_none()).count();
        if lost > 0 {
            base.warn(format!("{} captions are left out: their pictures are not there", grouped(lost as u64)));
        }
        let mut pictures = vec![Picture { finding: vec![0; k.len()], ..Picture::default() }; count];
        owners.iter().flatten().for_each(|&owner| pictures[owner].captions += 1);
        let alone = pictures.iter().filter(|picture| picture.captions == 0).count();
        if alone > 0 {
            base.warn(format!("{} pictures have no caption: nothing can find them", grouped(alone as u64)));
        }
        let most = k.last().copied().unwrap_or(1);
        let image_set = Set { rows: images.as_ref(), column: "embedding" };
        let caption_set = Set { rows: captions.as_ref(), column: "embedding" };
        let start = |_, n| vec![Nearest::default(); n];
        let push = |state: &mut Vec<Nearest>, tile: &crate::compare::Tile<'_>, wanted: &dyn Fn(usize) -> bool| {
            for ((_, cosines), nearest) in tile.rows().zip(state) {
                nearest.push(most, tile.column, cosines, wanted);
            }
        };
        context.progress.step(0, 2, "pictures by captions");
        let nearest = compare(base, &caption_set, &image_set, start, |state, tile| push(state, tile, &|_| true))?;
        for (nearest, owner) in nearest.into_iter().flatten().zip(&owners) {
            let Some(owner) = *owner else { continue };
            let Some(place) = nearest.found.iter().position(|(_, image)| *image == owner) else { continue };
            let finding = pictures[owner].finding.iter_mut().zip(k);
            finding.for_each(|(finding, &k)| *finding += u32::from(place < k));
        }
        context.progress.step(1, 2, "captions by pictures");
        let there = |caption: usize| owners.get(caption).is_some_and(Option::is_some);
        let nearest = compare(base, &image_set, &caption_set, start, |state, tile| push(state, tile, &there))?;
        for (place, nearest) in nearest.into_iter().flatten().enumerate() {
            let own = |&(_, caption): &(f32, usize)| owners.get(caption).copied().flatten() == Some(place);
            pictures[place].found = nearest.found.iter().position(own);
        }
        pictures.retain(|picture| picture.captions > 0);
        context.progress.step(2, 2, "");
        self.outcome(&pictures, base.threads)
    }
}

impl Search {
    /// For each `k`: the share of captions whose picture is found, then the share of pictures one of whose captions is found.
    fn recalls<'a>(&self, pictures: impl Iterator<Item = &'a Picture>) -> Vec<f64> {
        let k = &self.0.k;
        let (mut n, mut captions) = (0u64, 0u64);
        let mut hits = vec![0u64; 2 * k.len()];
        for picture in pictures {
            n += 1;
            captions += u64::from(picture.captions);
            let (by_caption, by_picture) = hits.split_at_mut(k.len());
            by_caption.iter_mut().zip(&picture.finding).for_each(|(hits, &more)| *hits += u64::from(more));
            let found = |k: usize| picture.found.is_some_and(|place| place < k);
            by_picture.iter_mut().zip(k).for_each(|(hits, &k)| *hits += u64::from(found(k)));
        }
        let total = |i: usize| if i < k.len() { captions } else { n };
        hits.into_iter().enumerate().map(|(i, hits)| hits as f64 / total(i) as f64).collect()
    }

    fn outcome(&self, pictures: &[Picture], threads: usize) -> Result<Outcome, StageError> {
        let Settings { k, resamples, seed, .. } = &self.0;
        if pictures.is_empty() {
            return Err(StageError::new(
                "no caption names a picture that is there; set `image` under `with:` to the column that holds its id",
            ));
        }
        let recalls = self.recalls(pictures.iter());
        let bootstrap = Bootstrap { resamples: *resamples, seed: *seed };
        let draw = |draws: Draws| self.recalls(draws.filter_map(|i| pictures.get(i)));
        let intervals = bootstrap.intervals(pictures.len(), threads, draw)?;
        let captions: u64 = pictures.iter().map(|picture| u64::from(picture.captions)).sum();
        let queries = [("image_retrieval_recall", captions), ("text_retrieval_recall", pictures.len() as u64)];
        let names = queries.iter().flat_map(|(name, n)| k.iter().map(move |k| (format!("{name}@{k}"), *n)));
        let estimates: Vec<_> = names
            .zip(&recalls)
            .enumerate()
            .map(|(i, ((name, n), &value))| {
                let interval = intervals.as_ref().and_then(|intervals| intervals.get(i).copied());
                Estimate { name, value, interval, n }
            })
            .collect();
        let mut metrics = metrics(&estimates);
        metrics.insert("images".to_owned(), pictures.len() as f64);
        metrics.insert("captions".to_owned(), captions as f64);
        let (image_recall, text_recall) = recalls.split_at(k.len());
        let rows = Batch::new(k.iter().map(usize::to_string).collect())
            .with("k", ColumnData::Integers(k.iter().map(|&k| k as i64).collect()))?
            .with("image_recall", ColumnData::Numbers(image_recall.to_vec()))?
            .with("text_recall", ColumnData::Numbers(text_recall.to_vec()))?;
        let finding = Finding::Retrieval(Found {
            images: pictures.len() as u64,
            captions,
            k: k.clone(),
            image_recall: image_recall.to_vec(),
            text_recall: text_recall.to_vec(),
        });
        let file = File { name: EVALUATION.to_owned(), bytes: Evaluation::new(estimates, finding).write() };
        let rows = BTreeMap::from([("rows".to_owned(), rows)]);
        Ok(Outcome { rows, metrics, files: vec![file], ..Outcome::default() })
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::Digest;
    use serde_json::json;

    use super::*;
    use crate::testing::{job, problems, rows};

    fn vectors(ids: &[&str], values: &[[f32; 2]]) -> Batch {
        let data = ColumnData::Embeddings(values.concat(), 2, Digest::of(b"m"));
        Batch::new(ids.iter().map(|id| (*id).to_owned()).collect()).with("embedding", data).unwrap()
    }

    fn captions() -> Batch {
        let parents = ["a", "a", "b", "lost"].map(str::to_owned).to_vec();
        // Nearest: a, b, b; the last belongs to no picture and is nearest to both.
        vectors(&["a/0", "a/1", "b/0", "x"], &[[1.0, 0.1], [0.1, 1.0], [0.2, 1.0], [1.0, 1.0]])
            .with("parent", ColumnData::Text(parents))
            .unwrap()
    }

    #[test]
    fn a_match_counts_from_either_side_and_lost_captions_do_not() {
        let images = vectors(&["a", "b"], &[[2.0, 0.0], [0.0, 1.0]]);
        let outcome = job("retrieval", json!({"k": [2, 1]}), &[("images", images), ("captions", captions())]).unwrap();
        let metric = |name: &str| outcome.metrics[name];
        assert_eq!((metric("images"), metric("captions")), (2.0, 3.0));
        assert!((metric("image_retrieval_recall@1") - 2.0 / 3.0).abs() < 1e-12);
        // The caption nearest to b is one of a's.
        assert_eq!((metric("text_retrieval_recall@1"), metric("text_retrieval_recall@2")), (0.5, 1.0));
        assert!(metric("image_retrieval_recall@1.low") <= metric("image_retrieval_recall@1.high"));
        assert_eq!(outcome.rows["rows"].integers("k").unwrap(), [1, 2]);
    }

    #[test]
    fn what_cannot_be_is_said_before_it_runs() {
        let images = vectors(&["a"], &[[1.0, 0.0]]);
        let inputs = rows(&[("images", &images), ("captions", &images)]);
        let found = problems("retrieval", json!({"k": [0]}), &inputs);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("inputs.captions: no column `parent`"), "{found:?}");
        assert!(found[1].starts_with("with.k: expected numbers"), "{found:?}");
        let outcome = job("retrieval", json!({"image": "id"}), &[("images", images.clone()), ("captions", images)]);
        assert_eq!(outcome.unwrap().metrics["text_retrieval_recall@1"], 1.0);
    }
}
