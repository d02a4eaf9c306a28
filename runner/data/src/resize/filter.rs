//! Resampling filters, and what they weigh each source pixel with.

/// A resampling filter, with Pillow's definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Mean of the covered pixels.
    Box,
    /// Triangle.
    Bilinear,
    /// Hamming window over one pixel.
    Hamming,
    /// Cubic convolution with a = −0.5.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

impl Filter {
    /// Pillow's number for it, which `preprocessor_config.json` calls `resample`.
    pub fn from_pillow(number: u64) -> Option<Self> {
        [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// Pillow's number for it.
    pub fn to_pillow(self) -> u64 {
        match self {
            Self::Nearest => 0,
            Self::Lanczos => 1,
            Self::Bilinear => 2,
            Self::Bicubic => 3,
            Self::Box => 4,
            Self::Hamming => 5,
        }
    }

    /// Half the filter's width, in source pixels when not shrinking.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        use std::f64::consts::PI;
        fn sinc(x: f64) -> f64 {
            if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
        }
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => match x.abs() {
                0.0 => 1.0,
                x if x >= 1.0 => 0.0,
                x => (x * PI).sin() / (x * PI) * (0.54 + 0.46 * (x * PI).cos()),
            },
            Self::Bicubic => {
                const A: f64 = -0.5;
                match x.abs() {
                    x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                    x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                    _ => 0.0,
                }
            }
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// Most source pixels of an output pixel.
pub(super) fn taps(source: usize, target: usize, filter: Filter) -> usize {
    (filter.support() * (source as f64 / target as f64).max(1.0)).ceil() as usize * 2 + 1
}

/// First source pixel and weights of an output pixel.
pub(super) fn exact_row(source: usize, target: usize, filter: Filter) -> impl Fn(usize) -> (usize, Vec<f64>) {
    let scale = source as f64 / target as f64;
    let widened = scale.max(1.0);
    let support = filter.support() * widened;
    let inverse = 1.0 / widened;
    move |i| {
        let centre = (i as f64 + 0.5) * scale;
        // A cast truncates towards zero and stops at zero, as the reference does.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(source);
        let mut weights: Vec<f64> = (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) * inverse)).collect();
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        (first, weights)
    }
}

/// First source pixel and weights of the output pixels `start..start + count`.
pub(super) fn exact_weights(
    source: usize,
    target: usize,
    start: usize,
    count: usize,
    filter: Filter,
) -> Vec<(usize, Vec<f64>)> {
    (start..start + count).map(exact_row(source, target, filter)).collect()
}
