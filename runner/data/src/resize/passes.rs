//! The two passes of a resize: every output byte is a weighted sum of source bytes beside, or above, each other.
//!
//! Written here plainly; [`super::avx2`] gives the same bytes where the processor can.

use std::ops::Range;

use super::weights::Weights;

/// A part of every row of `data`.
pub(super) struct Part<'a> {
    /// Bytes from row to row.
    pub(super) stride: usize,
    /// The part.
    pub(super) bytes: Range<usize>,
    pub(super) data: &'a [u8],
}

impl<'a> Part<'a> {
    pub(super) fn whole(data: &'a [u8], stride: usize) -> Self {
        Self { stride, bytes: 0..stride, data }
    }

    pub(super) fn height(&self) -> usize {
        self.data.len() / self.stride
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes.clone();
        self.data.chunks_exact(self.stride).map(move |row| &row[bytes.clone()])
    }
}

/// Sideways: all rows of a part whose first pixel is the source's pixel `first`. `[rows, outputs, channels]`.
pub(super) fn sideways(part: &Part<'_>, channels: usize, first: usize, weights: &Weights) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return super::avx2::sideways(simd, part, channels, first, weights);
    }
    sideways_plain(part, channels, first, weights)
}

/// Downwards: all bytes of a part whose first row is the source's row `first`. `[outputs, bytes]`.
pub(super) fn down(part: &Part<'_>, first: usize, weights: &Weights) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return super::avx2::down(simd, part, first, weights);
    }
    down_plain(part, first, weights)
}

pub(super) fn to_byte(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

fn sideways_plain(part: &Part<'_>, channels: usize, first: usize, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.height() * weights.count() * channels);
    for row in part.rows() {
        for (start, here) in weights.outputs() {
            let pixels = &row[(start - first) * channels..];
            out.extend((0..channels).map(|channel| {
                let values = pixels.iter().skip(channel).step_by(channels);
                let products = values.zip(here).map(|(&value, &weight)| i32::from(value) * weight);
                to_byte(weights.half() + products.sum::<i32>(), weights.bits)
            }));
        }
    }
    out
}

fn down_plain(part: &Part<'_>, first: usize, weights: &Weights) -> Vec<u8> {
    let width = part.bytes.len();
    let mut out = Vec::with_capacity(width * weights.count());
    let mut sums = vec![0i32; width];
    for (start, here) in weights.outputs() {
        sums.fill(weights.half());
        for (row, &weight) in part.rows().skip(start - first).zip(here) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_byte(sum, weights.bits)));
    }
    out
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Filter, avx2, weights::Arithmetic},
        *,
    };

    proptest! {
        #[test]
        fn with_vector_instructions_the_bytes_are_the_same(
            (source, others, channels, from, count) in (1..70usize, 1..20usize, 1..5usize, 0..40usize, 1..40usize),
            (data, filter, pillow) in (proptest::collection::vec(any::<u8>(), 997), 1..6u64, any::<bool>()),
        ) {
            let Some(simd) = pulp::x86::V3::try_new() else { return Ok(()) };
            let Some(filter) = Filter::from_pillow(filter) else { return Ok(()) };
            let arithmetic = if pillow { Arithmetic::Pillow } else { Arithmetic::Torchvision };
            let weights = Weights::new(source, from + count, from, count, filter, arithmetic);
            let (first, last) = weights.span();
            let cells = others * source * channels;
            let data: Vec<u8> = data.into_iter().cycle().take(cells).collect();

            let part = Part { stride: source * channels, bytes: first * channels..last * channels, data: &data };
            let plain = sideways_plain(&part, channels, first, &weights);
            prop_assert_eq!(avx2::sideways(simd, &part, channels, first, &weights), plain);

            let stride = others * channels;
            let part = Part { stride, bytes: 0..stride, data: &data[first * stride..last * stride] };
            prop_assert_eq!(avx2::down(simd, &part, first, &weights), down_plain(&part, first, &weights));
        }
    }
}
