//! Vector arithmetic of contrastive models: normalising, cosines, softmax, ranks.

/// Divides a vector by its length; a zero vector stays zero. The length is taken in f64.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        let scale = (1.0 / length) as f32;
        vector.iter_mut().for_each(|x| *x *= scale);
    }
}

/// The dot product, summed in eight lanes so that it vectorises and gives the same bits everywhere.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Softmax in place, in f64 inside.
pub(crate) fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&s| f64::from(s - largest).exp()).sum();
    for score in scores {
        *score = (f64::from(*score - largest).exp() / sum) as f32;
    }
}

/// The position of the largest score, the first of equals; `None` for no scores.
pub(crate) fn best(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).reduce(|best, i| if scores[i] > scores[best] { i } else { best })
}

/// How many scores come before the one at `position`, when sorted from high to low and equals by position.
pub(crate) fn rank(scores: &[f32], position: usize) -> usize {
    let own = scores[position];
    scores.iter().enumerate().filter(|&(i, &s)| s > own || (s == own && i < position)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_vectors_have_length_one_and_zero_stays() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 3];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 3]);
    }

    #[test]
    fn a_dot_product_of_any_length_is_the_sum_of_products() {
        for n in 0..40 {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let expected: f32 = a.iter().map(|x| x * 2.0).sum();
            assert_eq!(dot(&a, &vec![2.0; n]), expected);
        }
    }

    #[test]
    fn softmax_of_large_logits_is_finite() {
        let mut scores = [1000.0, 1000.0, 500.0];
        softmax(&mut scores);
        assert_eq!(scores, [0.5, 0.5, 0.0]);
    }

    #[test]
    fn equal_scores_rank_by_position() {
        assert_eq!(best(&[1.0, 2.0, 2.0]), Some(1));
        assert_eq!(best(&[]), None);
        assert_eq!(rank(&[1.0, 2.0, 2.0], 2), 1);
        assert_eq!(rank(&[1.0, 2.0, 2.0], 1), 0);
        assert_eq!(rank(&[1.0, 2.0, 2.0], 0), 2);
    }
}
