//! Resampling of 16-bit grey as Pillow does it (mode `I;16`): double precision, rounded after each pass.

use super::{
    Arithmetic, Window,
    filter::{Filter, exact_weights},
    vertical_first,
};

/// The `window` of little-endian samples, resized from `from` to `to` rows and columns, as [`super::resize`] does.
pub(crate) fn resize16(
    data: &[u8],
    from: (usize, usize),
    to: (usize, usize),
    window: Window,
    filter: Filter,
) -> Vec<u8> {
    let samples: Vec<u16> = data.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
    let rows = (from.0 != to.0).then(|| exact_weights(from.0, to.0, window.top, window.height, filter));
    let columns = (from.1 != to.1).then(|| exact_weights(from.1, to.1, window.left, window.width, filter));
    let across = |samples: &[u16]| match &columns {
        Some(weights) => horizontal(samples, from.1, weights),
        None => {
            let rows = samples.chunks_exact(from.1);
            rows.flat_map(|row| &row[window.left..window.left + window.width]).copied().collect()
        }
    };
    let down = |samples: &[u16], width: usize| match &rows {
        Some(weights) => vertical(samples, width, weights),
        None => samples[window.top * width..(window.top + window.height) * width].to_vec(),
    };
    let resized = if vertical_first(from, to, Arithmetic::Pillow) && columns.is_some() && rows.is_some() {
        across(&down(&samples, from.1))
    } else {
        down(&across(&samples), window.width)
    };
    resized.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// First source sample and weights, by output sample.
type Weights = [(usize, Vec<f64>)];

fn round(sum: f64) -> u16 {
    (sum + 0.5f64.copysign(sum)).clamp(0.0, 65_535.0) as u16
}

fn horizontal(samples: &[u16], width: usize, weights: &Weights) -> Vec<u16> {
    let rows = samples.chunks_exact(width);
    rows.flat_map(|row| {
        weights.iter().map(|(first, weights)| {
            round(row[*first..].iter().zip(weights).map(|(sample, weight)| f64::from(*sample) * weight).sum())
        })
    })
    .collect()
}

fn vertical(samples: &[u16], width: usize, weights: &Weights) -> Vec<u16> {
    let mut out = Vec::with_capacity(weights.len() * width);
    let mut sums = vec![0.0; width];
    for (first, weights) in weights {
        sums.fill(0.0);
        for (row, weight) in samples.chunks_exact(width).skip(*first).zip(weights) {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += f64::from(*sample) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| round(*sum)));
    }
    out
}
