//! The settings of training, and what the trainer makes of them.

use runner_contract::{Problem, StageError};
use runner_data::{ClipTokenizer, Preprocess, train_tokenizer};
use runner_models::{
    Activation, ClipConfig, Pooling, TextConfig, TowerConfig, VisionConfig, VitConfig,
    train::{Augment, TrainOptions, TrainSetup},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::examples::Examples;
use crate::Binding;

/// The smallest vocabulary: every byte inside and at the end of a word, start and end of a text.
const BYTES: usize = 514;

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// What is learned.
    pub(super) objective: Objective,
    /// How often every row is seen.
    #[serde(default = "epochs")]
    pub(super) epochs: u64,
    /// Pairs a step: each is a positive, all others of its row and column are negatives unless they are true too.
    #[serde(default = "batch")]
    pub(super) batch: usize,
    /// The peak learning rate of AdamW; it falls to 0 along half a cosine.
    #[serde(default = "learning_rate")]
    pub(super) learning_rate: f32,
    /// Steps over which the learning rate rises to its peak.
    #[serde(default = "warmup")]
    pub(super) warmup: u64,
    /// Decoupled weight decay.
    #[serde(default = "weight_decay")]
    pub(super) weight_decay: f32,
    /// The largest norm of the gradient.
    #[serde(default = "gradient_clip")]
    pub(super) gradient_clip: f32,
    /// Decides initial weights, order, choice of captions and augmentation.
    #[serde(default)]
    pub(super) seed: u64,
    /// Most tokens of the vocabulary, which is learned from the captions.
    #[serde(default = "vocabulary")]
    pub(super) vocabulary: usize,
    /// Most tokens of a text, start and end included.
    #[serde(default = "context")]
    pub(super) context: usize,
    /// The size of the model.
    #[serde(default)]
    pub(super) architecture: Architecture,
    /// Random changes to pictures.
    #[serde(default)]
    pub(super) augment: Augmentation,
    /// Sentences with `{}` for a class name, for zero-shot validation.
    #[serde(default = "templates")]
    pub(super) templates: Vec<String>,
    /// Steps between validations; left out: once an epoch.
    #[serde(default)]
    pub(super) validate_every: Option<u64>,
    /// Steps between checkpoints, from which a killed run goes on.
    #[serde(default = "checkpoint_every")]
    pub(super) checkpoint_every: u64,
    /// How the finished model's weights are stored.
    #[serde(default)]
    pub(super) precision: Precision,
    /// The column with the pictures.
    #[serde(default = "image")]
    pub(super) image: String,
    /// The column with the captions: one text a row, or several, of which each epoch draws one.
    #[serde(default = "captions")]
    pub(super) captions: String,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Objective {
    /// CLIP's: symmetric cross-entropy over the similarities of all pairs of a batch.
    Contrastive,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Precision {
    /// Half precision: half the bytes, results within about 1e-3.
    #[default]
    F16,
    /// As trained.
    F32,
}

/// The size of a CLIP model.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Architecture {
    /// Height and width of the pictures that the model sees, in pixels.
    pub(super) image_size: usize,
    /// Height and width of a patch; divides the image size.
    pub(super) patch_size: usize,
    /// Components of an embedding.
    pub(super) dim: usize,
    /// The image tower.
    pub(super) image: Tower,
    /// The text tower.
    pub(super) text: Tower,
}

/// The size of a transformer.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tower {
    /// Components of a token.
    pub(super) width: usize,
    /// Blocks.
    pub(super) layers: usize,
    /// Attention heads; they divide the width.
    pub(super) heads: usize,
    /// Components between the two layers of a block's MLP; left out: four times the width.
    #[serde(default)]
    pub(super) hidden: Option<usize>,
}

impl Default for Architecture {
    fn default() -> Self {
        Self {
            image_size: 28,
            patch_size: 7,
            dim: 64,
            // 448 keeps an image below 20 MFLOP.
            image: Tower { width: 128, layers: 3, heads: 4, hidden: Some(448) },
            text: Tower { width: 96, layers: 2, heads: 4, hidden: None },
        }
    }
}

/// How far pictures are changed at random; amounts are drawn between their negative and themselves.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Augmentation {
    /// Rotation, degrees.
    rotate: f64,
    /// Logarithm of the factor on height and on width.
    scale: f64,
    /// Sideways shift of a row by its distance from the middle.
    shear: f64,
    /// Shift, as a fraction of the picture.
    translate: f64,
}

impl Augmentation {
    pub(super) fn into_augment(self) -> Augment {
        let Self { rotate, scale, shear, translate } = self;
        Augment { rotate, scale, shear, translate }
    }
}

fn epochs() -> u64 {
    10
}

fn batch() -> usize {
    256
}

fn learning_rate() -> f32 {
    TrainOptions::default().learning_rate
}

fn warmup() -> u64 {
    TrainOptions::default().warmup
}

fn weight_decay() -> f32 {
    TrainOptions::default().weight_decay
}

fn gradient_clip() -> f32 {
    TrainOptions::default().max_gradient_norm
}

fn vocabulary() -> usize {
    1024
}

fn context() -> usize {
    32
}

fn templates() -> Vec<String> {
    vec!["a photo of a {}.".into()]
}

fn checkpoint_every() -> u64 {
    100
}

fn image() -> String {
    "image".into()
}

fn captions() -> String {
    "captions".into()
}

impl Settings {
    /// Everything that cannot be trained with, by name.
    pub(super) fn check(&self, binding: &mut Binding<'_>) {
        let mut wrong = |name: &str, bad: bool, expected: &str| {
            if bad {
                binding.problem(Problem::setting(name, format!("expected {expected}")));
            }
        };
        wrong("epochs", self.epochs == 0, "at least 1");
        wrong("batch", !(2..=65_536).contains(&self.batch), "2 to 65536 pairs");
        wrong("checkpoint_every", self.checkpoint_every == 0, "at least 1");
        wrong("validate_every", self.validate_every == Some(0), "at least 1");
        wrong("vocabulary", !(BYTES..=1 << 20).contains(&self.vocabulary), "514 (all bytes) to 1048576 tokens");
        wrong("context", !(4..=4096).contains(&self.context), "4 to 4096 tokens");
        let positive = |x: f32| x.is_finite() && x > 0.0;
        wrong("learning_rate", !positive(self.learning_rate), "a number above 0");
        wrong("gradient_clip", !positive(self.gradient_clip), "a number above 0");
        wrong("weight_decay", !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()), "a number from 0 on");
        wrong("templates", self.templates.iter().any(|t| !t.contains("{}")), "a `{}` for the name in every template");
        let Augmentation { rotate, scale, shear, translate } = self.augment;
        let amounts = [rotate, scale, shear, translate];
        wrong("augment", amounts.iter().any(|x| !(x.is_finite() && *x >= 0.0)), "numbers from 0 on");
        let Architecture { image_size, patch_size, dim, image, text } = self.architecture;
        let sizes = (1..=1024).contains(&image_size) && (1..=image_size).contains(&patch_size);
        wrong("architecture", !sizes || image_size % patch_size != 0, "a `patch_size` that divides `image_size`");
        wrong("architecture", !(1..=8192).contains(&dim), "a `dim` of 1 to 8192");
        for tower in [image, text] {
            let sizes = (1..=8192).contains(&tower.width) && (1..=128).contains(&tower.layers) && tower.heads > 0;
            wrong("architecture", tower.hidden.is_some_and(|n| !(1..=65_536).contains(&n)), "`hidden` of 1 to 65536");
            wrong("architecture", !sizes || tower.width % tower.heads != 0, "`heads` that divide `width`");
        }
    }

    /// The trainer's: the architecture round a tokenizer.
    pub(super) fn setup(&self, tokenizer: ClipTokenizer, steps: u64) -> TrainSetup {
        let Architecture { image_size, patch_size, dim, image, text } = self.architecture;
        let tower = |tower: Tower| TowerConfig {
            width: tower.width,
            layers: tower.layers,
            heads: tower.heads,
            hidden: tower.hidden.unwrap_or(4 * tower.width),
            activation: Activation::QuickGelu,
            eps: 1e-5,
        };
        let config = ClipConfig {
            text: TextConfig {
                tower: tower(text),
                vocab: tokenizer.vocab_size(),
                positions: tokenizer.context(),
                pooling: Pooling::Token(tokenizer.end()),
            },
            vision: VisionConfig::Vit(VitConfig { tower: tower(image), image_size, patch_size, channels: 3 }),
            dim,
            // The temperature 0.07 of the paper, section 2.5.
            logit_scale_init: (1.0f32 / 0.07).ln(),
        };
        let options = TrainOptions {
            steps,
            warmup: self.warmup.min(steps),
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            max_gradient_norm: self.gradient_clip,
            ..TrainOptions::default()
        };
        TrainSetup { config, options, tokenizer, preprocess: self.preprocess(), seed: self.seed }
    }

    /// CLIP's preprocessing for the model's image size.
    pub(super) fn preprocess(&self) -> Preprocess {
        Preprocess::clip(self.architecture.image_size)
    }

    /// The tokenizer that the captions give.
    pub(super) fn tokenizer(&self, examples: &Examples) -> Result<ClipTokenizer, StageError> {
        train_tokenizer(examples.distinct_captions(), self.vocabulary, self.context)
            .map_err(|error| StageError::because("the vocabulary cannot be learned", error))
    }
}
