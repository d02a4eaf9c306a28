//! A filter's weights in fixed point.

use super::filter::{Filter, exact_row, taps};

/// Whose arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// Pillow: weights of 22 bits.
    Pillow,
    /// torchvision on `uint8` tensors: weights of as many bits as keep the largest below 2¹⁵.
    Torchvision,
}

/// Fixed-point weights of every output pixel of one dimension.
pub(super) struct Weights {
    /// First source pixel and number of taps, by output pixel.
    bounds: Vec<(usize, usize)>,
    /// `taps` weights an output pixel; the unused are 0.
    weights: Vec<i32>,
    /// Most source pixels of an output pixel.
    pub(super) taps: usize,
    /// Bits behind the binary point.
    pub(super) bits: u32,
}

impl Weights {
    /// For output pixels `start..start + count` of `target`, from `source` pixels.
    pub(super) fn new(
        source: usize,
        target: usize,
        start: usize,
        count: usize,
        filter: Filter,
        arithmetic: Arithmetic,
    ) -> Self {
        let row = exact_row(source, target, filter);
        let taps = taps(source, target, filter);
        let bits = match arithmetic {
            Arithmetic::Pillow => 22,
            Arithmetic::Torchvision => {
                // Of the whole dimension, whatever part of it is asked for.
                let largest = (0..target).flat_map(|i| row(i).1).fold(0.0, f64::max);
                let fits = |bits: &u32| ((0.5 + largest * f64::from(1u32 << (bits + 1))) as i64) < 1 << 15;
                (0..22).find(|bits| !fits(bits)).unwrap_or(22)
            }
        };
        let one = f64::from(1u32 << bits);
        let mut weights = vec![0; count * taps];
        let mut bounds = Vec::with_capacity(count);
        for (i, fixed) in weights.chunks_exact_mut(taps).enumerate() {
            let (first, exact) = row(start + i);
            for (fixed, exact) in fixed.iter_mut().zip(&exact) {
                *fixed = (exact * one + 0.5f64.copysign(*exact)) as i32;
            }
            bounds.push((first, exact.len().min(taps)));
        }
        Self { bounds, weights, taps, bits }
    }

    /// The source pixels that are read, as a range.
    pub(super) fn span(&self) -> (usize, usize) {
        let first = self.bounds.iter().map(|bound| bound.0).min().unwrap_or(0);
        let last = self.bounds.iter().map(|bound| bound.0 + bound.1).max().unwrap_or(0);
        (first, last)
    }

    /// Output pixels.
    pub(super) fn count(&self) -> usize {
        self.bounds.len()
    }

    /// First source pixel and weights, by output pixel.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.bounds
            .iter()
            .zip(self.weights.chunks_exact(self.taps))
            .map(|(&(first, n), weights)| (first, &weights[..n]))
    }

    /// Half a step of the result, to be added before the bits behind the point are cut off.
    pub(super) fn half(&self) -> i32 {
        1 << (self.bits - 1)
    }
}
