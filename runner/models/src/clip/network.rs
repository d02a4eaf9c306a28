//! The network, written once over a backend: both towers, their projections and the logit scale.
//!
//! Follows `modeling_clip.py` of transformers: layer norm before the blocks, after positions are added (its name there,
//! `pre_layrnorm`, is a typing error that checkpoints keep); no bias in the patch convolution or the projections; the
//! class token through the last layer norm; causal text, read where [`Pooling`] says. Embeddings are not normalised.

use runner_nn::{Attention, Backend, Block, Epilogue, LayerNorm, Linear, Patches};

use crate::{
    ModelError,
    clip::{Activation, ClipConfig, Pooling, TextConfig, TowerConfig, VisionConfig, VitConfig, resnet::ResNet},
};

/// Values of the widest activation of the images encoded together by a vision transformer.
const IMAGE_VALUES: usize = 8 << 20;

/// Gives the values of a tensor of the checkpoint, by name and shape.
pub(crate) type Values<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError> + 'a;

/// A parameter of the network, and what it is in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// The tensors that it is made of, one after another: name and shape.
    pub(crate) parts: Vec<(String, Vec<usize>)>,
    /// Whether weight decay acts on it: on the matrices of linear maps alone.
    pub(crate) decay: bool,
}

impl Parameter {
    /// Values in it.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    pub(crate) fn is_log_scale(&self) -> bool {
        matches!(self.parts.as_slice(), [(name, _)] if name == "logit_scale")
    }
}

/// Both towers with their parameters on a backend.
pub(crate) struct Network<B: Backend> {
    config: ClipConfig,
    vision: Vision<B>,
    text: Text<B>,
    log_scale: B::Param,
}

/// The image tower.
pub(super) enum Vision<B: Backend> {
    Vit(Vit<B>),
    ResNet(ResNet<B>),
}

/// A vision transformer.
pub(super) struct Vit<B: Backend> {
    config: VitConfig,
    class: B::Param,
    patches: B::Weight,
    positions: B::Param,
    first_norm: LayerNorm<B>,
    blocks: Vec<Block<B>>,
    last_norm: LayerNorm<B>,
    projection: B::Weight,
}

/// The text tower.
pub(super) struct Text<B: Backend> {
    tower: TowerConfig,
    tokens: B::Param,
    positions: B::Param,
    blocks: Vec<Block<B>>,
    last_norm: LayerNorm<B>,
    projection: B::Weight,
}

/// Texts as the text tower takes them: one after another, without padding.
pub(crate) struct Texts {
    /// The token ids of all texts.
    ids: Vec<u32>,
    /// Tokens of each text.
    lengths: Vec<usize>,
    /// Where each text's features are read, among all tokens.
    rows: Vec<u32>,
}

impl<B: Backend> Network<B> {
    /// Puts the parameters on the backend, in a fixed order, and says which they are.
    pub(crate) fn new(
        backend: &B,
        config: ClipConfig,
        values: &mut Values<'_>,
    ) -> Result<(Self, Vec<Parameter>), ModelError> {
        let mut make = Maker::new(backend, values);
        let vision = make.vision(&config)?;
        let text = make.text(&config)?;
        let log_scale = make.param("logit_scale", 1, 1, &[])?;
        let parameters = make.made;
        Ok((Self { config, vision, text, log_scale }, parameters))
    }

    pub(crate) fn config(&self) -> &ClipConfig {
        &self.config
    }

    pub(crate) fn log_scale(&self) -> &B::Param {
        &self.log_scale
    }

    /// See [`Vision::images`].
    pub(crate) fn images(&self, backend: &B, pixels: &[f32]) -> Result<B::Tensor, ModelError> {
        self.vision.images(backend, pixels)
    }

    /// See [`Text::texts`].
    pub(crate) fn texts(&self, backend: &B, texts: &Texts) -> Result<B::Tensor, ModelError> {
        self.text.texts(backend, texts)
    }

    /// The towers.
    pub(super) fn split(self) -> (Vision<B>, Text<B>) {
        (self.vision, self.text)
    }
}

impl<B: Backend> Vision<B> {
    /// Embeds pictures: `[n, channels, height, width]` preprocessed pixels to `[n, dim]`.
    pub(super) fn images(&self, backend: &B, pixels: &[f32]) -> Result<B::Tensor, ModelError> {
        match self {
            Self::Vit(tower) => tower.images(backend, pixels),
            Self::ResNet(tower) => tower.images(backend, pixels),
        }
    }

    /// Pictures to embed together, so that memory is bounded.
    pub(super) fn together(&self) -> usize {
        match self {
            Self::Vit(tower) => {
                let VitConfig { tower: TowerConfig { width, hidden, .. }, .. } = tower.config;
                (IMAGE_VALUES / (tower.config.tokens() * hidden.max(3 * width))).clamp(1, 64)
            }
            Self::ResNet(tower) => tower.together(),
        }
    }
}

impl<B: Backend> Text<B> {
    /// Embeds texts: `[n, dim]`.
    pub(super) fn texts(&self, backend: &B, texts: &Texts) -> Result<B::Tensor, ModelError> {
        let Texts { ids, lengths, rows } = texts;
        let x = backend.embed_sequences(&self.tokens, &self.positions, ids, lengths)?;
        let (heads, activation) = (self.tower.heads, activation(&self.tower));
        let x = backend.causal_transformer(&x, lengths, &self.blocks, heads, activation, rows)?;
        let x = backend.layer_norm(&x, &self.last_norm)?;
        Ok(backend.linear(&x, &self.projection, Epilogue::NONE)?)
    }
}

impl<B: Backend> Vit<B> {
    fn images(&self, backend: &B, pixels: &[f32]) -> Result<B::Tensor, ModelError> {
        let config = &self.config;
        let n = pixels.len() / (config.channels * config.image_size * config.image_size);
        let side = config.grid() * config.patch_size;
        let cropped = (side < config.image_size).then(|| crop(pixels, config.image_size, side));
        let patches = Patches { channels: config.channels, height: side, width: side, size: config.patch_size };
        let x = backend.patch_embed(cropped.as_deref().unwrap_or(pixels), patches, &self.patches, None)?;
        let x = backend.add_positions(&x, n, Some(&self.class), &self.positions)?;
        let x = backend.layer_norm(&x, &self.first_norm)?;
        let attention = Attention { tokens: config.tokens(), heads: config.tower.heads, causal: false };
        let class: Vec<u32> = (0..n).map(|i| index(i * config.tokens())).collect::<Result<_, _>>()?;
        let x = backend.transformer_rows(&x, &self.blocks, attention, activation(&config.tower), &class)?;
        let x = backend.layer_norm(&x, &self.last_norm)?;
        Ok(backend.linear(&x, &self.projection, Epilogue::NONE)?)
    }
}

impl TextConfig {
    /// Checks texts and puts them one after another.
    pub(crate) fn join(&self, texts: &[&[u32]]) -> Result<Texts, ModelError> {
        let (mut ids, mut lengths, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            if text.is_empty() || text.len() > self.positions {
                let problem = format!("a text of {} tokens, expected 1 to {}", text.len(), self.positions);
                return Err(ModelError::Input(problem));
            }
            if let Some(id) = text.iter().find(|id| **id as usize >= self.vocab) {
                let problem = format!("token id {id} in a text, the model's vocabulary has {}", self.vocab);
                return Err(ModelError::Input(problem));
            }
            rows.push(index(ids.len() + self.pooling.position(text))?);
            ids.extend_from_slice(text);
            lengths.push(text.len());
        }
        Ok(Texts { ids, lengths, rows })
    }
}

impl Pooling {
    /// The token that a text's features are read at.
    fn position(self, ids: &[u32]) -> usize {
        match self {
            Self::Token(end) => ids.iter().position(|id| *id == end).unwrap_or(0),
            Self::LargestId => {
                let largest = ids.iter().max();
                ids.iter().position(|id| Some(id) == largest).unwrap_or(0)
            }
        }
    }
}

pub(super) fn index(row: usize) -> Result<u32, ModelError> {
    u32::try_from(row).map_err(|_| ModelError::Input(format!("{row} rows at once, too many")))
}

fn activation(tower: &TowerConfig) -> runner_nn::Activation {
    match tower.activation {
        Activation::Gelu => runner_nn::Activation::Gelu,
        Activation::QuickGelu => runner_nn::Activation::QuickGelu,
    }
}

/// The first `side` rows and columns of square planes of `size`: what whole patches cover.
fn crop(pixels: &[f32], size: usize, side: usize) -> Vec<f32> {
    let rows = pixels.chunks_exact(size).enumerate().filter(|(row, _)| row % size < side);
    rows.flat_map(|(_, row)| &row[..side]).copied().collect()
}

/// Makes parameters on a backend from a checkpoint's tensors, and notes which.
pub(super) struct Maker<'a, 'v, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) values: &'a mut Values<'v>,
    made: Vec<Parameter>,
}

impl<'a, 'v, B: Backend> Maker<'a, 'v, B> {
    pub(super) fn new(backend: &'a B, values: &'a mut Values<'v>) -> Self {
        Self { backend, values, made: Vec::new() }
    }

    pub(super) fn vision(&mut self, config: &ClipConfig) -> Result<Vision<B>, ModelError> {
        match &config.vision {
            VisionConfig::Vit(vit) => self.vit(vit, config.dim).map(Vision::Vit),
            VisionConfig::ResNet(resnet) => ResNet::new(self, resnet, config.dim).map(Vision::ResNet),
        }
    }

    fn take(&mut self, decay: bool, parts: Vec<(String, Vec<usize>)>) -> Result<Vec<f32>, ModelError> {
        let mut values = match parts.as_slice() {
            [_] => Vec::new(),
            parts => Vec::with_capacity(parts.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()),
        };
        for (name, shape) in &parts {
            let mut own = (self.values)(name, shape)?;
            if values.capacity() == 0 {
                values = own;
            } else {
                values.append(&mut own);
            }
        }
        self.made.push(Parameter { parts, decay });
        Ok(values)
    }

    fn param(&mut self, name: &str, rows: usize, width: usize, shape: &[usize]) -> Result<B::Param, ModelError> {
        let values = self.take(false, vec![(name.to_owned(), shape.to_vec())])?;
        Ok(self.backend.param(name, rows, width, values)?)
    }

    /// A matrix of a linear map; `shape` where the checkpoint has more dimensions than two.
    fn weight(&mut self, name: &str, outputs: usize, inputs: usize, shape: &[usize]) -> Result<B::Weight, ModelError> {
        let values = self.take(true, vec![(name.to_owned(), shape.to_vec())])?;
        Ok(self.backend.weight(name, outputs, inputs, values)?)
    }

    pub(super) fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Linear<B>, ModelError> {
        let weight = self.weight(&format!("{name}.weight"), outputs, inputs, &[outputs, inputs])?;
        let bias = self.param(&format!("{name}.bias"), 1, outputs, &[outputs])?;
        Ok(Linear { weight, bias: Some(bias) })
    }

    /// The query, key and value projections of a block as one map.
    pub(super) fn qkv(&mut self, name: &str, width: usize) -> Result<Linear<B>, ModelError> {
        let parts = |kind: &str, shape: &[usize]| {
            ["q_proj", "k_proj", "v_proj"].map(|part| (format!("{name}.{part}.{kind}"), shape.to_vec())).to_vec()
        };
        let values = self.take(true, parts("weight", &[width, width]))?;
        let weight = self.backend.weight(&format!("{name}.qkv.weight"), 3 * width, width, values)?;
        let values = self.take(false, parts("bias", &[width]))?;
        let bias = self.backend.param(&format!("{name}.qkv.bias"), 1, 3 * width, values)?;
        Ok(Linear { weight, bias: Some(bias) })
    }

    fn norm(&mut self, name: &str, tower: &TowerConfig) -> Result<LayerNorm<B>, ModelError> {
        let gain = self.param(&format!("{name}.weight"), 1, tower.width, &[tower.width])?;
        let bias = self.param(&format!("{name}.bias"), 1, tower.width, &[tower.width])?;
        Ok(LayerNorm { gain, bias, eps: tower.eps })
    }

    fn blocks(&mut self, model: &str, tower: &TowerConfig) -> Result<Vec<Block<B>>, ModelError> {
        let block = |i| {
            let name = format!("{model}.encoder.layers.{i}");
            Ok(Block {
                norm1: self.norm(&format!("{name}.layer_norm1"), tower)?,
                qkv: self.qkv(&format!("{name}.self_attn"), tower.width)?,
                out: self.linear(&format!("{name}.self_attn.out_proj"), tower.width, tower.width)?,
                norm2: self.norm(&format!("{name}.layer_norm2"), tower)?,
                up: self.linear(&format!("{name}.mlp.fc1"), tower.hidden, tower.width)?,
                down: self.linear(&format!("{name}.mlp.fc2"), tower.width, tower.hidden)?,
            })
        };
        (0..tower.layers).map(block).collect()
    }

    fn vit(&mut self, config: &VitConfig, dim: usize) -> Result<Vit<B>, ModelError> {
        let (tower, width, size) = (&config.tower, config.tower.width, config.patch_size);
        let (tokens, patch) = (config.tokens(), config.channels * size * size);
        let shape = [width, config.channels, size, size];
        Ok(Vit {
            config: *config,
            class: self.param("vision_model.embeddings.class_embedding", 1, width, &[width])?,
            patches: self.weight("vision_model.embeddings.patch_embedding.weight", width, patch, &shape)?,
            positions: self.table("vision_model.embeddings.position_embedding.weight", tokens, width)?,
            first_norm: self.norm("vision_model.pre_layrnorm", tower)?,
            blocks: self.blocks("vision_model", tower)?,
            last_norm: self.norm("vision_model.post_layernorm", tower)?,
            projection: self.weight("visual_projection.weight", dim, width, &[dim, width])?,
        })
    }

    pub(super) fn text(&mut self, config: &ClipConfig) -> Result<Text<B>, ModelError> {
        let (dim, config) = (config.dim, &config.text);
        let (tower, width) = (&config.tower, config.tower.width);
        Ok(Text {
            tower: *tower,
            tokens: self.table("text_model.embeddings.token_embedding.weight", config.vocab, width)?,
            positions: self.table("text_model.embeddings.position_embedding.weight", config.positions, width)?,
            blocks: self.blocks("text_model", tower)?,
            last_norm: self.norm("text_model.final_layer_norm", tower)?,
            projection: self.weight("text_projection.weight", dim, width, &[dim, width])?,
        })
    }

    pub(super) fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<B::Param, ModelError> {
        self.param(name, rows, width, &[rows, width])
    }
}
