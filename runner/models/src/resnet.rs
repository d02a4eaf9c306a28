//! Supervised ResNets (He et al. 2015, arXiv 1512.03385) with torchvision's names: 18 to 152, and the wide ones.

use runner_nn::{Activation, Window};
use serde_json::{Map, Value, json};

use crate::{
    ModelError,
    blueprint::{Blueprint, Convolution, Names},
    fields::Fields,
};

/// A ResNet of torchvision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNetConfig {
    /// What a block is.
    pub block: ResNetBlock,
    /// Blocks of each of the four stages.
    pub layers: [usize; 4],
    /// Channels of the stem, 64 in all published ones.
    pub width: usize,
    /// Channels inside the first stage's blocks: as many as the stem's, or twice as many in the wide ones.
    pub inner: usize,
}

/// The blocks of a [`ResNetConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResNetBlock {
    /// Two 3 × 3 convolutions: ResNet-18 and 34.
    Basic,
    /// 1 × 1, 3 × 3 (which has the stride), 1 × 1 to four times as many channels: ResNet-50 and more.
    Bottleneck,
}

/// Added to variances, as in PyTorch.
const EPS: f32 = 1e-5;

impl ResNetConfig {
    /// What a checkpoint's tensors are, by their names and shapes; `None` if they are no ResNet.
    pub(crate) fn derive(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let outputs = |name: &str| shape(name)?.first().copied();
        let blocks =
            |stage: usize| (0..1024).take_while(|i| shape(&format!("layer{stage}.{i}.conv1.weight")).is_some()).count();
        shape("fc.weight")?;
        let bottleneck = shape("layer1.0.conv3.weight").is_some();
        Some(Self {
            block: if bottleneck { ResNetBlock::Bottleneck } else { ResNetBlock::Basic },
            layers: [1, 2, 3, 4].map(blocks),
            width: outputs("conv1.weight")?,
            inner: outputs("layer1.0.conv1.weight")?,
        })
        .filter(|config| config.layers.iter().all(|blocks| *blocks > 0) && config.width > 0 && config.inner > 0)
    }

    /// Reads what [`ResNetConfig::write`] wrote; ResNet-50 where nothing is said.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, ModelError> {
        let width = fields.number("width", 64, 1..=4_096)?;
        Ok(Self {
            block: match fields.word("block", "bottleneck", &["basic", "bottleneck"])? {
                "basic" => ResNetBlock::Basic,
                _ => ResNetBlock::Bottleneck,
            },
            layers: fields.numbers("layers", [3, 4, 6, 3], 1..=1_024)?,
            width,
            inner: fields.number("inner_width", width, 1..=4_096)?,
        })
    }

    pub(crate) fn write(&self, map: &mut Map<String, Value>) {
        let block = if self.block == ResNetBlock::Basic { "basic" } else { "bottleneck" };
        map.insert("block".into(), block.into());
        map.insert("layers".into(), json!(self.layers));
        map.insert("width".into(), self.width.into());
        map.insert("inner_width".into(), self.inner.into());
    }

    /// Channels of the last stage.
    pub(crate) fn features(&self) -> usize {
        8 * self.width * if self.block == ResNetBlock::Basic { 1 } else { 4 }
    }

    pub(crate) fn blueprint(&self, side: usize) -> Result<Blueprint, ModelError> {
        let mut net = Blueprint::new(side, EPS);
        let names = Names { weight: "conv1".into(), norm: "bn1".into() };
        net.convolution(0, plain(names, Window::new(7, 2, 3), self.width))?;
        net.max_pool(Window::new(3, 2, 1))?;
        for (stage, blocks) in (0..).zip(self.layers) {
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                self.block(&mut net, &format!("layer{}.{block}", stage + 1), stage, stride)?;
            }
        }
        Ok(net)
    }

    fn block(&self, net: &mut Blueprint, name: &str, stage: usize, stride: usize) -> Result<(), ModelError> {
        let input = net.last();
        let names = |i: usize| Names { weight: format!("{name}.conv{i}"), norm: format!("{name}.bn{i}") };
        let (inner, pixel) = (self.inner << stage, Window::PIXEL);
        let outputs = self.features() >> (3 - stage);
        let mut shortcut = input;
        if stride > 1 || net.size(input).channels != outputs {
            let names = Names { weight: format!("{name}.downsample.0"), norm: format!("{name}.downsample.1") };
            let layer = plain(names, Window { stride, ..pixel }, outputs);
            shortcut = net.convolution(input, Convolution { activation: Activation::None, ..layer })?;
        }
        let windows = match self.block {
            ResNetBlock::Basic => vec![(Window::new(3, stride, 1), inner), (Window::new(3, 1, 1), outputs)],
            ResNetBlock::Bottleneck => vec![(pixel, inner), (Window::new(3, stride, 1), inner), (pixel, outputs)],
        };
        let last = windows.len();
        let mut from = input;
        for (i, (window, outputs)) in (1..).zip(windows) {
            let residual = (i == last).then_some(shortcut);
            from = net.convolution(from, Convolution { residual, ..plain(names(i), window, outputs) })?;
        }
        Ok(())
    }
}

fn plain(names: Names, window: Window, outputs: usize) -> Convolution {
    Convolution { names, window, outputs, residual: None, activation: Activation::Relu }
}
