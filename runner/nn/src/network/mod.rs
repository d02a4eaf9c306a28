//! A convolutional network on slices, forward and backward: [`Layer`](crate::Layer)s with their parameters' values.
//!
//! The batch is cut into shards of whole pictures; each goes through all layers on one thread ([`training`]).

mod backward;
mod training;

pub(crate) use training::{backward, forward};

use crate::{
    Activation, Backend, Layer, Operation, Size, Window, kernels,
    kernels::{Sweep, View},
    pool::Workers,
};

/// Values of the windows' rows that one thread holds at a time: with its weights they should stay in its cache.
const COVERED: usize = 1 << 20;
/// Fewest and most output pixels that one thread computes at a time.
const PIXELS: (usize, usize) = (128, 2048);
/// Values of the result of a layer without a matrix product that one thread computes at a time.
const VALUES: usize = 1 << 15;

/// A layer without its parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Whose result it reads, as [`Layer::input`].
    pub(crate) input: usize,
    window: Window,
    /// The pictures that it reads.
    from: Size,
    /// What comes out.
    to: Size,
    kind: Kind,
}

/// An [`Operation`] without its parameters.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Convolution { residual: Option<usize>, activation: Activation },
    Depthwise { activation: Activation },
    Transposed { activation: Activation },
    Upsample,
    GroupNorm { groups: usize, eps: f32, activation: Activation },
    Activate(Activation),
    MaxPool,
    MeanPool,
}

/// A layer's weight, or its gain, and its bias; empty where it has none.
pub(crate) type Pair<'a> = [&'a [f32]; 2];

impl Plan {
    /// The plan of layer `i` and its parameters; `sizes` as [`sizes`](crate::convolution::sizes) gives them.
    pub(crate) fn new<'a, B: Backend<Weight = P, Kernel = P, Param = P>, P>(
        i: usize,
        layer: &'a Layer<B>,
        sizes: &[Size],
    ) -> (Self, [Option<&'a P>; 2]) {
        let (kind, parameters) = match &layer.operation {
            Operation::Convolution { weight, bias, residual, activation } => {
                (Kind::Convolution { residual: *residual, activation: *activation }, [Some(weight), Some(bias)])
            }
            Operation::Depthwise { weight, bias, activation } => {
                (Kind::Depthwise { activation: *activation }, [Some(weight), Some(bias)])
            }
            Operation::Transposed { weight, bias, activation } => {
                (Kind::Transposed { activation: *activation }, [Some(weight), Some(bias)])
            }
            Operation::GroupNorm { gain, bias, groups, eps, activation } => {
                let kind = Kind::GroupNorm { groups: *groups, eps: *eps, activation: *activation };
                (kind, [Some(gain), Some(bias)])
            }
            Operation::Upsample => (Kind::Upsample, [None, None]),
            Operation::Activate(activation) => (Kind::Activate(*activation), [None, None]),
            Operation::MaxPool => (Kind::MaxPool, [None, None]),
            Operation::MeanPool => (Kind::MeanPool, [None, None]),
        };
        let plan = Self { input: layer.input, window: layer.window, from: sizes[layer.input], to: sizes[i + 1], kind };
        (plan, parameters)
    }

    /// The result that is added, numbered as [`Layer::input`].
    pub(crate) fn residual(&self) -> Option<usize> {
        match self.kind {
            Kind::Convolution { residual, .. } => residual,
            _ => None,
        }
    }

    /// What is applied last.
    fn activation(&self) -> Activation {
        match self.kind {
            Kind::Convolution { activation, .. }
            | Kind::Depthwise { activation }
            | Kind::Transposed { activation }
            | Kind::GroupNorm { activation, .. }
            | Kind::Activate(activation) => activation,
            Kind::Upsample | Kind::MaxPool | Kind::MeanPool => Activation::None,
        }
    }

    /// How the window moves over what is read, or, where the layer enlarges, over what comes out.
    fn sweep(&self) -> Sweep {
        match self.kind {
            Kind::Transposed { .. } => Sweep { window: self.window, from: self.to, to: self.from },
            _ => Sweep { window: self.window, from: self.from, to: self.to },
        }
    }

    /// Values of a picture that comes out.
    pub(crate) fn len(&self) -> usize {
        self.to.pixels() * self.to.channels
    }

    /// Values of a picture that goes in.
    fn input_len(&self) -> usize {
        self.from.pixels() * self.from.channels
    }

    /// Places of the window whose rows are held at a time by one thread that goes through all of them.
    fn spread(&self) -> usize {
        (COVERED / self.sweep().covered()).clamp(PIXELS.0, PIXELS.1)
    }

    /// Output pixels of a part: of a picture's for most layers, whole pictures where pixels depend on each other.
    fn part(&self, rows: usize) -> usize {
        match self.kind {
            Kind::Convolution { .. } => {
                // An even number of parts of one size, so that two threads end together.
                rows.div_ceil(rows.div_ceil(self.spread()).next_multiple_of(2)).max(1)
            }
            Kind::Transposed { .. } | Kind::GroupNorm { .. } => self.to.pixels(),
            _ => (VALUES / self.to.channels).max(1),
        }
    }

    /// Output pixels from `first` on, for pictures `x`: a part. `residual` holds all pictures. What goes into an
    /// activation that is more than bounds is left in `before`, if that is not empty.
    #[expect(clippy::too_many_arguments, reason = "the operands of a layer")]
    fn compute(
        &self,
        workers: &Workers,
        [weight, bias]: Pair<'_>,
        x: &[f32],
        residual: &[f32],
        first: usize,
        out: &mut [f32],
        before: &mut [f32],
    ) {
        let (isa, sweep) = (workers.isa(), self.sweep());
        let channels = self.to.channels;
        let rows = out.len() / channels;
        let bounds = kernels::bounds(self.activation()).unwrap_or(WHOLE);
        match self.kind {
            Kind::Convolution { .. } => {
                let covered = sweep.covered();
                let weight = View::new(weight, covered).transposed();
                if self.window.is_pixel() {
                    let patches = &x[first * covered..][..rows * covered];
                    kernels::product(View::new(patches, covered), weight, out, false);
                } else {
                    let mut patches = workers.buffer(rows * covered);
                    kernels::window_rows(sweep, x, first, &mut patches);
                    kernels::product(View::new(&patches, covered), weight, out, false);
                }
                let residual = if residual.is_empty() { residual } else { &residual[first * channels..][..out.len()] };
                kernels::finish(isa, out, bias, residual, bounds);
            }
            Kind::Depthwise { .. } => kernels::depthwise(isa, sweep, x, weight, bias, bounds, first, out),
            Kind::Transposed { .. } => {
                let pixels = self.from.pixels();
                let (inputs, covered) = (self.from.channels, sweep.covered());
                let x = &x[first / self.to.pixels() * pixels * inputs..][..rows / self.to.pixels() * pixels * inputs];
                let part = self.spread();
                let mut spread = workers.buffer(part.min(x.len() / inputs) * covered);
                let weight = View::new(weight, inputs).transposed();
                out.fill(0.0);
                for (i, x) in x.chunks(part * inputs).enumerate() {
                    let spread = &mut spread[..x.len() / inputs * covered];
                    kernels::product(View::new(x, inputs), weight, spread, false);
                    kernels::add_window_rows(isa, sweep, spread, i * part, out);
                }
                kernels::finish(isa, out, bias, &[], bounds);
            }
            Kind::Upsample => kernels::upsample(self.from, self.window.size, x, first, out),
            Kind::GroupNorm { groups, eps, .. } => {
                let mut stats = workers.buffer(2 * channels);
                let x = x[first * channels..].chunks_exact(self.len());
                for (x, out) in x.zip(out.chunks_exact_mut(self.len())) {
                    kernels::group_norm(isa, x, weight, bias, groups, eps, out, &mut stats);
                }
                return self.activate(workers, out, before);
            }
            Kind::Activate(activation) => {
                return kernels::activate(isa, activation, &x[first * channels..][..out.len()], out);
            }
            Kind::MaxPool => kernels::max_pool(isa, sweep, x, first, out),
            Kind::MeanPool => kernels::mean_pool(isa, sweep, x, first, out),
        }
        if kernels::bounds(self.activation()).is_none() {
            self.activate(workers, out, before);
        }
    }

    /// Applies the activation; what goes in is left in `before`, if that is not empty.
    fn activate(&self, workers: &Workers, out: &mut [f32], before: &mut [f32]) {
        if self.activation() == Activation::None {
            return;
        }
        let mut scratch = workers.buffer(if before.is_empty() { out.len() } else { 0 });
        let before = if before.is_empty() { &mut *scratch } else { before };
        before.copy_from_slice(out);
        kernels::activate(workers.isa(), self.activation(), before, out);
    }
}

/// No bounds.
const WHOLE: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);
