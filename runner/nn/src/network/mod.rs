//! A convolutional network on slices, forward and backward: [`Layer`](crate::Layer)s with their parameters' values.
//!
//! The batch is cut into shards of whole pictures; each goes through all layers on one thread ([`training`]).

mod backward;
mod training;

pub(crate) use training::{backward, forward};

use crate::{
    Activation, Backend, Layer, Operation, Size, Window,
    kernel::Kernel,
    kernels::{self, Added, Finish, Packed, Source, Sweep, Taps, Tiles, Way, Windows, Winograd},
    pool::{Buffer, Workers},
};

/// Values of the windows' rows that one thread holds at a time: with its weights they should stay in its cache.
const COVERED: usize = 1 << 20;
/// Fewest and most places of a window whose rows one thread holds at a time.
const PLACES: (usize, usize) = (128, 2048);

/// Channels that are too few for products tap by tap: of so few, rows are made of what windows cover.
const FEW: usize = 16;

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

/// What is multiplied in the gradient of a weight.
enum Pairs {
    /// Tiles at their points: the least work.
    Tiles(Tiles),
    /// A pixel of the result and what a tap covers.
    There(Taps),
    /// What a tap covers of the result, which is larger, and a pixel.
    Back(Taps),
    /// Pixel and pixel.
    Rows,
    /// A pixel of the result and all that the window covers, as a row.
    Covered,
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

    /// Places of the window whose rows are held at a time.
    fn places(&self) -> usize {
        (COVERED / self.sweep().covered()).clamp(PLACES.0, PLACES.1)
    }

    /// The weight arranged for the way there, in layers that are linear maps.
    fn there(&self, workers: &Workers, weight: &[f32]) -> Option<Map> {
        let (sweep, channels) = (self.sweep(), self.from.channels);
        let kernel = match self.kind {
            Kind::Convolution { .. } if Winograd::<Buffer>::suits(self.window, channels, self.to.channels) => {
                Kernel::Winograd(Winograd::borrowed(workers, channels, weight, Way::There))
            }
            Kind::Convolution { .. } => {
                Kernel::Direct(Packed::borrowed(workers, Source::rows(weight, sweep.covered())))
            }
            Kind::Transposed { .. } => {
                let kernel = Kernel::Direct(Packed::borrowed(workers, Source::rows(weight, channels)));
                return Some(Map { kernel, sweep, windows: None });
            }
            _ => return None,
        };
        Some(Map { windows: kernel.windows(sweep), kernel, sweep })
    }

    /// And for the way back: from the gradient of the result to that of what is read.
    fn back(&self, workers: &Workers, weight: &[f32]) -> Option<Map> {
        let (sweep, channels) = (self.sweep(), self.from.channels);
        let Window { size, before, after, .. } = self.window;
        let (source, taps) = match self.kind {
            Kind::Convolution { .. } if Winograd::<Buffer>::suits(self.window, channels, self.to.channels) => {
                let kernel = Kernel::Winograd(Winograd::borrowed(workers, channels, weight, Way::Back));
                let window = Window { before: 2 - before, after: 2_usize.saturating_sub(after), ..self.window };
                return Some(Map { kernel, sweep: Sweep { window, from: self.to, to: self.from }, windows: None });
            }
            Kind::Convolution { .. } if self.window.is_pixel() => (Source::columns(weight, channels), None),
            Kind::Convolution { .. } => (Source::back(weight, size * size, channels), Some(Taps::back(sweep))),
            Kind::Transposed { .. } => (Source::columns(weight, channels), Some(Taps::there(sweep))),
            _ => return None,
        };
        let kernel = Kernel::Direct(Packed::borrowed(workers, source));
        Some(Map { kernel, sweep, windows: taps.as_ref().map(Windows::new) })
    }

    /// How the gradient of the weight is computed, in layers that are linear maps.
    fn pairs(&self) -> Option<Pairs> {
        let (sweep, channels) = (self.sweep(), self.from.channels);
        let convolution = match self.kind {
            Kind::Convolution { .. } => true,
            Kind::Transposed { .. } => false,
            _ => return None,
        };
        if convolution && Winograd::<Buffer>::suits(self.window, channels, self.to.channels) {
            let tiles = Tiles::new(sweep);
            if tiles.large() {
                return Some(Pairs::Tiles(tiles));
            }
        }
        Some(match convolution {
            _ if self.window.is_pixel() => Pairs::Rows,
            true if channels < FEW => Pairs::Covered,
            true => Pairs::There(Taps::there(sweep)),
            false => Pairs::Back(Taps::there(sweep)),
        })
    }

    /// All results for pictures `x`; `residual` is empty or of the same shape. What goes into an activation that is more than
    /// bounds is left in `before`, if that is not empty.
    #[expect(clippy::too_many_arguments, reason = "the operands of a layer")]
    fn compute(
        &self,
        workers: &Workers,
        [weight, bias]: Pair<'_>,
        map: Option<&Map>,
        x: &[f32],
        residual: &[f32],
        out: &mut [f32],
        before: &mut [f32],
    ) {
        let (isa, sweep) = (workers.isa(), self.sweep());
        let channels = self.to.channels;
        let bounds = kernels::bounds(self.activation());
        let cut = bounds.unwrap_or(WHOLE);
        match (self.kind, map) {
            (Kind::Convolution { .. }, Some(map)) => {
                let added = if residual.is_empty() { Added::Nothing } else { Added::Matrix(residual) };
                let activation = if bounds.is_some() { self.activation() } else { Activation::None };
                map.apply(workers, x, Finish { bias, added, activation }, out);
            }
            (Kind::Transposed { .. }, Some(map)) => {
                let (inputs, covered, part) = (self.from.channels, sweep.covered(), self.places());
                let mut spread = workers.buffer(part.min(x.len() / inputs) * covered);
                out.fill(0.0);
                for (i, x) in x.chunks(part * inputs).enumerate() {
                    let spread = &mut spread[..x.len() / inputs * covered];
                    map.apply(workers, x, Finish::NOTHING, spread);
                    kernels::add_window_rows(isa, sweep, spread, i * part, out);
                }
                kernels::finish(isa, out, bias, cut);
            }
            (Kind::Depthwise { .. }, _) => kernels::depthwise(isa, sweep, x, weight, bias, cut, 0, out),
            (Kind::Upsample, _) => kernels::upsample(self.from, self.window.size, x, 0, out),
            (Kind::GroupNorm { groups, eps, .. }, _) => {
                let mut stats = workers.buffer(2 * channels);
                for (x, out) in x.chunks_exact(self.len()).zip(out.chunks_exact_mut(self.len())) {
                    kernels::group_norm(isa, x, weight, bias, groups, eps, out, &mut stats);
                }
                return self.activate(workers, out, before);
            }
            (Kind::Activate(activation), _) => return kernels::activate(isa, activation, x, out),
            (Kind::MaxPool, _) => kernels::max_pool(isa, sweep, x, 0, out),
            (Kind::MeanPool, _) => kernels::mean_pool(isa, sweep, x, 0, out),
            (Kind::Convolution { .. } | Kind::Transposed { .. }, None) => {}
        }
        if bounds.is_none() {
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

/// A layer's weight, arranged for products, and what it is applied to.
struct Map {
    kernel: Kernel<Buffer>,
    sweep: Sweep,
    windows: Option<Windows>,
}

impl Map {
    /// `finish(w·x)`, on this thread.
    fn apply(&self, workers: &Workers, x: &[f32], finish: Finish<'_>, out: &mut [f32]) {
        self.kernel.apply(workers, (self.sweep, self.windows.as_ref()), x, finish, false, out);
    }
}
