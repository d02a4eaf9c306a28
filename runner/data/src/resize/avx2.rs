//! The passes of [`super::passes`] with AVX2.
//!
//! The hot loops are calls of [`NullaryFnOnce`] on types, not closures, and written with indices: without link-time
//! optimisation the body of a closure, like the standard library's generic adapters, stays a function of its own, which is
//! compiled without these instructions.

use std::arch::x86_64::{__m128i, __m256i};

use pulp::{NullaryFnOnce, cast, x86::V3};

use super::{
    passes::{Part, to_byte},
    weights::Weights,
};

/// 32-bit values in a register.
const LANES: usize = 8;
/// Bytes of a row that [`down`] keeps the sums of in registers.
const BLOCK: usize = 4 * LANES;

pub(super) fn sideways(simd: V3, part: &Part<'_>, channels: usize, first: usize, weights: &Weights) -> Vec<u8> {
    // Lane `l` of a register holds channel `l % channels` of the `l / channels`-th of the pixels that are loaded together.
    let together = LANES / channels;
    let groups = weights.taps.div_ceil(together);
    let mut spread = Vec::with_capacity(weights.count() * groups * LANES);
    for (_, here) in weights.outputs() {
        for group in 0..groups {
            let weight =
                |lane: usize| here.get(group * together + lane / channels).filter(|_| lane < together * channels);
            spread.extend((0..LANES).map(|lane| weight(lane).copied().unwrap_or(0)));
        }
    }
    let starts: Vec<usize> = weights.outputs().map(|(start, _)| (start - first) * channels).collect();
    let width = starts.len() * channels;
    // Every pixel is stored as four bytes; the next one, or row, overwrites what is too much.
    let mut out = vec![0; part.height() * width + 4];
    // Loads may reach behind the row; their weights are 0 there.
    let mut line = vec![0; part.bytes.len() + groups * together * channels + LANES];
    for (y, row) in part.rows().enumerate() {
        line[..row.len()].copy_from_slice(row);
        let (bits, half, out) = (weights.bits, weights.half(), &mut out[y * width..][..width + 4]);
        simd.vectorize(Row { simd, line: &line, starts: &starts, spread: &spread, channels, bits, half, out });
    }
    out.truncate(part.height() * width);
    out
}

/// A row of `sideways`.
struct Row<'a> {
    simd: V3,
    /// The source, with room behind it.
    line: &'a [u8],
    /// Where each output's first pixel is in it.
    starts: &'a [usize],
    /// Weights of every output, by lane.
    spread: &'a [i32],
    channels: usize,
    bits: u32,
    half: i32,
    out: &'a mut [u8],
}

impl NullaryFnOnce for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        match self.channels {
            1 => self.filter::<1>(),
            2 => self.filter::<2>(),
            3 => self.filter::<3>(),
            _ => self.filter::<4>(),
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn filter<const C: usize>(self) {
        let Self { simd, line, starts, spread, bits, half, out, .. } = self;
        let step = LANES / C * C;
        let (spread, _) = spread.as_chunks::<LANES>();
        let groups = spread.len() / starts.len().max(1);
        let half = simd.avx._mm256_set1_epi32(half);
        // The first `C` lanes only: the others start from 0.
        let mut first = [0i32; LANES];
        first[..C].fill(-1);
        let half = simd.avx2._mm256_and_si256(half, cast(first));
        let bits = simd.sse2._mm_cvtsi32_si128(bits as i32);
        let mut place = 0;
        for at in 0..starts.len() {
            let mut sum = half;
            let mut from = starts[at];
            for here in &spread[at * groups..][..groups] {
                let Some(bytes) = line.get(from..).and_then(|bytes| bytes.first_chunk::<LANES>()) else { return };
                let values = widen(simd, *bytes);
                sum = simd.avx2._mm256_add_epi32(sum, simd.avx2._mm256_mullo_epi32(values, cast(*here)));
                from += step;
            }
            // Lanes of one channel together, in the first ones.
            sum = gather::<C>(simd, sum);
            let bytes = narrow(simd, simd.avx2._mm256_sra_epi32(sum, bits));
            if let Some(pixel) = out.get_mut(place..).and_then(|out| out.first_chunk_mut::<4>()) {
                *pixel = [bytes[0], bytes[1], bytes[2], bytes[3]];
            }
            place += C;
        }
    }
}

/// The sum of the lanes of each channel, in the first `C` lanes.
#[inline(always)]
fn gather<const C: usize>(simd: V3, sum: __m256i) -> __m256i {
    match C {
        1 => plus_turned(simd, plus_turned(simd, plus_turned(simd, sum, 4), 2), 1),
        2 => plus_turned(simd, plus_turned(simd, sum, 4), 2),
        3 => plus_turned(simd, sum, 3),
        _ => plus_turned(simd, sum, 4),
    }
}

/// Adds to each lane the one that many behind it, in a circle.
#[inline(always)]
fn plus_turned(simd: V3, sum: __m256i, by: i32) -> __m256i {
    let lanes = [by, by + 1, by + 2, by + 3, by + 4, by + 5, by + 6, by + 7];
    simd.avx2._mm256_add_epi32(sum, simd.avx2._mm256_permutevar8x32_epi32(sum, cast(lanes)))
}

#[inline(always)]
fn widen(simd: V3, bytes: [u8; LANES]) -> __m256i {
    simd.avx2._mm256_cvtepu8_epi32(simd.sse2._mm_set_epi64x(0, i64::from_le_bytes(bytes)))
}

/// The first four lanes, clamped to bytes.
#[inline(always)]
fn narrow(simd: V3, sums: __m256i) -> [u8; 16] {
    let low: __m128i = simd.avx._mm256_castsi256_si128(sums);
    let words = simd.sse2._mm_packs_epi32(low, low);
    cast(simd.sse2._mm_packus_epi16(words, words))
}

pub(super) fn down(simd: V3, part: &Part<'_>, first: usize, weights: &Weights) -> Vec<u8> {
    let rows: Vec<&[u8]> = part.rows().collect();
    let width = part.bytes.len();
    let mut out = vec![0; width * weights.count()];
    for (out, (start, here)) in out.chunks_exact_mut(width).zip(weights.outputs()) {
        let rows = &rows[start - first..][..here.len()];
        simd.vectorize(Line { simd, rows, here, bits: weights.bits, half: weights.half(), out });
    }
    out
}

/// A row that [`down`] makes.
struct Line<'a> {
    simd: V3,
    /// Source rows, as long as `out`, and their weights.
    rows: &'a [&'a [u8]],
    here: &'a [i32],
    bits: u32,
    half: i32,
    out: &'a mut [u8],
}

impl NullaryFnOnce for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, rows, here, bits, half, out } = self;
        let half_all = simd.avx._mm256_set1_epi32(half);
        let count = simd.sse2._mm_cvtsi32_si128(bits as i32);
        let order: __m256i = cast([0i32, 4, 1, 5, 2, 6, 3, 7]);
        let taps = here.len().min(rows.len());
        let mut x = 0;
        while x + BLOCK <= out.len() {
            let mut sums = [half_all; BLOCK / LANES];
            for tap in 0..taps {
                let Some(bytes) = rows[tap].get(x..).and_then(|row| row.first_chunk::<BLOCK>()) else { return };
                let (bytes, _) = bytes.as_chunks::<LANES>();
                let weight = simd.avx._mm256_set1_epi32(here[tap]);
                for i in 0..BLOCK / LANES {
                    let product = simd.avx2._mm256_mullo_epi32(widen(simd, bytes[i]), weight);
                    sums[i] = simd.avx2._mm256_add_epi32(sums[i], product);
                }
            }
            let [a, b, c, d] = sums;
            let (a, b) = (simd.avx2._mm256_sra_epi32(a, count), simd.avx2._mm256_sra_epi32(b, count));
            let (c, d) = (simd.avx2._mm256_sra_epi32(c, count), simd.avx2._mm256_sra_epi32(d, count));
            // Packing works within halves of a register, so fours come out in the order 0, 2, 4, 6, 1, 3, 5, 7.
            let words = (simd.avx2._mm256_packs_epi32(a, b), simd.avx2._mm256_packs_epi32(c, d));
            let bytes = simd.avx2._mm256_packus_epi16(words.0, words.1);
            let bytes: [u8; BLOCK] = cast(simd.avx2._mm256_permutevar8x32_epi32(bytes, order));
            if let Some(place) = out.get_mut(x..).and_then(|out| out.first_chunk_mut::<BLOCK>()) {
                *place = bytes;
            }
            x += BLOCK;
        }
        while x < out.len() {
            let mut sum = half;
            for tap in 0..taps {
                sum += i32::from(rows[tap][x]) * here[tap];
            }
            out[x] = to_byte(sum, bits);
            x += 1;
        }
    }
}
