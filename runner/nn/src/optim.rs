//! Optimisation on slices: AdamW with decoupled decay, gradient clipping, and the usual schedule of rates.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Isa,
    kernels::{self, Adam},
};

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

    /// Updates all parameters with their gradients, on the threads of the pool that it is called in: first shrinks each by
    /// `rate · decay`, then steps.
    pub fn step(
        &mut self,
        values: &mut [&mut [f32]],
        gradients: &[Vec<f32>],
        stride: Stride,
        decay: impl Fn(usize) -> f32,
    ) {
        self.steps += 1;
        let steps = self.steps as f64;
        let unbiased = |beta: f32| 1.0 - f64::from(beta).powf(steps);
        let adam = Adam {
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            factor: stride.factor,
            shrink: 1.0,
            size: (f64::from(stride.rate) / unbiased(self.beta1)) as f32,
            root: unbiased(self.beta2).sqrt() as f32,
        };
        let moments = self.first.iter_mut().zip(&mut self.second);
        let mut parts = Vec::new();
        for (place, ((values, gradient), (first, second))) in values.iter_mut().zip(gradients).zip(moments).enumerate()
        {
            first.resize(values.len(), 0.0);
            second.resize(values.len(), 0.0);
            let adam = Adam { shrink: 1.0 - stride.rate * decay(place), ..adam };
            let moments = first.chunks_mut(PART).zip(second.chunks_mut(PART));
            for ((values, gradient), moments) in values.chunks_mut(PART).zip(gradient.chunks(PART)).zip(moments) {
                parts.push((adam, values, gradient, moments));
            }
        }
        let isa = Isa::best();
        parts.into_par_iter().for_each(|(adam, values, gradient, (first, second))| {
            let first = &mut first[..gradient.len()];
            kernels::adamw(isa, adam, &mut values[..gradient.len()], gradient, first, &mut second[..gradient.len()]);
        });
    }
}

/// Values that one thread takes at a time.
const PART: usize = 1 << 14;

/// How far a step of [`AdamW`] goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stride {
    /// The learning rate.
    pub rate: f32,
    /// On all gradients: see [`clip_factor`].
    pub factor: f32,
}

/// The Euclidean length of all gradients together, computed on the threads of the pool that it is called in.
pub fn global_norm(gradients: &[Vec<f32>]) -> f32 {
    let isa = Isa::best();
    let parts: Vec<&[f32]> = gradients.iter().flat_map(|gradient| gradient.chunks(PART)).collect();
    let squares: Vec<f64> = parts.par_iter().map(|part| f64::from(kernels::squares(isa, part))).collect();
    squares.iter().sum::<f64>().sqrt() as f32
}

/// The factor that brings a gradient of length `norm` to at most `max`.
pub fn clip_factor(norm: f32, max: f32) -> f32 {
    if norm > max { max / norm } else { 1.0 }
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

    const WHOLE: f32 = 1.0;

    fn step(optimizer: &mut AdamW, values: &mut [f32], gradient: &[f32], rate: f32, decay: f32) {
        optimizer.step(&mut [values], &[gradient.to_vec()], Stride { rate, factor: WHOLE }, |_| decay);
    }

    /// One step from zero moments moves each value by the rate, against the sign of its gradient.
    #[test]
    fn the_first_step_has_the_length_of_the_rate() {
        let mut optimizer = AdamW::new(0.9, 0.98, 1e-8, 1);
        let mut values = [1.0, -2.0, 3.0];
        step(&mut optimizer, &mut values, &[0.5, -0.01, 7.0], 0.1, 0.0);
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
            step(&mut optimizer, &mut values, &gradient, 0.1, 0.2);
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
        step(&mut optimizer, &mut values, &[0.0], 0.5, 0.1);
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
            for i in 0..20 {
                if stop == Some(i) {
                    let saved = serde_json::to_string(&optimizer).unwrap();
                    optimizer = serde_json::from_str(&saved).unwrap();
                }
                step(&mut optimizer, &mut values, &gradient(i), 0.01, 0.2);
            }
            values.map(f32::to_bits)
        };
        assert_eq!(run(None), run(Some(11)));
    }

    /// A parameter of many parts is updated like its values one by one.
    #[test]
    fn large_parameters_are_updated_whole() {
        let count = 2 * PART + 7;
        let start: Vec<f32> = (0..count).map(|i| (i as f32 * 0.1).sin()).collect();
        let gradient: Vec<f32> = (0..count).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut whole = start.clone();
        step(&mut AdamW::new(0.9, 0.98, 1e-6, 1), &mut whole, &gradient, 0.1, 0.2);
        for i in [0, 1, PART - 1, PART, 2 * PART, count - 1] {
            let mut one = [start[i]];
            step(&mut AdamW::new(0.9, 0.98, 1e-6, 1), &mut one, &[gradient[i]], 0.1, 0.2);
            assert!((whole[i] - one[0]).abs() < 1e-6, "{} is not {}", whole[i], one[0]);
        }
    }

    #[test]
    fn clipping_keeps_direction_and_bounds_length() {
        let gradients = [vec![3.0], vec![0.0, 4.0]];
        assert_eq!(global_norm(&gradients), 5.0);
        assert_eq!(clip_factor(5.0, 1.0), 0.2);
        assert_eq!(clip_factor(1.0, 2.0), 1.0);
        // A factor on the gradients is the same as shorter gradients.
        let (mut short, mut factor) = ([1.0], [1.0]);
        step(&mut AdamW::new(0.9, 0.98, 1e-6, 1), &mut short, &[0.5], 0.1, 0.0);
        let stride = Stride { rate: 0.1, factor: 0.5 };
        AdamW::new(0.9, 0.98, 1e-6, 1).step(&mut [&mut factor], &[vec![1.0]], stride, |_| 0.0);
        assert_eq!(short, factor);
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
