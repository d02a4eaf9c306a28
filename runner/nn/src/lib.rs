//! The compute layer: what a model may ask for ([`Backend`]), and who computes it.
//!
//! A model is written once over [`Backend`]. Activations are f32 matrices `[rows, width]`; a batch of sequences is a
//! matrix of `batch · tokens` rows. Weights are laid out as checkpoints store them, `[outputs, inputs]`.

mod backend;
mod error;

pub use backend::{Activation, Attention, Backend, Block, Epilogue, LayerNorm, Linear, Patches};
pub use error::Error;
