//! Optimisation on slices: AdamW with decoupled decay, gradient clipping, and the usual schedule of rates.

use serde::{Deserialize, Serialize};

/// AdamW (Loshchilov and Hutter 2019, algorithm 2) over parameters that are known by their place.
///
/// The public fields are its whole state: restored from them bit by bit, it goes on as if it had not stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Decay of the gradients' running mean (0.9).
    pub beta1: f32,
    /// Decay of the squared gradients' running mean (0.98 in CLIP).
    pub beta2: f32,
    /// Added to the root of the second moment (1e-6 in CLIP).
    pub eps: f32,
    /// Steps that were begun.
    pub steps: u64,
    /// First moment of each parameter; empty before its first update.
    pub first: Vec<Vec<f32>>,
    /// Second moment of each parameter; empty before its first update.
    pub second: Vec<Vec<f32>>,
}

impl AdamW {
    /// An optimizer that has seen nothing, for `parameters` parameters.
    pub fn new(beta1: f32, beta2: f32, eps: f32, parameters: usize) -> Self {
        Self { beta1, beta2, eps, steps: 0, first: vec![Vec::new(); parameters], second: vec![Vec::new(); parameters] }
    }

    /// Begins a step; then [`AdamW::update`] each parameter once.
    pub fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// Updates the parameter at `place` with its gradient: first shrinks it by `rate · decay`, then steps.
    ///
    /// Places beyond those given to [`AdamW::new`] are left alone.
    pub fn update(&mut self, place: usize, values: &mut [f32], gradient: &[f32], rate: f32, decay: f32) {
        let (Some(first), Some(second)) = (self.first.get_mut(place), self.second.get_mut(place)) else { return };
        first.resize(values.len(), 0.0);
        second.resize(values.len(), 0.0);
        let steps = self.steps.max(1) as f64;
        let unbiased = |beta: f32| 1.0 - f64::from(beta).powf(steps);
        let size = (f64::from(rate) / unbiased(self.beta1)) as f32;
        let root = unbiased(self.beta2).sqrt() as f32;
        let (beta1, beta2, eps, shrink) = (self.beta1, self.beta2, self.eps, 1.0 - rate * decay);
        let moments = first.iter_mut().zip(second);
        for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            *first = beta1 * *first + (1.0 - beta1) * gradient;
            *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
            *value = shrink * *value - size * *first / (second.sqrt() / root + eps);
        }
    }
}

/// Scales all gradients together so that their Euclidean length is at most `max`; returns the length before.
pub fn clip_global_norm(gradients: &mut [Vec<f32>], max: f32) -> f32 {
    let squares = gradients.iter().flatten().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
    let norm = squares.sqrt() as f32;
    if norm > max {
        let factor = max / norm;
        for gradient in gradients.iter_mut().flatten() {
            *gradient *= factor;
        }
    }
    norm
}

/// A learning rate that rises linearly, then falls along half a cosine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate, reached at the end of the warm-up.
    pub peak: f32,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// All steps.
    pub total: u64,
    /// The rate at the end.
    pub floor: f32,
}

impl Schedule {
    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.peak * (step + 1) as f32 / self.warmup as f32;
        }
        let rest = self.total.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / rest as f64).min(1.0);
        let height = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.floor + (self.peak - self.floor) * height as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One step from zero moments moves each value by the rate, against the sign of its gradient.
    #[test]
    fn the_first_step_has_the_length_of_the_rate() {
        let mut optimizer = AdamW::new(0.9, 0.98, 1e-8, 1);
        let mut values = [1.0, -2.0, 3.0];
        optimizer.begin_step();
        optimizer.update(0, &mut values, &[0.5, -0.01, 7.0], 0.1, 0.0);
        for (value, expected) in values.iter().zip([0.9, -1.9, 2.9]) {
            assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
        }
    }

    /// Three steps of `torch.optim.AdamW(lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)`.
    #[test]
    fn follows_pytorch() {
        let mut optimizer = AdamW::new(0.9, 0.98, 1e-6, 1);
        let mut values = [1.0, -2.0];
        for gradient in [[0.5, -0.25], [-1.0, 0.75], [0.125, 2.0]] {
            optimizer.begin_step();
            optimizer.update(0, &mut values, &gradient, 0.1, 0.2);
        }
        let expected = [0.9019883, -1.9074451];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
        }
    }

    #[test]
    fn decay_does_not_pass_through_the_moments() {
        let mut optimizer = AdamW::new(0.9, 0.98, 1e-8, 1);
        let mut values = [2.0];
        optimizer.begin_step();
        optimizer.update(0, &mut values, &[0.0], 0.5, 0.1);
        assert!((values[0] - 1.9).abs() < 1e-6);
        assert_eq!(optimizer.first[0], [0.0]);
    }

    /// Saved and restored in the middle, training ends with the same bits.
    #[test]
    fn resumes_exactly() {
        let gradient = |step: usize| [(step as f32 * 0.37).sin(), 1.0 / (step as f32 + 3.0)];
        let run = |stop: Option<usize>| {
            let mut optimizer = AdamW::new(0.9, 0.98, 1e-6, 1);
            let mut values = [0.3, -0.7];
            for step in 0..20 {
                if stop == Some(step) {
                    let saved = serde_json::to_string(&optimizer).unwrap();
                    optimizer = serde_json::from_str(&saved).unwrap();
                }
                optimizer.begin_step();
                optimizer.update(0, &mut values, &gradient(step), 0.01, 0.2);
            }
            values.map(f32::to_bits)
        };
        assert_eq!(run(None), run(Some(11)));
    }

    #[test]
    fn clipping_keeps_direction_and_bounds_length() {
        let mut gradients = vec![vec![3.0], vec![0.0, 4.0]];
        assert_eq!(clip_global_norm(&mut gradients, 1.0), 5.0);
        assert_eq!(gradients, [vec![0.6], vec![0.0, 0.8]]);
        assert_eq!(clip_global_norm(&mut gradients, 2.0), 1.0);
    }

    #[test]
    fn the_rate_rises_then_falls_to_the_floor() {
        let schedule = Schedule { peak: 1.0, warmup: 4, total: 104, floor: 0.1 };
        assert_eq!(schedule.rate(0), 0.25);
        assert_eq!(schedule.rate(3), 1.0);
        assert_eq!(schedule.rate(4), 1.0);
        assert!((schedule.rate(54) - 0.55).abs() < 1e-6);
        assert!((schedule.rate(104) - 0.1).abs() < 1e-6);
        assert!((schedule.rate(1000) - 0.1).abs() < 1e-6);
    }
}
