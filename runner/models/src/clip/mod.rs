//! CLIP: an image tower and a text tower that embed into one space (Radford et al. 2021, arXiv 2103.00020).

mod config;
mod infer;
mod network;

pub use config::{Activation, ClipConfig, Pooling, TextConfig, TowerConfig, VisionConfig};
pub use infer::Clip;
pub(crate) use infer::check_size;
pub(crate) use network::{Network, Parameter, Values};
