//! Task `clip_score`: how well pictures and the texts that belong to them fit.

use std::collections::BTreeMap;

use runner_contract::{
    Access, Accumulator, Batch, Column, ColumnData, ColumnType, Context, File, Fold, Inputs, Need, Outcome, StageError,
};
use runner_report::{EVALUATION, Estimate, Evaluation, Finding, Pair, Pairs};

use crate::{
    LOGIT_SCALE,
    bootstrap::Draws,
    codec::{Reader, Writer},
    pictures::thumbnail,
};

use super::Settings;

/// The names of the means.
const NAMES: [&str; 3] = ["cosine", "clip_s", "clip_score"];

/// The fold.
pub(super) struct Fitting {
    pub(super) settings: Settings,
    /// The column to show the worst pairs from.
    pub(super) image: Option<String>,
    /// The column with their texts.
    pub(super) text: Option<String>,
}

/// The cosines of all rows, in order, and the lowest.
#[derive(Debug, Default, PartialEq)]
struct Cosines {
    all: Vec<f32>,
    /// The lowest first.
    lowest: Vec<(f32, String)>,
}

impl Cosines {
    fn keep_lowest(&mut self, most: usize) {
        self.lowest.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        self.lowest.truncate(most);
    }

    fn merge(&mut self, mut other: Self, most: usize) {
        self.all.append(&mut other.all);
        self.lowest.append(&mut other.lowest);
        self.keep_lowest(most);
    }

    fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new(1);
        writer.bytes(&self.all.iter().flat_map(|cosine| cosine.to_le_bytes()).collect::<Vec<_>>());
        writer.u64(self.lowest.len() as u64);
        for (cosine, id) in &self.lowest {
            writer.f64(f64::from(*cosine));
            writer.text(id);
        }
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<Self, StageError> {
        let mut reader = Reader::new(bytes, 1, "a partial of `metrics`")?;
        let (all, _) = reader.bytes()?.as_chunks::<4>();
        let all = all.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut lowest = Vec::new();
        for _ in 0..reader.count()? {
            lowest.push((reader.f64()? as f32, reader.text()?));
        }
        reader.finish()?;
        Ok(Self { all, lowest })
    }
}

/// Means of the cosine, of 2.5·max(cosine, 0) and, at least 0, of 100·cosine.
fn means(cosines: impl Iterator<Item = f32>) -> Vec<f64> {
    let (mut n, mut sum, mut positive) = (0u64, 0.0, 0.0);
    for cosine in cosines {
        n += 1;
        sum += f64::from(cosine);
        positive += f64::from(cosine.max(0.0));
    }
    let n = n as f64;
    vec![sum / n, 2.5 * positive / n, (100.0 * sum / n).max(0.0)]
}

impl Fold for Fitting {
    fn start(&self, _: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        Ok(Box::new(Collecting { settings: self.settings.clone(), cosines: Cosines::default() }))
    }

    fn merge(&self, context: &Context, partials: Vec<Vec<u8>>, access: &dyn Access) -> Result<Outcome, StageError> {
        let mut cosines = Cosines::default();
        for partial in &partials {
            cosines.merge(Cosines::read(partial)?, self.settings.mistakes);
        }
        let n = cosines.all.len();
        let rows = |lowest: &[(f32, String)]| -> Result<_, StageError> {
            let values = lowest.iter().map(|(cosine, _)| f64::from(*cosine)).collect();
            let rows = Batch::new(lowest.iter().map(|(_, id)| id.clone()).collect());
            Ok(BTreeMap::from([("rows".to_owned(), rows.with("cosine", ColumnData::Numbers(values))?)]))
        };
        if n == 0 {
            let metrics = BTreeMap::from([("n".to_owned(), 0.0)]);
            return Ok(Outcome { rows: rows(&[])?, metrics, ..Outcome::default() });
        }
        let draw = |draws: Draws| means(draws.filter_map(|i| cosines.all.get(i).copied()));
        let intervals = self.settings.bootstrap().intervals(n, context.threads, draw)?;
        let estimates: Vec<_> = NAMES
            .iter()
            .zip(means(cosines.all.iter().copied()))
            .enumerate()
            .map(|(i, (name, value))| {
                let interval = intervals.as_ref().and_then(|intervals| intervals.get(i).copied());
                Estimate { name: (*name).to_owned(), value, interval, n: n as u64 }
            })
            .collect();
        let mut metrics = super::metrics(&estimates);
        metrics.insert("n".to_owned(), n as f64);
        let title = "Pairs that fit worst".to_owned();
        let pairs = self.pairs(&cosines.lowest, access)?;
        let evaluation = Evaluation::new(estimates, Finding::Pairs(Pairs { title, n: n as u64, pairs }));
        let files = vec![File { name: EVALUATION.to_owned(), bytes: evaluation.write() }];
        Ok(Outcome { rows: rows(&cosines.lowest)?, metrics, files, ..Outcome::default() })
    }
}

impl Fitting {
    /// The pairs with their pictures and texts.
    fn pairs(&self, lowest: &[(f32, String)], access: &dyn Access) -> Result<Vec<Pair>, StageError> {
        let ids: Vec<_> = lowest.iter().map(|(_, id)| id.clone()).collect();
        let needs: Vec<_> = self.image.iter().map(Need::pixels).chain(self.text.iter().map(Need::column)).collect();
        let (mut images, mut texts) = (BTreeMap::new(), BTreeMap::new());
        let rows = if needs.is_empty() || ids.is_empty() {
            Batch::new(Vec::new())
        } else {
            access.rows("rows")?.fetch(&ids, &needs)?
        };
        if !rows.is_empty() {
            if let Some(column) = &self.image {
                images = rows.ids()?.iter().flatten().zip(rows.images(column)?).collect();
            }
            if let Some(column) = &self.text {
                texts = rows.ids()?.iter().flatten().zip(rows.text(column)?.iter().flatten()).collect();
            }
        }
        let pair = |(cosine, id): &(f32, String)| Pair {
            first: id.clone(),
            second: texts.get(id.as_str()).map(|text| (*text).to_owned()).unwrap_or_default(),
            cosine: f64::from(*cosine),
            images: images.get(id.as_str()).and_then(|image| thumbnail(*image)).into_iter().collect(),
        };
        Ok(lowest.iter().map(pair).collect())
    }
}

struct Collecting {
    settings: Settings,
    cosines: Cosines,
}

impl Accumulator for Collecting {
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError> {
        let rows = crate::port(inputs, "rows")?;
        if rows.is_empty() {
            return Ok(());
        }
        let column = &self.settings.scores;
        let (scores, width) = rows.vectors(column)?;
        let scale = rows.metadata(column, LOGIT_SCALE).and_then(|scale| scale.parse::<f32>().ok());
        let (1, Some(scale)) = (width, scale) else {
            return Err(StageError::new(format!(
                "column `{column}` has no score of a pair: set `pair` under `with:` of `score`"
            )));
        };
        let ids = rows.ids()?;
        for (id, score) in ids.iter().flatten().zip(scores) {
            let cosine = score / scale;
            self.cosines.all.push(cosine);
            self.cosines.lowest.push((cosine, id.to_owned()));
        }
        self.cosines.keep_lowest(self.settings.mistakes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError> {
        Ok(self.cosines.write())
    }
}

/// The columns of the rows that come out.
pub(super) fn columns() -> Vec<Column> {
    vec![Column::new("cosine", ColumnType::Number)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::fold;

    fn scored(first: usize, cosines: &[f32]) -> Batch {
        let metadata = BTreeMap::from([(LOGIT_SCALE.to_owned(), "50".to_owned())]);
        let scores = cosines.iter().map(|cosine| cosine * 50.0).collect();
        Batch::new((first..first + cosines.len()).map(|i| format!("r{i}")).collect())
            .with_metadata("scores", ColumnData::Scores(scores, 1), metadata)
            .unwrap()
    }

    #[test]
    fn means_are_of_all_rows_and_the_lowest_are_told() {
        let shards = [vec![scored(0, &[0.25, -0.5])], vec![scored(2, &[0.5, 0.75])]];
        let settings = json!({"task": "clip_score", "mistakes": 2});
        let outcome = fold("metrics", settings.clone(), &shards).unwrap();
        let close = |name: &str, value: f64| assert!((outcome.metrics[name] - value).abs() < 1e-6, "{name}");
        close("cosine", 0.25);
        close("clip_s", 2.5 * 1.5 / 4.0);
        close("clip_score", 25.0);
        close("n", 4.0);
        assert!(outcome.metrics["cosine.low"] < 0.25 && outcome.metrics["cosine.high"] > 0.25);
        let ids: Vec<_> = outcome.rows["rows"].ids().unwrap().iter().flatten().map(str::to_owned).collect();
        assert_eq!(ids, ["r1", "r0"]);
        let all: Vec<Batch> = shards.concat();
        let one = fold("metrics", settings, &[vec![Batch::concat(&all).unwrap()]]).unwrap();
        assert_eq!((one.metrics, one.files), (outcome.metrics, outcome.files));
    }

    #[test]
    fn scores_of_all_candidates_are_refused() {
        let rows = Batch::new(vec!["a".into()]).with("scores", ColumnData::Scores(vec![1.0, 2.0], 2)).unwrap();
        let error = fold("metrics", json!({"task": "clip_score"}), &[vec![rows]]).err().unwrap().to_string();
        assert!(error.contains("set `pair`"), "{error}");
    }
}
