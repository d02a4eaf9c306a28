//! What is kept of every row, a few bytes each, and the statistics over any rows drawn from them.

use std::collections::BTreeMap;

use runner_contract::StageError;
use runner_report::Bin;

use crate::{
    bootstrap::{Bootstrap, Draws},
    codec::{Reader, Writer},
};

/// Bins of the reliability diagram, of equal width (Guo et al. 2017, section 3).
const BINS: usize = 15;
/// A row's bytes in a partial: class, confidence, loss, flags.
const BYTES: usize = 17;

/// One row's outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Example {
    /// The true class's label.
    pub(super) truth: i64,
    /// The largest probability.
    pub(super) confidence: f32,
    /// −ln of the true class's probability, at most f32's largest; NaN if that class is no candidate.
    pub(super) loss: f32,
    /// The prediction is the true class.
    pub(super) right: bool,
    /// The true class is among the best five.
    pub(super) top5: bool,
}

/// The rows, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Examples(pub(super) Vec<Example>);

/// Means over rows. `ece` and `loss` of no meaning are NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Statistics {
    pub(super) top1: f64,
    pub(super) top5: f64,
    pub(super) recall: f64,
    pub(super) ece: f64,
    pub(super) loss: f64,
}

/// The names of [`Statistics::values`].
pub(super) const NAMES: [&str; 5] = ["top1", "top5", "mean_per_class_recall", "ece", "log_loss"];

impl Statistics {
    /// In the order of [`NAMES`].
    pub(super) fn values(self) -> [f64; 5] {
        [self.top1, self.top5, self.recall, self.ece, self.loss]
    }
}

/// The bin of a confidence: bin i holds (i/15, (i+1)/15].
fn bin(confidence: f32) -> usize {
    // In f32, so that the f32 next to i/15 counts as i/15.
    let at = (confidence * BINS as f32).ceil() as usize;
    at.clamp(1, BINS) - 1
}

impl Examples {
    /// The classes that rows have, numbered by label, and every row's.
    pub(super) fn numbered(&self) -> Numbered<'_> {
        let mut numbers: BTreeMap<i64, u32> = self.0.iter().map(|example| (example.truth, 0)).collect();
        numbers.values_mut().zip(0..).for_each(|(number, i)| *number = i);
        let classes = self.0.iter().map(|example| numbers.get(&example.truth).copied().unwrap_or(0)).collect();
        Numbered { examples: &self.0, classes, count: numbers.len() }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let mut bytes = Vec::with_capacity(self.0.len() * BYTES);
        for Example { truth, confidence, loss, right, top5 } in &self.0 {
            bytes.extend(truth.to_le_bytes());
            bytes.extend(confidence.to_le_bytes());
            bytes.extend(loss.to_le_bytes());
            bytes.push(u8::from(*right) | u8::from(*top5) << 1);
        }
        writer.bytes(&bytes);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, StageError> {
        let (rows, rest) = reader.bytes()?.as_chunks::<BYTES>();
        if !rest.is_empty() {
            return Err(StageError::new("a partial of `metrics` is damaged: a row is cut off"));
        }
        let examples = rows.iter().map(|row| {
            let [t0, t1, t2, t3, t4, t5, t6, t7, c0, c1, c2, c3, l0, l1, l2, l3, flags] = *row;
            Example {
                truth: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
                confidence: f32::from_le_bytes([c0, c1, c2, c3]),
                loss: f32::from_le_bytes([l0, l1, l2, l3]),
                right: flags & 1 != 0,
                top5: flags & 2 != 0,
            }
        });
        Ok(Self(examples.collect()))
    }
}

/// Rows with their classes numbered from 0 without gaps.
pub(super) struct Numbered<'a> {
    examples: &'a [Example],
    classes: Vec<u32>,
    count: usize,
}

impl Numbered<'_> {
    /// The statistics over the rows at these places.
    fn over(&self, rows: impl Iterator<Item = usize>) -> (Statistics, [Bin; BINS]) {
        let mut classes = vec![(0u32, 0u32); self.count];
        let mut bins = [Bin::default(); BINS];
        let (mut n, mut right, mut top5, mut loss) = (0u64, 0u64, 0u64, 0f64);
        for row in rows {
            let (Some(example), Some(&class)) = (self.examples.get(row), self.classes.get(row)) else { continue };
            let hit = u64::from(example.right);
            n += 1;
            right += hit;
            top5 += u64::from(example.top5);
            loss += f64::from(example.loss);
            if let Some((all, found)) = classes.get_mut(class as usize) {
                *all += 1;
                *found += u32::from(example.right);
            }
            let bin = &mut bins[bin(example.confidence)];
            bin.n += 1;
            bin.right += hit;
            bin.confidence += f64::from(example.confidence);
        }
        let share = |count: u64| count as f64 / n as f64;
        let seen = classes.iter().filter(|(all, _)| *all > 0);
        let recalls = seen.clone().map(|&(all, found)| f64::from(found) / f64::from(all));
        let ece = bins.iter().map(|bin| (bin.right as f64 - bin.confidence).abs()).sum::<f64>() / n as f64;
        for bin in bins.iter_mut().filter(|bin| bin.n > 0) {
            bin.confidence /= bin.n as f64;
        }
        let recall = recalls.sum::<f64>() / seen.count() as f64;
        (Statistics { top1: share(right), top5: share(top5), recall, ece, loss: loss / n as f64 }, bins)
    }

    /// Over all rows, and the bins of their confidences.
    pub(super) fn all(&self) -> (Statistics, [Bin; BINS]) {
        self.over(0..self.examples.len())
    }

    /// An interval for each of the statistics.
    pub(super) fn intervals(
        &self,
        bootstrap: Bootstrap,
        threads: usize,
    ) -> Result<Option<Vec<(f64, f64)>>, StageError> {
        bootstrap.intervals(self.examples.len(), threads, |draws: Draws| self.over(draws).0.values().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(truth: i64, confidence: f32, right: bool) -> Example {
        Example { truth, confidence, loss: -confidence.ln(), right, top5: right }
    }

    #[test]
    fn a_bin_holds_its_upper_bound() {
        assert_eq!([0.0, 0.01, 1.0 / 15.0, 0.07, 0.5, 0.99, 1.0].map(bin), [0, 0, 0, 1, 7, 14, 14]);
        assert_eq!(bin(f32::NAN), 0);
    }

    #[test]
    fn calibration_error_is_the_gap_of_each_bin_by_its_share_of_rows() {
        // (0.9 + 0.95 + 1) − 3 right in the last two bins, 0.3 wrong.
        let rows = [(5, 0.9, true), (5, 0.95, true), (-1, 1.0, true), (-1, 0.3, false)];
        let examples = Examples(rows.map(|(truth, confidence, right)| example(truth, confidence, right)).to_vec());
        let (statistics, bins) = examples.numbered().all();
        assert!((statistics.ece - (0.1 + 0.05 + 0.0 + 0.3) / 4.0).abs() < 1e-6, "{statistics:?}");
        assert_eq!((statistics.top1, statistics.recall), (0.75, 0.75));
        assert_eq!((bins[13].n, bins[14].n, bins[4].n), (1, 2, 1));
        let mut writer = Writer::new(1);
        examples.write(&mut writer);
        let bytes = writer.finish();
        assert_eq!(Examples::read(&mut Reader::new(&bytes, 1, "a partial").unwrap()).unwrap(), examples);
    }
}
