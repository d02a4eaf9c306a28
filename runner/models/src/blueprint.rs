//! Convolutional networks before they have weights: what reads what, and which tensors of a checkpoint belong where.

use runner_nn::{Activation, Backend, Layer, Operation, Size, Window, channels_last};

use crate::{ModelError, clip::Values};

/// Values of the widest layers of the pictures computed together, which bounds memory.
const TOGETHER: usize = 8 << 20;

/// A network's layers, in order.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    /// Added to the variances of batch normalisation.
    eps: f32,
    layers: Vec<Plan>,
    /// The size of the pictures, and that of each layer's result.
    sizes: Vec<Size>,
}

/// One layer.
#[derive(Clone, Debug)]
struct Plan {
    /// Whose result it reads: 0 is the picture, i the i-th layer.
    input: usize,
    window: Window,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Convolution { names: Names, residual: Option<usize>, activation: Activation },
    Depthwise { names: Names, activation: Activation },
    MaxPool,
    MeanPool,
}

/// The modules of a checkpoint that make a convolution: its weight and the batch normalisation behind it.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) weight: String,
    pub(crate) norm: String,
}

/// A convolution to add to a [`Blueprint`].
pub(crate) struct Convolution {
    pub(crate) names: Names,
    pub(crate) window: Window,
    /// Channels that come out.
    pub(crate) outputs: usize,
    /// Whose result is added before the activation.
    pub(crate) residual: Option<usize>,
    pub(crate) activation: Activation,
}

/// A network with its weights on a backend.
pub(crate) struct Network<B: Backend> {
    layers: Vec<Layer<B>>,
    from: Size,
    to: Size,
    /// Pictures computed together.
    together: usize,
}

impl Blueprint {
    /// A network without layers, for square pictures of three channels.
    pub(crate) fn new(side: usize, eps: f32) -> Self {
        Self { eps, layers: Vec::new(), sizes: vec![Size { height: side, width: side, channels: 3 }] }
    }

    /// The number of the last layer: what the next one reads if it follows on.
    pub(crate) fn last(&self) -> usize {
        self.layers.len()
    }

    /// What a layer gives.
    pub(crate) fn size(&self, layer: usize) -> Size {
        self.sizes[layer]
    }

    /// Adds a convolution and gives its number.
    pub(crate) fn convolution(&mut self, input: usize, layer: Convolution) -> Result<usize, ModelError> {
        let Convolution { names, window, outputs, residual, activation } = layer;
        self.add(input, window, outputs, Kind::Convolution { names, residual, activation })
    }

    /// Adds a convolution of each channel alone, after the last layer.
    pub(crate) fn depthwise(
        &mut self,
        names: Names,
        window: Window,
        activation: Activation,
    ) -> Result<usize, ModelError> {
        let input = self.last();
        self.add(input, window, self.size(input).channels, Kind::Depthwise { names, activation })
    }

    /// Adds a pooling by the largest value.
    pub(crate) fn max_pool(&mut self, window: Window) -> Result<usize, ModelError> {
        let input = self.last();
        self.add(input, window, self.size(input).channels, Kind::MaxPool)
    }

    /// Adds a pooling by the mean.
    pub(crate) fn mean_pool(&mut self, input: usize, window: Window) -> Result<usize, ModelError> {
        self.add(input, window, self.size(input).channels, Kind::MeanPool)
    }

    fn add(&mut self, input: usize, window: Window, outputs: usize, kind: Kind) -> Result<usize, ModelError> {
        let from = self.size(input);
        let places = window.places(from.height).zip(window.places(from.width)).ok_or_else(|| {
            let side = self.sizes[0].height;
            ModelError::Input(format!("pictures of {side} × {side} pixels are too small for this network"))
        })?;
        self.sizes.push(Size { height: places.0, width: places.1, channels: outputs });
        self.layers.push(Plan { input, window, kind });
        Ok(self.last())
    }

    /// Floating-point operations for a picture, those of convolutions, a multiplication and an addition being two.
    pub(crate) fn flops(&self) -> u64 {
        let each = self.layers.iter().zip(&self.sizes[1..]).map(|(layer, to)| {
            let area = (layer.window.size * layer.window.size) as u64;
            let inputs = match layer.kind {
                Kind::Convolution { .. } => self.size(layer.input).channels as u64,
                Kind::Depthwise { .. } => 1,
                Kind::MaxPool | Kind::MeanPool => 0,
            };
            2 * to.pixels() as u64 * to.channels as u64 * area * inputs
        });
        each.sum()
    }

    /// Takes the weights from a checkpoint; batch normalisation goes into the convolution before it.
    pub(crate) fn load<B: Backend>(&self, backend: &B, values: &mut Values<'_>) -> Result<Network<B>, ModelError> {
        let mut layers = Vec::with_capacity(self.layers.len());
        for (plan, to) in self.layers.iter().zip(&self.sizes[1..]) {
            let (area, channels) = (plan.window.size * plan.window.size, self.size(plan.input).channels);
            let operation = match &plan.kind {
                Kind::Convolution { names, residual, activation } => {
                    let shape = [to.channels, channels, plan.window.size, plan.window.size];
                    let (weight, bias) = self.folded(values, names, shape)?;
                    let weight = channels_last(&weight, channels, area);
                    Operation::Convolution {
                        weight: backend.kernel(&names.weight, plan.window, to.channels, channels, weight)?,
                        bias: backend.param(&names.norm, 1, to.channels, bias)?,
                        residual: *residual,
                        activation: *activation,
                    }
                }
                Kind::Depthwise { names, activation } => {
                    let shape = [channels, 1, plan.window.size, plan.window.size];
                    let (weight, bias) = self.folded(values, names, shape)?;
                    Operation::Depthwise {
                        weight: backend.param(&names.weight, area, channels, channels_last(&weight, channels, area))?,
                        bias: backend.param(&names.norm, 1, channels, bias)?,
                        activation: *activation,
                    }
                }
                Kind::MaxPool => Operation::MaxPool,
                Kind::MeanPool => Operation::MeanPool,
            };
            layers.push(Layer { input: plan.input, window: plan.window, operation });
        }
        Ok(Network { layers, from: self.sizes[0], to: self.size(self.last()), together: self.together() })
    }

    /// Pictures whose widest layers, with what they read, stay within bounds.
    fn together(&self) -> usize {
        let values = |size: &Size| size.pixels() * size.channels;
        let widest = self.sizes.iter().map(values).max().unwrap_or(1).max(1);
        (TOGETHER / widest).clamp(1, 64)
    }

    /// A convolution's weight and bias: `s·w` and `bias − s·mean` with `s = gain/√(variance + eps)`, of each output.
    fn folded(
        &self,
        values: &mut Values<'_>,
        names: &Names,
        shape: [usize; 4],
    ) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let outputs = shape[0];
        let mut weight = values(&format!("{}.weight", names.weight), &shape)?;
        let mut of_norm = |kind: &str| values(&format!("{}.{kind}", names.norm), &[outputs]);
        let [gain, mut bias] = [of_norm("weight")?, of_norm("bias")?];
        let [mean, variance] = [of_norm("running_mean")?, of_norm("running_var")?];
        let each = weight.chunks_exact_mut(shape[1..].iter().product()).zip(&mut bias);
        for ((weight, bias), ((gain, mean), variance)) in each.zip(gain.iter().zip(&mean).zip(&variance)) {
            let deviation = (f64::from(*variance) + f64::from(self.eps)).sqrt();
            let scale = f64::from(*gain) / deviation;
            if !scale.is_finite() {
                let problem = format!("{}.running_var: {variance}, expected numbers from 0", names.norm);
                return Err(ModelError::Input(problem));
            }
            *bias = (f64::from(*bias) - scale * f64::from(*mean)) as f32;
            weight.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
        }
        Ok((weight, bias))
    }
}

impl<B: Backend> Network<B> {
    /// Pictures to compute together.
    pub(crate) fn together(&self) -> usize {
        self.together
    }

    /// `[n, 3, side, side]` pixels to `[n · size.pixels(), size.channels]`.
    pub(crate) fn run(&self, backend: &B, pixels: &[f32]) -> Result<B::Tensor, ModelError> {
        let pixels = channels_last(pixels, self.from.channels, self.from.pixels());
        let x = backend.tensor(pixels.len() / self.from.channels, self.from.channels, pixels)?;
        Ok(backend.convolutions(&x, self.from, &self.layers)?)
    }

    /// What comes out.
    pub(crate) fn size(&self) -> Size {
        self.to
    }
}
