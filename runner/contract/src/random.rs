//! A counter-based random generator, so that a value depends on (seed, stream, row) and on nothing that ran before.

use crate::KeyHasher;

/// Draws from a BLAKE3 stream keyed by seed, a stream name (the kind) and a row id.
///
/// The same key gives the same numbers on every machine, whatever the number of threads or the order of rows.
pub struct Random {
    reader: blake3::OutputReader,
}

impl Random {
    /// The generator for one row (or one step, one epoch: whatever `row` names).
    pub fn new(seed: u64, stream: &str, row: &str) -> Self {
        let key = KeyHasher::new("random/1")
            .part("seed", &seed.to_le_bytes())
            .part("stream", stream.as_bytes())
            .part("row", row.as_bytes())
            .finish();
        Self { reader: blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof() }
    }

    /// A uniform 64-bit integer.
    pub fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.reader.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A uniform number in `[0, 1)`, in steps of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A uniform integer in `0..bound`, without modulo bias; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        let zone = u64::MAX - u64::MAX % bound;
        loop {
            let value = self.next_u64();
            if value < zone {
                return (value % bound) as usize;
            }
        }
    }

    /// A standard normal number (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts `items` in a uniformly random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_the_key_alone() {
        let draw = |seed, stream, row| Random::new(seed, stream, row).next_u64();
        assert_eq!(draw(0, "split", "a"), draw(0, "split", "a"));
        assert_ne!(draw(0, "split", "a"), draw(1, "split", "a"));
        assert_ne!(draw(0, "split", "a"), draw(0, "train", "a"));
        assert_ne!(draw(0, "split", "a"), draw(0, "split", "b"));
    }

    #[test]
    fn draws_are_uniform_and_normal() {
        let mut random = Random::new(7, "test", "");
        let n = 20_000;
        let mean = (0..n).map(|_| random.uniform()).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let square = (0..n).map(|_| random.normal().powi(2)).sum::<f64>() / n as f64;
        assert!((square - 1.0).abs() < 0.05, "{square}");
        assert!((0..n).all(|_| random.below(3) < 3));
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<_> = (0..100).collect();
        Random::new(1, "test", "").shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
