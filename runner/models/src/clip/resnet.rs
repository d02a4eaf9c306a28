//! CLIP's modified ResNets (section 2.4 of the paper): `RN50` to `RN50x64`.
//!
//! As `ModifiedResNet` of OpenAI's code: a stem of three convolutions, strides replaced by mean pooling, and at the end
//! attention whose query is the mean of all places. Tensors have OpenAI's names, `visual.…`.

use runner_nn::{Activation, Attention, Backend, Linear, Window};

use super::network::{Maker, index};
use crate::{
    ModelError,
    blueprint::{self, Blueprint, Convolution, Names},
};

/// A modified ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModifiedResNetConfig {
    /// Blocks of each of the four stages.
    pub layers: [usize; 4],
    /// Channels of the stem; 32 times as many come out.
    pub width: usize,
    /// Heads of the attention at the end; they divide 32 · width.
    pub heads: usize,
    /// Height and width of the input in pixels.
    pub image_size: usize,
}

/// Added to variances, as in PyTorch.
const EPS: f32 = 1e-5;

impl ModifiedResNetConfig {
    /// Channels of the last stage.
    pub fn features(&self) -> usize {
        32 * self.width
    }

    /// The convolutions.
    pub(crate) fn blueprint(&self) -> Result<Blueprint, ModelError> {
        let mut net = Blueprint::new(self.image_size, EPS);
        let stem = [(1, self.width / 2, 2), (2, self.width / 2, 1), (3, self.width, 1)];
        for (i, outputs, stride) in stem {
            let names = Names { weight: format!("visual.conv{i}"), norm: format!("visual.bn{i}") };
            let window = Window::new(3, stride, 1);
            net.convolution(net.last(), follow(names, window, outputs))?;
        }
        net.mean_pool(net.last(), Window::new(2, 2, 0))?;
        for (stage, blocks) in (1..).zip(self.layers) {
            for block in 0..blocks {
                let stride = if stage > 1 && block == 0 { 2 } else { 1 };
                bottleneck(&mut net, &format!("visual.layer{stage}.{block}"), self.width << (stage - 1), stride)?;
            }
        }
        Ok(net)
    }

    /// Floating-point operations to embed a picture as `dim` numbers, see [`super::ClipConfig::image_flops`].
    pub(crate) fn flops(&self, dim: usize) -> u64 {
        let Ok(net) = self.blueprint() else { return 0 };
        let (tokens, width) = (net.size(net.last()).pixels() as u64 + 1, self.features() as u64);
        net.flops() + 2 * (tokens * 3 * width * width + 2 * tokens * tokens * width + width * dim as u64)
    }
}

fn follow(names: Names, window: Window, outputs: usize) -> Convolution {
    Convolution { names, window, outputs, residual: None, activation: Activation::Relu }
}

/// A block: 1 × 1, 3 × 3, pooled, 1 × 1 to four times as many channels, added to what came in.
fn bottleneck(net: &mut Blueprint, name: &str, width: usize, stride: usize) -> Result<(), ModelError> {
    let input = net.last();
    let names = |i: usize| Names { weight: format!("{name}.conv{i}"), norm: format!("{name}.bn{i}") };
    let shrink = Window::new(stride, stride, 0);
    let mut shortcut = input;
    if stride > 1 || net.size(input).channels != 4 * width {
        if stride > 1 {
            shortcut = net.mean_pool(input, shrink)?;
        }
        let names = Names { weight: format!("{name}.downsample.0"), norm: format!("{name}.downsample.1") };
        let layer = Convolution { activation: Activation::None, ..follow(names, Window::PIXEL, 4 * width) };
        shortcut = net.convolution(shortcut, layer)?;
    }
    net.convolution(input, follow(names(1), Window::PIXEL, width))?;
    net.convolution(net.last(), follow(names(2), Window::new(3, 1, 1), width))?;
    if stride > 1 {
        net.mean_pool(net.last(), shrink)?;
    }
    let layer = Convolution { residual: Some(shortcut), ..follow(names(3), Window::PIXEL, 4 * width) };
    net.convolution(net.last(), layer)?;
    Ok(())
}

/// The tower with its parameters on a backend.
pub(super) struct ResNet<B: Backend> {
    convolutions: blueprint::Network<B>,
    /// `[places + 1, features]`, the mean first.
    positions: B::Param,
    qkv: Linear<B>,
    out: Linear<B>,
    heads: usize,
}

impl<B: Backend> ResNet<B> {
    pub(super) fn new(
        make: &mut Maker<'_, '_, B>,
        config: &ModifiedResNetConfig,
        dim: usize,
    ) -> Result<Self, ModelError> {
        let convolutions = config.blueprint()?.load(make.backend, make.values)?;
        let (features, tokens) = (config.features(), convolutions.size().pixels() + 1);
        Ok(Self {
            convolutions,
            positions: make.table("visual.attnpool.positional_embedding", tokens, features)?,
            qkv: make.qkv("visual.attnpool", features)?,
            out: make.linear("visual.attnpool.c_proj", dim, features)?,
            heads: config.heads,
        })
    }

    pub(super) fn together(&self) -> usize {
        self.convolutions.together()
    }

    pub(super) fn images(&self, backend: &B, pixels: &[f32]) -> Result<B::Tensor, ModelError> {
        let x = self.convolutions.run(backend, pixels)?;
        let places = self.convolutions.size().pixels();
        let (n, tokens) = (backend.shape(&x).0 / places.max(1), places + 1);
        let x = backend.add_positions(&backend.prepend_mean(&x, n)?, n, None, &self.positions)?;
        let means: Vec<u32> = (0..n).map(|i| index(i * tokens)).collect::<Result<_, _>>()?;
        let attention = Attention { tokens, heads: self.heads, causal: false };
        Ok(self.out.apply(backend, &backend.attention_rows(&x, &self.qkv, attention, &means)?)?)
    }
}
