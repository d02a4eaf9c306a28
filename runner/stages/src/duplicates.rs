//! `duplicates`: rows that are too much alike, within one set or between two.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, File, ImageRef, Input, Job, JobContext, KindInfo, Need, Outcome, PortKind,
    Problem, Rows, Shape, Stage, StageError,
};
use runner_report::{EVALUATION, Evaluation, Finding, Pair, Pairs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    compare::{Set, Tile, compare},
    definition::{input, optional, output},
    pictures::{Grid, Picture, Tile as Shown, grouped, thumbnail},
    pool::is_embedding,
};

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The cosine above which two rows are near-duplicates. What is alike depends on the model: look at the picture.
    #[serde(default = "above")]
    above: f64,
    /// How many pairs are kept at most, the most alike first; all are counted.
    #[serde(default = "most")]
    most: usize,
    /// How many pairs the picture shows.
    #[serde(default = "shown")]
    shown: usize,
}

fn above() -> f64 {
    0.95
}

fn most() -> usize {
    100_000
}

fn shown() -> usize {
    48
}

/// More pairs than this cannot be kept.
const MOST: usize = 10_000_000;

struct Duplicates;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(Duplicates)
}

impl Definition for Duplicates {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "duplicates",
            version: 2,
            summary: "pairs of rows whose embeddings are nearly the same, within one set or between two (train and test)",
            shape: Shape::Job,
            inputs: const {
                &[
                    input("rows", PortKind::Rows, "rows with `embedding`"),
                    optional("against", PortKind::Rows, "rows to compare them with; left out: themselves"),
                ]
            },
            outputs: const { &[output("rows", "one row a pair, the most alike first: `first`, `second`, `cosine`")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let rows = binding.column("rows", "embedding", "embedding", is_embedding);
        if binding.has("against") {
            let against = binding.column("against", "embedding", "embedding", is_embedding);
            if let (Some(rows), Some(against)) = (rows, against)
                && rows.kind != against.kind
            {
                let problem = Problem::input("against", "these embeddings are of another model than those of `rows`");
                binding.problem(problem.hint("give both `encode` stages the same `model`"));
            }
        }
        if !(-1.0..=1.0).contains(&settings.above) {
            binding.problem(Problem::setting("above", "expected a cosine, from −1 to 1"));
        }
        if settings.most == 0 || settings.most > MOST {
            binding.problem(Problem::setting("most", format!("expected a number from 1 to {MOST}")));
        }
        binding.gives(
            "rows",
            [
                Column::new("first", ColumnType::Text),
                Column::new("second", ColumnType::Text),
                Column::new("cosine", ColumnType::Number),
            ],
        );
    }

    fn open(&self, settings: Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let image = |port: &str| match inputs.get(port) {
            Some(Input::Rows(schema)) => {
                schema.matching(|kind| *kind == ColumnType::Image).next().map(|column| column.name.clone())
            }
            _ => None,
        };
        let two = inputs.contains_key("against");
        let images = [image("rows"), if two { image("against") } else { image("rows") }];
        Ok(Stage::Job(Box::new(Search { settings, two, images })))
    }
}

struct Search {
    settings: Settings,
    /// Two sets are compared.
    two: bool,
    /// The columns with the pictures of the first and of the second of a pair.
    images: [Option<String>; 2],
}

/// Two rows by their places, and their cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Match {
    cosine: f32,
    row: usize,
    column: usize,
}

impl Match {
    /// The most alike first; equals by place.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let places = (self.row, self.column).cmp(&(other.row, other.column));
        other.cosine.total_cmp(&self.cosine).then(places)
    }
}

/// What all threads found. The pairs kept are the first in order of all, so who came first does not matter.
#[derive(Default)]
struct Found {
    pairs: Vec<Match>,
    count: u64,
    rows: BTreeSet<usize>,
    columns: BTreeSet<usize>,
}

impl Found {
    fn add(&mut self, more: Vec<Match>, most: usize) {
        self.count += more.len() as u64;
        self.rows.extend(more.iter().map(|pair| pair.row));
        self.columns.extend(more.iter().map(|pair| pair.column));
        self.pairs.extend(more);
        // Twice as many may wait, so that sorting is rare.
        if self.pairs.len() >= 2 * most {
            self.keep(most);
        }
    }

    fn keep(&mut self, most: usize) {
        self.pairs.sort_unstable_by(Match::order);
        self.pairs.truncate(most);
    }
}

impl Job for Search {
    fn run(&self, context: &JobContext<'_>) -> Result<Outcome, StageError> {
        let Settings { above, most, shown } = self.settings;
        let rows = context.access.rows("rows")?;
        let against = if self.two { Some(context.access.rows("against")?) } else { None };
        let columns = against.as_deref().unwrap_or(rows.as_ref());
        let found = Mutex::new(Found::default());
        let (one, other) =
            (Set { rows: rows.as_ref(), column: "embedding" }, Set { rows: columns, column: "embedding" });
        let total = Mutex::new(0usize);
        let start = |first: usize, n: usize| *total.lock().unwrap_or_else(PoisonError::into_inner) = first + n;
        let visit = |_: &mut (), tile: &Tile<'_>| {
            // Of one set, each pair once.
            if !self.two && tile.column + tile.width <= tile.row {
                return;
            }
            let mut more = Vec::new();
            for (row, cosines) in tile.rows() {
                let near = cosines.iter().enumerate().filter(|(_, cosine)| f64::from(**cosine) > above);
                let near = near.map(|(i, &cosine)| Match { cosine, row, column: tile.column + i });
                more.extend(near.filter(|pair| self.two || pair.column > row));
            }
            if !more.is_empty() {
                found.lock().unwrap_or_else(PoisonError::into_inner).add(more, most);
            }
        };
        compare(&context.base, &one, &other, start, visit)?;
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.keep(most);
        let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        let named = self.named(&found, rows.as_ref(), columns)?;
        let mut involved = found.rows.len();
        if !self.two {
            involved += found.columns.difference(&found.rows).count();
        }
        let metrics = BTreeMap::from([
            ("pairs".to_owned(), found.count as f64),
            ("rows".to_owned(), involved as f64),
            ("share".to_owned(), involved as f64 / total.max(1) as f64),
        ]);
        let mut files = Vec::new();
        let worst = &named[..named.len().min(shown)];
        let title = format!("Near-duplicates above {above}");
        let (tiles, pairs) = self.show(worst, rows.as_ref(), columns)?;
        if !tiles.is_empty() {
            let subtitle = format!("{} pairs above {above}, the most alike first", grouped(found.count));
            let grid = Grid { title: "near-duplicates".into(), subtitle, tiles };
            files.push(File { name: "duplicates.png".to_owned(), bytes: grid.png()? });
        }
        let evaluation = Evaluation::new(Vec::new(), Finding::Pairs(Pairs { title, n: found.count, pairs }));
        files.push(File { name: EVALUATION.to_owned(), bytes: evaluation.write() });
        let batch = Batch::new((0..named.len()).map(|i| i.to_string()).collect())
            .with("first", ColumnData::Text(named.iter().map(|pair| pair.0.clone()).collect()))?
            .with("second", ColumnData::Text(named.iter().map(|pair| pair.1.clone()).collect()))?
            .with("cosine", ColumnData::Numbers(named.iter().map(|pair| f64::from(pair.2)).collect()))?;
        let rows = BTreeMap::from([("rows".to_owned(), batch)]);
        Ok(Outcome { rows, metrics, files, ..Outcome::default() })
    }
}

/// Two ids and their cosine.
type Named = (String, String, f32);

/// The ids at some places.
fn ids(rows: &dyn Rows, places: BTreeSet<usize>) -> Result<BTreeMap<usize, String>, StageError> {
    let mut names = BTreeMap::new();
    let mut first = 0;
    for batch in rows.scan(&[])? {
        let batch = batch?;
        let ids = batch.ids()?;
        names.extend(places.range(first..first + batch.len()).map(|&at| (at, ids.value(at - first).to_owned())));
        first += batch.len();
    }
    Ok(names)
}

impl Search {
    fn named(&self, found: &Found, rows: &dyn Rows, columns: &dyn Rows) -> Result<Vec<Named>, StageError> {
        let first = ids(rows, found.pairs.iter().map(|pair| pair.row).collect())?;
        let second = ids(columns, found.pairs.iter().map(|pair| pair.column).collect())?;
        let name = |names: &BTreeMap<usize, String>, at: usize| names.get(&at).cloned().unwrap_or_default();
        let named = |pair: &Match| (name(&first, pair.row), name(&second, pair.column), pair.cosine);
        Ok(found.pairs.iter().map(named).collect())
    }

    /// The pairs with their pictures, beside each other.
    fn show(
        &self,
        worst: &[Named],
        rows: &dyn Rows,
        columns: &dyn Rows,
    ) -> Result<(Vec<Shown>, Vec<Pair>), StageError> {
        let fetch = |rows: &dyn Rows, column: &Option<String>, ids: Vec<String>| match column {
            Some(column) if !ids.is_empty() => rows.fetch(&ids, &[Need::pixels(column)]),
            _ => Ok(Batch::new(Vec::new())),
        };
        let first = fetch(rows, &self.images[0], worst.iter().map(|pair| pair.0.clone()).collect())?;
        let second = fetch(columns, &self.images[1], worst.iter().map(|pair| pair.1.clone()).collect())?;
        let (first, second) = (pictures(&first, &self.images[0])?, pictures(&second, &self.images[1])?);
        let (mut tiles, mut pairs) = (Vec::new(), Vec::new());
        for (one, other, cosine) in worst {
            let images = [first.get(one.as_str()), second.get(other.as_str())];
            if let [Some(a), Some(b)] = images {
                tiles.extend(beside(*a, *b, format!("{cosine:.4}"), format!("{one} · {other}")));
            }
            pairs.push(Pair {
                first: one.clone(),
                second: other.clone(),
                cosine: f64::from(*cosine),
                images: images.into_iter().flatten().filter_map(|image| thumbnail(*image)).collect(),
            });
        }
        Ok((tiles, pairs))
    }
}

/// The pictures of some rows, by id.
fn pictures<'a>(rows: &'a Batch, column: &Option<String>) -> Result<BTreeMap<&'a str, ImageRef<'a>>, StageError> {
    match column {
        Some(column) if !rows.is_empty() => Ok(rows.ids()?.iter().flatten().zip(rows.images(column)?).collect()),
        _ => Ok(BTreeMap::new()),
    }
}

/// Two pictures of one height beside each other, as one tile.
fn beside(a: ImageRef<'_>, b: ImageRef<'_>, above: String, below: String) -> Option<Shown> {
    const SIDE: usize = 60;
    let [a, b] = [a, b].map(|image| Shown::new(image, String::new(), String::new()));
    let (a, b) = (a?, b?);
    let mut pixels = Vec::with_capacity(SIDE * SIDE * 6);
    for y in 0..SIDE {
        for tile in [&a, &b] {
            for x in 0..SIDE {
                let (row, column) = (y * tile.height / SIDE, x * tile.width / SIDE);
                pixels.extend_from_slice(&tile.pixels[(row * tile.width + column) * 3..][..3]);
            }
        }
    }
    Some(Shown { pixels, height: SIDE, width: 2 * SIDE, above, below })
}

#[cfg(test)]
mod tests {
    use runner_contract::{Digest, ImageForm, ImagesBuilder};
    use serde_json::json;

    use super::*;
    use crate::testing::{job, problems, rows};

    fn set(prefix: &str, values: &[[f32; 2]]) -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        for _ in values {
            images
                .push(ImageRef::Pixels { height: 2, width: 3, channels: 1, data: &[0, 50, 100, 150, 200, 250] })
                .unwrap();
        }
        Batch::new((0..values.len()).map(|i| format!("{prefix}{i}")).collect())
            .with("image", ColumnData::Images(images))
            .unwrap()
            .with("embedding", ColumnData::Embeddings(values.concat(), 2, Digest::of(b"m")))
            .unwrap()
    }

    fn pairs(outcome: &Outcome) -> Vec<(String, String)> {
        let rows = &outcome.rows["rows"];
        let text = |column| rows.text(column).unwrap().iter().flatten().map(str::to_owned).collect::<Vec<_>>();
        text("first").into_iter().zip(text("second")).collect()
    }

    #[test]
    fn of_one_set_each_pair_is_found_once_and_no_row_is_its_own() {
        let rows = set("r", &[[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.0, 3.0], [-1.0, 0.0]]);
        let outcome = job("duplicates", json!({"above": 0.9}), &[("rows", rows.clone())]).unwrap();
        let named = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(pairs(&outcome), [named("r1", "r3"), named("r0", "r2")]);
        assert_eq!((outcome.metrics["pairs"], outcome.metrics["rows"], outcome.metrics["share"]), (2.0, 4.0, 0.8));
        let files: Vec<_> = outcome.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(files, ["duplicates.png", "evaluation.json"]);
        let fewer = job("duplicates", json!({"above": 0.9, "most": 1}), &[("rows", rows)]).unwrap();
        assert_eq!((pairs(&fewer), fewer.metrics["pairs"]), (vec![named("r1", "r3")], 2.0));
    }

    #[test]
    fn of_two_sets_the_rows_are_those_that_leaked() {
        let (test, train) = (set("t", &[[1.0, 0.0], [0.0, 1.0]]), set("r", &[[1.0, 0.0], [3.0, 0.0], [1.0, 1.0]]));
        let outcome = job("duplicates", json!({}), &[("rows", test), ("against", train)]).unwrap();
        assert_eq!(pairs(&outcome).len(), 2);
        assert_eq!((outcome.metrics["rows"], outcome.metrics["share"]), (1.0, 0.5));
    }

    #[test]
    fn a_bound_that_is_no_cosine_is_refused() {
        let set = set("r", &[[1.0, 0.0]]);
        let found = problems("duplicates", json!({"above": 95}), &rows(&[("rows", &set)]));
        assert_eq!(found, ["with.above: expected a cosine, from −1 to 1"]);
    }
}
