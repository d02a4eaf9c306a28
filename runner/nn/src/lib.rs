//! The compute layer: what a model may ask for ([`Backend`]), and who computes it.
//!
//! A model is written once over [`Backend`]. Activations are f32 matrices `[rows, width]`; a batch of sequences is a
//! matrix of `batch · tokens` rows. Weights are laid out as checkpoints store them, `[outputs, inputs]`.

mod autograd;
mod backend;
mod convolution;
mod error;
mod fused;
pub mod gpu;
mod isa;
mod kernel;
mod kernels;
mod network;
pub mod optim;
mod pool;
mod shapes;
mod similarity;
mod stack;

pub use autograd::{
    Activations, Cpu, Dfdx, Host, Matrix, Operations, Parameter, ParameterInfo, Record, Recorded, Session, Step, Stock,
    Unrecorded,
};
pub use backend::{Activation, Attention, Backend, Block, Epilogue, LayerNorm, Linear, Patches, Quantized, Shaped};
pub use convolution::{Layer, Operation, Size, Window, channels_last, transposed_weight};
pub use error::Error;
pub use fused::Fused;
pub use isa::Isa;
pub use pool::Workers;
pub use similarity::dot_products;
