//! The symmetric contrastive loss of CLIP (Radford et al. 2021, figure 3) and its gradient.

use super::{
    activation::exp,
    gradient::{Pairing, Side, weight_gradient, weight_gradient_scratch},
    packed::{Finish, linear},
    panels::{Packed, Source},
    simd::Simd,
    windows::Left,
};
use crate::Isa;

/// What [`contrastive`] computes beside the gradients of the embeddings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Contrastive {
    /// The mean cross-entropy of both directions, in nats.
    pub(crate) loss: f32,
    /// Its derivative by the logarithm of the scale; 0 where no gradients were asked for.
    pub(crate) dlog_scale: f32,
}

/// How much scratch [`contrastive`] wants for `n` pairs.
pub(crate) fn contrastive_scratch(n: usize) -> usize {
    2 * n * n
}

/// The loss of `n` pairs of `[n, width]` embeddings; the gradients of `image` and `text` are *set*.
///
/// Off the diagonal, the `true_pairs`, `[n, n]` images by texts, are left out of both softmaxes.
#[expect(clippy::too_many_arguments, reason = "one argument for each operand")]
pub(crate) fn contrastive(
    isa: Isa,
    image: &[f32],
    text: &[f32],
    n: usize,
    log_scale: f32,
    true_pairs: Option<&[bool]>,
    gradients: Option<(&mut [f32], &mut [f32])>,
    scratch: &mut [f32],
) -> Contrastive {
    let width = image.len() / n.max(1);
    let scale = log_scale.exp();
    let (by_image, scratch) = scratch.split_at_mut(n * n);
    let by_text = &mut scratch[..n * n];
    product(isa, image, Source::rows(text, width), by_image);
    product(isa, text, Source::rows(image, width), by_text);
    let mut loss = 0.0;
    for (logits, place) in [(&mut *by_image, [n, 1]), (&mut *by_text, [1, n])] {
        for (row, logits) in logits.chunks_exact_mut(n.max(1)).enumerate() {
            let left_out = |column: usize| {
                column != row && true_pairs.is_some_and(|pairs| pairs[row * place[0] + column * place[1]])
            };
            for (column, logit) in logits.iter_mut().enumerate() {
                *logit = if left_out(column) { f32::NEG_INFINITY } else { *logit * scale };
            }
            let right = logits[row];
            loss += f64::from(soften(isa, logits) - right);
            for (column, probability) in logits.iter_mut().enumerate() {
                if left_out(column) {
                    *probability = 0.0;
                }
            }
            logits[row] -= 1.0;
        }
    }
    let loss = (loss / (2 * n).max(1) as f64) as f32;
    let Some((dimage, dtext)) = gradients else { return Contrastive { loss, dlog_scale: 0.0 } };
    // Now both hold the derivative of the sum of losses by its logits; add them up in one.
    let factor = 1.0 / (2 * n).max(1) as f32;
    for row in 0..n {
        for column in 0..n {
            by_image[row * n + column] = factor * (by_image[row * n + column] + by_text[column * n + row]);
        }
    }
    product(isa, by_image, Source::columns(text, width), dimage);
    dtext.fill(0.0);
    let mut scratch = vec![0.0; weight_gradient_scratch(isa, n, width)];
    let (left, right) = (Side::new(by_image, n), Side::new(image, width));
    weight_gradient(isa, left, right, Pairing::Rows, dtext, &mut scratch);
    let mut dlog_scale = 0.0;
    for d in dimage.iter_mut().chain(dtext) {
        *d *= scale;
    }
    for (d, x) in dimage.iter().zip(image) {
        dlog_scale += f64::from(*d) * f64::from(*x);
    }
    Contrastive { loss, dlog_scale: dlog_scale as f32 }
}

/// `out = x·w`, on this thread.
fn product(isa: Isa, x: &[f32], source: Source<'_>, out: &mut [f32]) {
    let map = Packed::owned(isa, source);
    linear(Left::Rows(x), &map, 0..map.panels(), Finish::NOTHING, out);
}

kernel! {
    /// `x = softmax(x)`; returns the logarithm of the sum of the exponentials.
    pub(super) fn soften(x: &mut [f32]) -> f32 = soften_body;
}

#[inline(always)]
fn soften_body<S: Simd>(s: S, x: &mut [f32]) -> f32 {
    let mut largest = s.splat(f32::NEG_INFINITY);
    for i in (0..x.len()).step_by(S::LANES) {
        largest = s.max(largest, s.at(x, i, f32::NEG_INFINITY));
    }
    let largest = s.largest(largest);
    for i in (0..x.len()).step_by(S::LANES) {
        let power = exp(s, s.sub(s.at(x, i, 0.0), s.splat(largest)));
        s.put(power, x, i);
    }
    let mut total = s.splat(0.0);
    for i in (0..x.len()).step_by(S::LANES) {
        total = s.add(total, s.at(x, i, 0.0));
    }
    let total = s.sum(total);
    for i in (0..x.len()).step_by(S::LANES) {
        s.put(s.mul(s.at(x, i, 0.0), s.splat(1.0 / total)), x, i);
    }
    largest + total.ln()
}
