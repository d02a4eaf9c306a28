//! Upsampling of a JPEG component as libjpeg-turbo's `jdsample.c` does it by default ("fancy": a triangle filter).

/// A component of `part` rows and columns, in rows of `stride`, `factor` times as large, cut to `to`.
///
/// `plane` holds at least `part` rows, and `part · factor` covers `to`.
pub(super) fn upsample(
    plane: &[u8],
    stride: usize,
    part: (usize, usize),
    factor: (usize, usize),
    to: (usize, usize),
) -> Vec<u8> {
    let row = |y: usize| &plane[y * stride..][..part.1];
    let mut out = Vec::with_capacity(to.0 * to.1);
    for y in 0..to.0 {
        let at = y / factor.0;
        let line = match factor {
            // Rows nearer to the picture's edge than half a sample repeat the edge.
            (2, across) if across <= 2 && part.1 > 2 || factor == (2, 1) => {
                let near = row(at);
                let far = row(if y % 2 == 0 { at.saturating_sub(1) } else { (at + 1).min(part.0 - 1) });
                let sums = near.iter().zip(far).map(|(near, far)| 3 * u32::from(*near) + u32::from(*far));
                match across {
                    1 => sums.map(|sum| ((sum + if y % 2 == 0 { 1 } else { 2 }) >> 2) as u8).collect(),
                    _ => wide(&sums.collect::<Vec<_>>(), 2),
                }
            }
            (1, 2) if part.1 > 2 => wide(&row(at).iter().map(|value| u32::from(*value)).collect::<Vec<_>>(), 0),
            (_, across) => row(at).iter().flat_map(|value| std::iter::repeat_n(*value, across)).collect::<Vec<u8>>(),
        };
        out.extend(line.iter().take(to.1));
    }
    out
}

/// Twice as wide; the samples have `bits` bits behind the point. Left and right halves round in different directions.
fn wide(samples: &[u32], bits: u32) -> Vec<u8> {
    let (left, right, shift) = if bits == 0 { (1, 2, 2) } else { (8, 7, 4) };
    // Without a fraction there is nothing to round at the ends.
    let end = |sample: u32, round: u32| ((4 * sample + if bits == 0 { 0 } else { round }) >> shift) as u8;
    let mut out = Vec::with_capacity(2 * samples.len());
    for (i, sample) in samples.iter().enumerate() {
        let mix = |other: &u32, round: u32| ((3 * sample + other + round) >> shift) as u8;
        let before = i.checked_sub(1).and_then(|i| samples.get(i));
        out.push(before.map_or(end(*sample, left), |other| mix(other, left)));
        out.push(samples.get(i + 1).map_or(end(*sample, right), |other| mix(other, right)));
    }
    out
}
