//! Task `classification`: what is told of right and wrong.

use std::collections::{BTreeMap, BTreeSet};

use runner_contract::{
    Access, Accumulator, Batch, Column, ColumnData, ColumnType, Context, File, Fold, Inputs, Need, Outcome, StageError,
};
use runner_report::{Bin, Class, Classification, EVALUATION, Estimate, Evaluation, Finding, Mistake};

use crate::{
    bootstrap::Bootstrap,
    pictures::{Confusion, Grid, Picture, Reliability, Tile, csv_cell, grouped, thumbnail},
};

use super::{Settings, candidates::Candidates, examples, tally::Tally};

/// More classes than this, and the confusion matrix is no picture any more.
const DRAWN: usize = 1500;
/// From how many classes on the best five are told from the best: as CLIP_benchmark has it.
const TOP5: usize = 5;

/// The fold.
pub(super) struct Classifying {
    pub(super) settings: Settings,
    /// The column to show mistakes from.
    pub(super) image: Option<String>,
}

impl Fold for Classifying {
    fn start(&self, _: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        Ok(Box::new(Counting { settings: self.settings.clone(), tally: Tally::default() }))
    }

    fn merge(&self, context: &Context, partials: Vec<Vec<u8>>, access: &dyn Access) -> Result<Outcome, StageError> {
        let mut tally = Tally::default();
        for partial in &partials {
            tally.merge(Tally::read(partial)?, self.settings.mistakes)?;
        }
        drop(partials);
        context.check()?;
        let pictures = match &self.image {
            Some(column) if !tally.mistakes.is_empty() => {
                let ids: Vec<_> = tally.mistakes.iter().map(|mistake| mistake.id.clone()).collect();
                Some((access.rows("rows")?.fetch(&ids, &[Need::pixels(column)])?, column.as_str()))
            }
            _ => None,
        };
        let measured = tally.measure(self.settings.bootstrap(), context)?;
        tally.outcome(measured, pictures.as_ref().map(|(rows, column)| (rows, *column)))
    }
}

struct Counting {
    settings: Settings,
    tally: Tally,
}

impl Accumulator for Counting {
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError> {
        let rows = crate::port(inputs, "rows")?;
        if !rows.is_empty() {
            self.tally.push(rows, &self.settings.scores, &self.settings.label)?;
            self.tally.keep_worst(self.settings.mistakes);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError> {
        Ok(self.tally.write())
    }
}

/// The numbers.
struct Measured {
    estimates: Vec<Estimate>,
    bins: Vec<Bin>,
}

impl Tally {
    fn measure(&self, bootstrap: Bootstrap, context: &Context) -> Result<Measured, StageError> {
        let numbered = self.examples.numbered();
        let (statistics, bins) = numbered.all();
        let intervals = numbered.intervals(bootstrap, context.threads)?;
        let width = self.candidates.as_ref().map_or(0, |candidates| candidates.labels.len());
        let strangers = self.examples.0.iter().filter(|example| example.loss.is_nan()).count();
        if strangers > 0 {
            let strangers = grouped(strangers as u64);
            context.warn(format!(
                "{strangers} rows are of a class that is none of the candidates: they count as wrong, and there is no log_loss"
            ));
        }
        let n = self.examples.0.len() as u64;
        let mut estimates = Vec::new();
        for (i, (name, value)) in examples::NAMES.into_iter().zip(statistics.values()).enumerate() {
            if value.is_nan() || (name == "top5" && width < TOP5) {
                continue;
            }
            let interval = intervals.as_ref().and_then(|intervals| intervals.get(i).copied());
            estimates.push(Estimate { name: name.to_owned(), value, interval, n });
        }
        Ok(Measured { estimates, bins: bins.to_vec() })
    }

    /// Metrics, the table of classes, and the files. `images` holds the mistakes' pictures, and in which column.
    fn outcome(&self, measured: Measured, images: Option<(&Batch, &str)>) -> Result<Outcome, StageError> {
        let Some(candidates) = &self.candidates else {
            // Nothing to measure is no failure: a filter may have left nothing. There is no accuracy then.
            let rows = BTreeMap::from([("rows".to_owned(), batch(&[])?)]);
            return Ok(Outcome { rows, metrics: BTreeMap::from([("n".to_owned(), 0.0)]), ..Outcome::default() });
        };
        let total: u64 = self.counts.values().sum();
        let right: u64 = self.counts.iter().filter(|((truth, predicted), _)| truth == predicted).map(|(_, n)| n).sum();
        let classes = self.classes(candidates);
        let Measured { estimates, bins } = measured;
        let mut metrics = super::metrics(&estimates);
        metrics.insert("n".to_owned(), total as f64);
        let summary = format!("top-1 {:.2} %, n = {}", 100.0 * right as f64 / total.max(1) as f64, grouped(total));
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
        let ece = metrics.get("ece").map(|ece| format!("ECE {ece:.4}, ")).unwrap_or_default();
        let reliability = Reliability { bins: bins.clone(), subtitle: format!("{ece}n = {}", grouped(total)) };
        file("reliability.png", reliability.png()?);
        file("reliability.svg", reliability.svg()?);
        file("per_class.csv", table(&classes).into_bytes());
        let rows = BTreeMap::from([("rows".to_owned(), batch(&classes)?)]);
        let mistakes = self.mistakes(candidates, images)?;
        let confusion = self.places(&classes);
        let finding = Classification { classes, confusion, calibration: bins, mistakes };
        file(EVALUATION, Evaluation::new(estimates, Finding::Classification(finding)).write());
        Ok(Outcome { rows, metrics, files, ..Outcome::default() })
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

    /// The counts by places among the classes.
    fn places(&self, classes: &[Class]) -> Vec<(usize, usize, u64)> {
        let places: BTreeMap<i64, usize> = classes.iter().map(|class| class.label).zip(0..).collect();
        let place = |label: i64| places.get(&label).copied();
        self.counts.iter().filter_map(|(&(t, p), &count)| Some((place(t)?, place(p)?, count))).collect()
    }

    fn confusion(&self, classes: &[Class], subtitle: String) -> Confusion {
        let mut counts = vec![vec![0; classes.len()]; classes.len()];
        for (truth, predicted, count) in self.places(classes) {
            counts[truth][predicted] = count;
        }
        Confusion { names: classes.iter().map(|class| class.name.clone()).collect(), counts, subtitle }
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

    fn mistakes(&self, candidates: &Candidates, images: Option<(&Batch, &str)>) -> Result<Vec<Mistake>, StageError> {
        let by_id: BTreeMap<_, _> = match images {
            Some((rows, column)) => rows.ids()?.iter().flatten().zip(rows.images(column)?).collect(),
            None => BTreeMap::new(),
        };
        let mistakes = self.mistakes.iter().map(|wrong| Mistake {
            id: wrong.id.clone(),
            truth: candidates.name(wrong.truth),
            predicted: candidates.name(wrong.predicted),
            probability: wrong.probability,
            image: by_id.get(wrong.id.as_str()).and_then(|image| thumbnail(*image)),
        });
        Ok(mistakes.collect())
    }
}

fn recall(class: &Class) -> f64 {
    class.right as f64 / class.n.max(1) as f64
}

fn precision(class: &Class) -> f64 {
    class.right as f64 / class.predicted.max(1) as f64
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
        .with("recall", ColumnData::Numbers(classes.iter().map(recall).collect()))?
        .with("precision", ColumnData::Numbers(classes.iter().map(precision).collect()))?)
}

/// The same as CSV.
fn table(classes: &[Class]) -> String {
    let mut out = String::from("label,name,n,recall,precision\n");
    for class in classes {
        let (label, name) = (class.label, csv_cell(&class.name));
        out += &format!("{label},{name},{},{},{}\n", class.n, recall(class), precision(class));
    }
    out
}

#[cfg(test)]
mod tests;
