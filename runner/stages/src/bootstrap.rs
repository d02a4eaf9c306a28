//! Percentile bootstrap intervals: the statistic on as many rows drawn with replacement, many times over.

use runner_contract::{Random, StageError};
use runner_nn::Workers;

/// The share of resamples that the interval leaves out on each side: a confidence of 95 %.
const TAIL: f64 = 0.025;

/// How intervals are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bootstrap {
    /// How often rows are drawn anew.
    pub(crate) resamples: usize,
    /// Another seed draws others.
    pub(crate) seed: u64,
}

/// Places of rows, drawn uniformly with replacement. The i-th draw of a resample is a function of seed, resample and i.
pub(crate) struct Draws {
    key: u64,
    rows: u64,
    next: u64,
}

impl Iterator for Draws {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next == self.rows {
            return None;
        }
        self.next += 1;
        // SplitMix64 of a counter; its high bits times the number of rows, so that no row is favoured by more than 2⁻⁶⁴ · rows.
        let mut x = self.key.wrapping_add(self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        Some(((u128::from(x) * u128::from(self.rows)) >> 64) as usize)
    }
}

impl Bootstrap {
    /// The intervals of the statistics that one pass over drawn rows gives, always as many. `None` without rows or resamples.
    ///
    /// The same for any number of threads. Statistics that are not numbers on a resample are passed over there.
    pub(crate) fn intervals(
        self,
        rows: usize,
        threads: usize,
        statistics: impl Fn(Draws) -> Vec<f64> + Send + Sync,
    ) -> Result<Option<Vec<(f64, f64)>>, StageError> {
        if rows == 0 || self.resamples == 0 {
            return Ok(None);
        }
        let workers = Workers::new(threads).map_err(|error| StageError::new(error.to_string()))?;
        let values = workers.map(self.resamples, |resample| {
            let key = Random::new(self.seed, "bootstrap", &resample.to_string()).next_u64();
            statistics(Draws { key, rows: rows as u64, next: 0 })
        });
        let width = values.first().map_or(0, Vec::len);
        let interval = |i: usize| {
            let column = values.iter().filter_map(|row| row.get(i).copied());
            let mut column: Vec<f64> = column.filter(|value| !value.is_nan()).collect();
            column.sort_by(f64::total_cmp);
            (percentile(&column, TAIL), percentile(&column, 1.0 - TAIL))
        };
        Ok(Some((0..width).map(interval).collect()))
    }
}

/// The value below which a share of the sorted values lies, interpolated as NumPy does it by default.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let below = at.floor() as usize;
    let (low, high) = (sorted[below.min(last)], sorted[(below + 1).min(last)]);
    low + (high - low) * (at - at.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 4, 8], [2.5, 50, 97.5])
        let values = [1.0, 2.0, 4.0, 8.0];
        let found = [0.025, 0.5, 0.975].map(|share| percentile(&values, share));
        assert!(found.iter().zip([1.075, 3.0, 7.7]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert_eq!(percentile(&[3.0], 0.975), 3.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_mean_has_its_standard_error_and_threads_change_nothing() {
        let rows: Vec<f64> = (0..2000).map(|i| f64::from(i % 2)).collect();
        let mean = |draws: Draws| vec![draws.map(|i| rows[i]).sum::<f64>() / rows.len() as f64];
        let bootstrap = Bootstrap { resamples: 1000, seed: 0 };
        let found = bootstrap.intervals(rows.len(), 1, mean).unwrap().unwrap();
        let (low, high) = found[0];
        // 0.5 ± 1.96 · √(0.25 / 2000)
        assert!((low - 0.4781).abs() < 0.002 && (high - 0.5219).abs() < 0.002, "{low} {high}");
        assert_eq!(bootstrap.intervals(rows.len(), 3, mean).unwrap().unwrap(), found);
        let other = Bootstrap { seed: 1, ..bootstrap }.intervals(rows.len(), 1, mean).unwrap().unwrap();
        assert_ne!(other, found);
        assert_eq!(bootstrap.intervals(0, 1, mean).unwrap(), None);
    }

    #[test]
    fn every_row_is_drawn_about_equally_often() {
        let mut counts = [0u32; 10];
        for resample in 0..1000 {
            let draws = Draws { key: Random::new(0, "bootstrap", &resample.to_string()).next_u64(), rows: 10, next: 0 };
            draws.for_each(|i| counts[i] += 1);
        }
        assert!(counts.iter().all(|&n| (880..1120).contains(&n)), "{counts:?}");
    }
}
