//! EfficientNet-Lite 0 to 4 (Tan and Le 2019, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6), with the names
//! of the package `efficientnet-lite-pytorch`.

use runner_nn::{Activation, Window};
use serde_json::{Map, Value, json};

use crate::{
    ModelError,
    blueprint::{Blueprint, Convolution, Names},
    fields::Fields,
};

/// An EfficientNet-Lite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EfficientNetLiteConfig {
    /// Channels of the stem.
    pub stem: usize,
    /// Channels of each stage.
    pub channels: [usize; 7],
    /// Blocks of each stage.
    pub layers: [usize; 7],
    /// Channels of the last convolution.
    pub head: usize,
}

/// Side of the window and stride of each stage's depthwise convolutions.
const STAGES: [(usize, usize); 7] = [(3, 1), (3, 2), (5, 2), (3, 2), (5, 1), (5, 2), (3, 1)];
/// How much a block of all stages but the first widens its input.
const EXPANSION: usize = 6;
/// Added to variances, as in TensorFlow's model.
const EPS: f32 = 1e-3;

impl EfficientNetLiteConfig {
    /// The smallest.
    pub const LITE0: Self =
        Self { stem: 32, channels: [16, 24, 40, 80, 112, 192, 320], layers: [1, 2, 2, 3, 3, 4, 1], head: 1280 };

    /// What a checkpoint's tensors are, by their names and shapes; `None` if they are no EfficientNet-Lite.
    ///
    /// A stage begins where a block's result has another number of channels than what it reads.
    pub(crate) fn derive(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let outputs = |name: &str| shape(name)?.first().copied().filter(|outputs| *outputs > 0);
        let (stem, head) = (outputs("_conv_stem.weight")?, outputs("_conv_head.weight")?);
        shape("_fc.weight")?;
        let (mut channels, mut layers) = (Vec::new(), Vec::<usize>::new());
        for block in 0..1024 {
            let Some(made) = outputs(&format!("_blocks.{block}._project_conv.weight")) else { break };
            if channels.last() == Some(&made) {
                *layers.last_mut()? += 1;
            } else {
                channels.push(made);
                layers.push(1);
            }
        }
        Some(Self { stem, channels: channels.try_into().ok()?, layers: layers.try_into().ok()?, head })
    }

    /// The side of the pictures that the published model of this size takes.
    pub fn image_size(&self) -> usize {
        match (self.layers.iter().sum::<usize>(), self.channels[6]) {
            (..=16, _) => 224,
            (..=21, ..=320) => 240,
            (..=21, _) => 260,
            (..=24, _) => 280,
            _ => 300,
        }
    }

    /// Reads what [`EfficientNetLiteConfig::write`] wrote; the smallest where nothing is said.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, ModelError> {
        Ok(Self {
            stem: fields.number("stem", Self::LITE0.stem, 1..=4_096)?,
            channels: fields.numbers("channels", Self::LITE0.channels, 1..=4_096)?,
            layers: fields.numbers("layers", Self::LITE0.layers, 1..=1_024)?,
            head: fields.number("head", Self::LITE0.head, 1..=65_536)?,
        })
    }

    pub(crate) fn write(&self, map: &mut Map<String, Value>) {
        map.insert("stem".into(), self.stem.into());
        map.insert("channels".into(), json!(self.channels));
        map.insert("layers".into(), json!(self.layers));
        map.insert("head".into(), self.head.into());
    }

    pub(crate) fn blueprint(&self, side: usize) -> Result<Blueprint, ModelError> {
        let mut net = Blueprint::new(side, EPS);
        net.convolution(0, layer("_conv_stem", "_bn0", Window::same(3, 2, side), self.stem))?;
        let mut number = 0;
        for ((size, stride), (channels, blocks)) in STAGES.into_iter().zip(self.channels.into_iter().zip(self.layers)) {
            for block in 0..blocks {
                let stride = if block == 0 { stride } else { 1 };
                self.block(&mut net, number, (size, stride), channels)?;
                number += 1;
            }
        }
        net.convolution(net.last(), layer("_conv_head", "_bn1", Window::PIXEL, self.head))?;
        Ok(net)
    }

    /// An inverted bottleneck: widened, each channel convolved alone, narrowed; added to what came in where that fits.
    fn block(
        &self,
        net: &mut Blueprint,
        number: usize,
        (size, stride): (usize, usize),
        outputs: usize,
    ) -> Result<(), ModelError> {
        let (input, name) = (net.last(), format!("_blocks.{number}"));
        let from = net.size(input);
        // The first block does not widen.
        if number > 0 {
            let (weight, norm) = (format!("{name}._expand_conv"), format!("{name}._bn0"));
            net.convolution(input, layer(&weight, &norm, Window::PIXEL, EXPANSION * from.channels))?;
        }
        let names = Names { weight: format!("{name}._depthwise_conv"), norm: format!("{name}._bn1") };
        net.depthwise(names, Window::same(size, stride, from.height), Activation::Relu6)?;
        let (weight, norm) = (format!("{name}._project_conv"), format!("{name}._bn2"));
        let narrow = layer(&weight, &norm, Window::PIXEL, outputs);
        let residual = (stride == 1 && from.channels == outputs).then_some(input);
        net.convolution(net.last(), Convolution { residual, activation: Activation::None, ..narrow })?;
        Ok(())
    }
}

fn layer(weight: &str, norm: &str, window: Window, outputs: usize) -> Convolution {
    let names = Names { weight: weight.to_owned(), norm: norm.to_owned() };
    Convolution { names, window, outputs, residual: None, activation: Activation::Relu6 }
}
