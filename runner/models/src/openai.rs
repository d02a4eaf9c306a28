//! A CLIP model's architecture from the shapes of its tensors, as `build_model` of OpenAI's code finds it.

use crate::{
    ModelError,
    clip::{Activation, ClipConfig, ModifiedResNetConfig, Pooling, TextConfig, TowerConfig, VisionConfig, VitConfig},
    names::Names,
    open_clip::{EPS, LOG_SCALE},
    weights::Weights,
};

/// Components of an attention head in all of OpenAI's models.
const HEAD: usize = 64;
/// How many times larger a modified ResNet's input is than its last feature map.
const RESNET_STRIDE: usize = 32;

/// The largest pictures, in pixels a side.
const MAX_SIDE: usize = 8_192;

/// The architecture of tensors with OpenAI's names. What shapes do not say is as in OpenAI's models: heads of 64 components, text read
/// at the largest id; the activation is given.
pub(crate) fn derive(weights: &Weights, activation: Activation) -> Result<ClipConfig, ModelError> {
    let Names::OpenAi { text } = weights.names() else {
        return Err(ModelError::file(
            weights.name(),
            "expected a CLIP model with OpenAI's names, `visual.conv1.weight` and others",
        ));
    };
    let shapes = Shapes { weights };
    let vision = if weights.shape("visual.proj").is_some() {
        VisionConfig::Vit(vit(&shapes, activation)?)
    } else {
        VisionConfig::ResNet(resnet(&shapes)?)
    };
    if vision.image_size() > MAX_SIDE {
        let problem = format!("pictures of {} pixels a side, expected at most {MAX_SIDE}", vision.image_size());
        return Err(ModelError::file(weights.name(), problem));
    }
    let [vocab, width] = shapes.sizes(&format!("{text}token_embedding.weight"))?;
    let [positions, _] = shapes.sizes(&format!("{text}positional_embedding"))?;
    let [_, dim] = shapes.sizes(&format!("{text}text_projection"))?;
    let tower = shapes.tower(&format!("{text}transformer.resblocks."), width, activation)?;
    let text = TextConfig { tower, vocab, positions, pooling: Pooling::LargestId };
    Ok(ClipConfig { text, vision, dim, logit_scale_init: LOG_SCALE })
}

fn vit(shapes: &Shapes<'_>, activation: Activation) -> Result<VitConfig, ModelError> {
    let [width, channels, patch_size, _] = shapes.sizes("visual.conv1.weight")?;
    let [tokens, _] = shapes.sizes("visual.positional_embedding")?;
    let image_size = shapes.square("visual.positional_embedding", tokens)? * patch_size;
    let tower = shapes.tower("visual.transformer.resblocks.", width, activation)?;
    Ok(VitConfig { tower, image_size, patch_size, channels })
}

fn resnet(shapes: &Shapes<'_>) -> Result<ModifiedResNetConfig, ModelError> {
    let [width, ..] = shapes.sizes::<4>("visual.layer1.0.conv1.weight")?;
    let [places, _] = shapes.sizes("visual.attnpool.positional_embedding")?;
    let image_size = shapes.square("visual.attnpool.positional_embedding", places)? * RESNET_STRIDE;
    let layers = [1, 2, 3, 4].map(|stage| shapes.count(|block| format!("visual.layer{stage}.{block}.conv1.weight")));
    let heads = RESNET_STRIDE * width / HEAD;
    if layers.contains(&0) || heads == 0 || !width.is_multiple_of(2) {
        return Err(
            shapes.bad("visual.layer1.0.conv1.weight", "expected four stages of blocks of an even number of channels")
        );
    }
    Ok(ModifiedResNetConfig { layers, width, heads, image_size })
}

/// The shapes of a checkpoint's tensors.
struct Shapes<'a> {
    weights: &'a Weights,
}

impl Shapes<'_> {
    fn bad(&self, tensor: &str, problem: impl Into<String>) -> ModelError {
        ModelError::tensor(self.weights.name(), tensor, problem)
    }

    /// A tensor's dimensions: so many, of sizes that models have.
    fn sizes<const N: usize>(&self, tensor: &str) -> Result<[usize; N], ModelError> {
        let shape = self
            .weights
            .shape(tensor)
            .ok_or_else(|| self.bad(tensor, "missing, and it says how large the model is"))?;
        let sizes =
            <[usize; N]>::try_from(shape).ok().filter(|sizes| sizes.iter().all(|size| (1..=4_000_000).contains(size)));
        sizes.ok_or_else(|| self.bad(tensor, format!("expected {N} dimensions of at least 1, found shape {shape:?}")))
    }

    /// The side of a square of places, before which one more stands.
    fn square(&self, tensor: &str, places: usize) -> Result<usize, ModelError> {
        let side = (places - 1).isqrt();
        if side == 0 || side > 1_024 || side * side + 1 != places {
            return Err(self.bad(tensor, format!("expected a square and 1 as the number of positions, found {places}")));
        }
        Ok(side)
    }

    /// How many there are, counted from 0.
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..1_024).take_while(|i| self.weights.shape(&name(*i)).is_some()).count()
    }

    fn tower(&self, prefix: &str, width: usize, activation: Activation) -> Result<TowerConfig, ModelError> {
        let first = format!("{prefix}0.mlp.c_fc.weight");
        let [hidden, inputs] = self.sizes(&first)?;
        if inputs != width || !width.is_multiple_of(HEAD) || width > 65_536 || hidden > 262_144 {
            let expected = format!("expected {width} columns, a multiple of {HEAD}, found shape [{hidden}, {inputs}]");
            return Err(self.bad(&first, expected));
        }
        let layers = self.count(|i| format!("{prefix}{i}.mlp.c_fc.weight"));
        Ok(TowerConfig { width, layers, heads: width / HEAD, hidden, activation, eps: EPS })
    }
}
