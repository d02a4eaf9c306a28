//! Counting right and wrong, and what is told about it.

use std::collections::{BTreeMap, BTreeSet};

use runner_contract::{Batch, Column, ColumnData, ColumnType, File, Outcome, StageError};

use crate::{
    codec::{Reader, Writer},
    pictures::{Confusion, Grid, Picture, Tile, grouped},
    score::{LABELS, NAMES},
    vectors::{best, rank, softmax},
};

const WHAT: &str = "a partial of `metrics`";
/// More classes than this, and the confusion matrix is no picture any more.
const DRAWN: usize = 1500;

/// The classes that a `scores` column scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates {
    names: Vec<String>,
    labels: Vec<i64>,
}

impl Candidates {
    /// Reads them from the column's metadata; without, they are numbered.
    pub(super) fn of_scores(rows: &Batch, column: &str) -> Result<Self, StageError> {
        let (_, width) = rows.vectors(column)?;
        let labels: Vec<i64> = match rows.metadata(column, LABELS) {
            Some(text) => parse(&text, column)?,
            None => (0..width as i64).collect(),
        };
        let names: Vec<String> = match rows.metadata(column, NAMES) {
            Some(text) => parse(&text, column)?,
            None => labels.iter().map(i64::to_string).collect(),
        };
        if labels.len() != width || names.len() != width {
            return Err(StageError::new(format!(
                "column `{column}` has {width} scores a row, but names {} candidates",
                names.len()
            )));
        }
        Ok(Self { names, labels })
    }

    fn name(&self, label: i64) -> String {
        let place = self.labels.iter().position(|&other| other == label);
        place.and_then(|i| self.names.get(i)).cloned().unwrap_or_else(|| format!("label {label}"))
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, column: &str) -> Result<T, StageError> {
    serde_json::from_str(text).map_err(|error| StageError::because(format!("metadata of column `{column}`"), error))
}

/// A row whose best candidate is not the true class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mistake {
    pub(super) id: String,
    truth: i64,
    predicted: i64,
    /// By how much the prediction's score is above the true class's; infinite if that is no candidate.
    margin: f64,
    /// The prediction's softmax probability.
    probability: f64,
}

/// What is known of the rows seen so far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    candidates: Option<Candidates>,
    /// Rows by true and predicted label.
    counts: BTreeMap<(i64, i64), u64>,
    /// Rows whose true class is among the best five.
    top5: u64,
    pub(super) mistakes: Vec<Mistake>,
}

impl Tally {
    /// All rows have the same candidates.
    pub(super) fn fix_candidates(&mut self, candidates: Candidates) -> Result<(), StageError> {
        match &self.candidates {
            Some(old) if *old != candidates => Err(StageError::new(format!(
                "rows are scored against different candidates: {} and {}",
                old.names.join(", "),
                candidates.names.join(", ")
            ))),
            Some(_) => Ok(()),
            None => {
                self.candidates = Some(candidates);
                Ok(())
            }
        }
    }

    /// Counts one row.
    pub(super) fn add(&mut self, id: &str, truth: i64, scores: &[f32]) {
        let Some(candidates) = &self.candidates else { return };
        let Some(winner) = best(scores) else { return };
        let predicted = candidates.labels[winner];
        *self.counts.entry((truth, predicted)).or_default() += 1;
        let place = candidates.labels.iter().position(|&label| label == truth);
        self.top5 += u64::from(place.is_some_and(|place| rank(scores, place) < 5));
        if predicted != truth {
            let margin = place.map_or(f64::INFINITY, |place| f64::from(scores[winner] - scores[place]));
            let mut probabilities = scores.to_vec();
            softmax(&mut probabilities);
            let probability = f64::from(probabilities[winner]);
            self.mistakes.push(Mistake { id: id.to_owned(), truth, predicted, margin, probability });
        }
    }

    /// Forgets all mistakes but the worst.
    pub(super) fn keep_worst(&mut self, most: usize) {
        self.mistakes.sort_by(|a, b| b.margin.total_cmp(&a.margin).then_with(|| a.id.cmp(&b.id)));
        self.mistakes.truncate(most);
    }

    pub(super) fn merge(&mut self, other: Self, most: usize) -> Result<(), StageError> {
        if let Some(candidates) = other.candidates {
            self.fix_candidates(candidates)?;
        }
        for (pair, count) in other.counts {
            *self.counts.entry(pair).or_default() += count;
        }
        self.top5 += other.top5;
        self.mistakes.extend(other.mistakes);
        self.keep_worst(most);
        Ok(())
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new(1);
        let Candidates { names, labels } = self.candidates.clone().unwrap_or_default();
        writer.u64(names.len() as u64);
        for (name, label) in names.iter().zip(labels) {
            writer.text(name);
            writer.i64(label);
        }
        writer.u64(self.counts.len() as u64);
        for (&(truth, predicted), &count) in &self.counts {
            writer.i64(truth);
            writer.i64(predicted);
            writer.u64(count);
        }
        writer.u64(self.top5);
        writer.u64(self.mistakes.len() as u64);
        for Mistake { id, truth, predicted, margin, probability } in &self.mistakes {
            writer.text(id);
            writer.i64(*truth);
            writer.i64(*predicted);
            writer.f64(*margin);
            writer.f64(*probability);
        }
        writer.finish()
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, StageError> {
        let mut reader = Reader::new(bytes, 1, WHAT)?;
        let mut tally = Self::default();
        let mut candidates = Candidates::default();
        for _ in 0..reader.count()? {
            candidates.names.push(reader.text()?);
            candidates.labels.push(reader.i64()?);
        }
        tally.candidates = (!candidates.names.is_empty()).then_some(candidates);
        for _ in 0..reader.count()? {
            let pair = (reader.i64()?, reader.i64()?);
            tally.counts.insert(pair, reader.u64()?);
        }
        tally.top5 = reader.u64()?;
        for _ in 0..reader.count()? {
            let (id, truth, predicted) = (reader.text()?, reader.i64()?, reader.i64()?);
            let (margin, probability) = (reader.f64()?, reader.f64()?);
            tally.mistakes.push(Mistake { id, truth, predicted, margin, probability });
        }
        reader.finish()?;
        Ok(tally)
    }

    /// Metrics, the table of classes, and the files. `images` holds the mistakes' pictures, and in which column.
    pub(super) fn outcome(&self, images: Option<(&Batch, &str)>) -> Result<Outcome, StageError> {
        let Some(candidates) = &self.candidates else {
            // Nothing to measure is no failure: a filter may have left nothing. There is no accuracy then.
            let rows = BTreeMap::from([("rows".to_owned(), batch(&[])?)]);
            return Ok(Outcome { rows, metrics: BTreeMap::from([("n".to_owned(), 0.0)]), ..Outcome::default() });
        };
        let total: u64 = self.counts.values().sum();
        let right: u64 = self.counts.iter().filter(|((truth, predicted), _)| truth == predicted).map(|(_, n)| n).sum();
        let classes = self.classes(candidates);
        let with_rows: Vec<_> = classes.iter().filter(|class| class.n > 0).collect();
        let recall = with_rows.iter().map(|class| class.recall()).sum::<f64>() / with_rows.len().max(1) as f64;
        let share = |count: u64| count as f64 / total.max(1) as f64;
        let mut metrics = BTreeMap::from([
            ("top1".to_owned(), share(right)),
            ("mean_per_class_recall".to_owned(), recall),
            ("n".to_owned(), total as f64),
        ]);
        if candidates.labels.len() > 5 {
            metrics.insert("top5".to_owned(), share(self.top5));
        }
        let summary = format!("top-1 {:.2} %, n = {}", 100.0 * share(right), grouped(total));
        let mut files = Vec::new();
        let mut file = |name: &str, bytes| files.push(File { name: name.to_owned(), bytes });
        if classes.len() <= DRAWN {
            let picture = self.confusion(&classes, summary.clone());
            file("confusion_matrix.png", picture.png()?);
            file("confusion_matrix.svg", picture.svg()?);
        }
        if let Some((rows, column)) = images {
            let subtitle = format!("{summary}; {} wrong, the most confident first", grouped(total - right));
            file("misclassified.png", self.grid(candidates, rows, column, subtitle)?.png()?);
        }
        file("per_class.csv", table(&classes).into_bytes());
        Ok(Outcome {
            rows: BTreeMap::from([("rows".to_owned(), batch(&classes)?)]),
            metrics,
            files,
            ..Outcome::default()
        })
    }

    /// Every class there is, true or scored, by label.
    fn classes(&self, candidates: &Candidates) -> Vec<Class> {
        let labels: BTreeSet<_> =
            candidates.labels.iter().copied().chain(self.counts.keys().map(|(truth, _)| *truth)).collect();
        let mut classes: BTreeMap<_, _> = labels
            .into_iter()
            .map(|label| (label, Class { label, name: candidates.name(label), n: 0, predicted: 0, right: 0 }))
            .collect();
        for (&(truth, predicted), &count) in &self.counts {
            if let Some(class) = classes.get_mut(&truth) {
                class.n += count;
                class.right += if truth == predicted { count } else { 0 };
            }
            if let Some(class) = classes.get_mut(&predicted) {
                class.predicted += count;
            }
        }
        classes.into_values().collect()
    }

    fn confusion(&self, classes: &[Class], subtitle: String) -> Confusion {
        let count = |truth: i64, predicted: i64| self.counts.get(&(truth, predicted)).copied().unwrap_or(0);
        Confusion {
            names: classes.iter().map(|class| class.name.clone()).collect(),
            counts: classes
                .iter()
                .map(|row| classes.iter().map(|column| count(row.label, column.label)).collect())
                .collect(),
            subtitle,
        }
    }

    fn grid(&self, candidates: &Candidates, rows: &Batch, column: &str, subtitle: String) -> Result<Grid, StageError> {
        let by_id: BTreeMap<_, _> = rows.ids()?.iter().flatten().zip(rows.images(column)?).collect();
        let tiles = self
            .mistakes
            .iter()
            .filter_map(|mistake| {
                let image = *by_id.get(mistake.id.as_str())?;
                let above = format!("true: {}", candidates.name(mistake.truth));
                let percent = (100.0 * mistake.probability).round();
                Tile::new(image, above, format!("said {}, {percent} %", candidates.name(mistake.predicted)))
            })
            .collect();
        Ok(Grid { title: "misclassified".into(), subtitle, tiles })
    }
}

/// One class's counts.
struct Class {
    label: i64,
    name: String,
    n: u64,
    predicted: u64,
    right: u64,
}

impl Class {
    fn recall(&self) -> f64 {
        self.right as f64 / self.n.max(1) as f64
    }

    fn precision(&self) -> f64 {
        self.right as f64 / self.predicted.max(1) as f64
    }
}

/// The columns of the table of classes.
pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::new("label", ColumnType::Label),
        Column::new("name", ColumnType::Text),
        Column::new("n", ColumnType::Integer),
        Column::new("recall", ColumnType::Number),
        Column::new("precision", ColumnType::Number),
    ]
}

fn batch(classes: &[Class]) -> Result<Batch, StageError> {
    Ok(Batch::new(classes.iter().map(|class| class.label.to_string()).collect())
        .with("label", ColumnData::Labels(classes.iter().map(|class| class.label).collect()))?
        .with("name", ColumnData::Text(classes.iter().map(|class| class.name.clone()).collect()))?
        .with("n", ColumnData::Integers(classes.iter().map(|class| class.n as i64).collect()))?
        .with("recall", ColumnData::Numbers(classes.iter().map(Class::recall).collect()))?
        .with("precision", ColumnData::Numbers(classes.iter().map(Class::precision).collect()))?)
}

/// The same as CSV; names are quoted where they must be (RFC 4180).
fn table(classes: &[Class]) -> String {
    let mut out = String::from("label,name,n,recall,precision\n");
    for class in classes {
        let name = match class.name.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", class.name.replace('"', "\"\"")),
            false => class.name.clone(),
        };
        out += &format!("{},{name},{},{},{}\n", class.label, class.n, class.recall(), class.precision());
    }
    out
}

#[cfg(test)]
mod tests {
    use runner_contract::{ImageForm, ImageRef, ImagesBuilder, Schema};
    use serde_json::json;

    use super::*;
    use crate::testing::fold;

    /// Rows scored against six classes: `(true, scores that are not 0)`.
    fn scored(first: usize, rows: &[(i64, &[(usize, f32)])]) -> Batch {
        let mut images = ImagesBuilder::new(ImageForm::Pixels);
        let mut scores = Vec::new();
        for (_, set) in rows {
            let mut row = [0.0; 6];
            set.iter().for_each(|&(place, score)| row[place] = score);
            scores.extend(row);
            images.push(ImageRef::Pixels { height: 2, width: 2, channels: 1, data: &[0, 80, 160, 240] }).unwrap();
        }
        let names = json!(["a", "b", "c", "d", "e,f", "g"]).to_string();
        let metadata = BTreeMap::from([(NAMES.to_owned(), names), (LABELS.to_owned(), "[0,1,2,3,4,5]".to_owned())]);
        Batch::new((first..first + rows.len()).map(|i| format!("row/{i}")).collect())
            .with("image", ColumnData::Images(images))
            .unwrap()
            .with("label", ColumnData::Labels(rows.iter().map(|(label, _)| *label).collect()))
            .unwrap()
            .with_metadata("scores", ColumnData::Scores(scores, 6), metadata)
            .unwrap()
    }

    fn shards() -> Vec<Vec<Batch>> {
        vec![
            vec![scored(0, &[(0, &[(0, 9.0)]), (0, &[(1, 3.0)])]), scored(2, &[(1, &[(1, 1.0)])])],
            // The last: five others come before its true class, which is not among the best five.
            vec![scored(3, &[(5, &[(0, 5.0), (1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)])])],
        ]
    }

    #[test]
    fn accuracy_and_recall_are_shares_of_the_rows() {
        let outcome = fold("metrics", json!({"task": "classification"}), &shards()).unwrap();
        let expected = [("mean_per_class_recall", 0.5), ("n", 4.0), ("top1", 0.5), ("top5", 0.75)];
        let found: Vec<_> = outcome.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, expected);
        let names: Vec<_> = outcome.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["confusion_matrix.png", "confusion_matrix.svg", "misclassified.png", "per_class.csv"]);
        let csv = String::from_utf8(outcome.files[3].bytes.clone()).unwrap();
        assert!(csv.starts_with("label,name,n,recall,precision\n0,a,2,0.5,0.5\n1,b,1,1,0.5\n"), "{csv}");
        assert!(csv.contains("\n4,\"e,f\",0,0,0\n"), "{csv}");
    }

    #[test]
    fn no_rows_have_a_count_and_no_accuracy() {
        let outcome = Tally::default().outcome(None).unwrap();
        assert_eq!(outcome.metrics, BTreeMap::from([("n".to_owned(), 0.0)]));
        assert_eq!(outcome.rows["rows"].schema(), Schema::new(columns()));
    }

    #[test]
    fn the_same_rows_in_other_chunks_give_the_same_bytes() {
        let all: Vec<_> = shards().into_iter().flatten().collect();
        let one = fold("metrics", json!({"task": "classification"}), &[vec![Batch::concat(&all).unwrap()]]).unwrap();
        let many = fold("metrics", json!({"task": "classification"}), &shards()).unwrap();
        assert_eq!(one.files, many.files);
        assert_eq!(one.metrics, many.metrics);
    }

    #[test]
    fn the_worst_mistakes_come_first_and_are_all_that_is_kept() {
        let mut tally = Tally {
            candidates: Some(Candidates { names: vec!["a".into(), "b".into()], labels: vec![0, 1] }),
            ..Tally::default()
        };
        for (id, truth, margin) in [("x", 0, 1.0), ("y", 0, 3.0), ("z", 7, 0.0), ("w", 0, 1.0)] {
            tally.add(id, truth, &[0.0, margin]);
        }
        tally.keep_worst(3);
        let ids: Vec<_> = tally.mistakes.iter().map(|mistake| mistake.id.as_str()).collect();
        assert_eq!(ids, ["z", "y", "w"]);
        assert_eq!(Tally::read(&tally.write()).unwrap(), tally);
    }
}
