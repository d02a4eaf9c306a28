//! CLIP: an image tower and a text tower that embed into one space (Radford et al. 2021, arXiv 2103.00020).

mod config;
mod gpu;
mod host;
mod infer;
mod network;
mod resnet;

pub use config::{Activation, ClipConfig, Pooling, TextConfig, TowerConfig, VisionConfig, VitConfig};
pub use infer::Clip;
pub(crate) use infer::{check_pixels, check_preprocess, check_size};
pub(crate) use network::{Network, Parameter, Values};
pub use resnet::ModifiedResNetConfig;
