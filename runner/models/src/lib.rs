//! Models written once over a backend, and their checkpoints.
//!
//! [`Hub`] finds a model by reference and loads it: a [`Clip`], which encodes pictures and texts, or a
//! [`Classifier`], which has classes of its own.

mod blob;
mod blueprint;
mod bundle;
mod classifier;
mod classify;
mod clip;
mod efficientnet_lite;
mod error;
mod export;
mod fields;
mod hub;
mod hugging_face;
mod import;
mod layout;
mod loaded;
mod names;
mod open_clip;
mod openai;
mod parts;
mod pickle;
mod resnet;
pub mod safetensors;
mod texts;
pub mod train;
mod verify;
mod weights;

pub use bundle::BundleTexts;
pub use classifier::{Architecture, Classifier, ClassifierConfig};
pub use classify::{Classified, classify};
pub use clip::{
    Activation, Clip, ClipConfig, ModifiedResNetConfig, Pooling, TextConfig, TowerConfig, VisionConfig, VitConfig,
};
pub use efficientnet_lite::EfficientNetLiteConfig;
pub use error::ModelError;
pub use hub::Hub;
pub use hugging_face::{HuggingFace, Notes};
pub use import::{Decision, Imported};
pub use loaded::{Loaded, ModelConfig};
pub use pickle::Checkpoint;
pub use resnet::{ResNetBlock, ResNetConfig};
pub use verify::Verified;
