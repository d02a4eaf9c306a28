//! Models written once over a backend, and their checkpoints.
//!
//! [`Hub`] finds a model by reference and loads it; [`Clip`] encodes.

mod bundle;
mod classify;
mod clip;
mod error;
mod export;
mod hub;
pub mod safetensors;
pub mod train;
mod weights;

pub use bundle::BundleTexts;
pub use classify::{Classified, classify};
pub use clip::{Activation, Clip, ClipConfig, Pooling, TextConfig, TowerConfig, VisionConfig};
pub use error::ModelError;
pub use hub::Hub;
