//! What a device has to compute for [`Dfdx`](super::Dfdx); shapes are checked before.

use dfdx::prelude::{CopySlice, Device, Gradients, OwnedTape, Tape};

use super::Parameter;
use crate::{
    Activation, Attention, Block, Error, Layer, Size,
    backend::{Backend, Quantized},
};

/// The operations of one device, each of which leaves its gradient on the tape it is lent.
pub trait Operations: Sized + 'static {
    /// The device of dfdx.
    type Device: Device<f32> + CopySlice<f32>;
    /// An activation on it; clones share the values.
    type Tensor: Clone;
    /// A parameter on it.
    type Storage;

    /// The device, with at most `threads` threads where it has any.
    fn new(threads: usize) -> Result<Self, Error>;

    /// Puts an activation `[rows, width]` on the device.
    fn tensor(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Self::Tensor, Error>;

    /// Copies an activation's values to the host.
    fn values(&self, tensor: &Self::Tensor) -> Vec<f32>;

    /// `(rows, width)` of an activation.
    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize);

    /// Puts a parameter `[rows, width]` on the device.
    fn store(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Self::Storage, Error>;

    /// Copies a parameter's values to the host.
    fn read(&self, parameter: &Parameter<Self>) -> Vec<f32>;

    /// Changes the values of parameters, all at once; gradients keep their place.
    fn update(&self, parameters: &[&Parameter<Self>], change: &mut (dyn FnMut(&mut [&mut [f32]]) + Send));

    /// The gradients that a tape has for a `[1, 1]` loss.
    fn backward(
        &self,
        tape: OwnedTape<f32, Self::Device>,
        loss: &Self::Tensor,
    ) -> Result<Gradients<f32, Self::Device>, Error>;

    /// Takes a parameter's gradient out; zeros where nothing flowed.
    fn take_gradient(
        &self,
        parameter: &Parameter<Self>,
        gradients: &mut Gradients<f32, Self::Device>,
    ) -> Result<Vec<f32>, Error>;

    /// Takes gradients back whose memory the next step may use.
    fn recycle(&self, _gradients: Vec<Vec<f32>>) {}

    /// See [`Backend::linear`].
    fn linear<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Self::Tensor,
        weight: &Parameter<Self>,
        bias: Option<&Parameter<Self>>,
        activation: Activation,
        residual: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::layer_norm`].
    fn layer_norm<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Self::Tensor,
        gain: &Parameter<Self>,
        bias: &Parameter<Self>,
        eps: f32,
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::embed`].
    fn embed<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        table: &Parameter<Self>,
        ids: &[u32],
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::add_positions`].
    fn add_positions<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Self::Tensor,
        sequences: usize,
        class: Option<&Parameter<Self>>,
        positions: &Parameter<Self>,
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::attention`].
    fn attention<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        qkv: &Self::Tensor,
        attention: Attention,
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::rows`].
    fn rows<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Self::Tensor,
        rows: &[u32],
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::l2_normalize`].
    fn l2_normalize<T: Tape<f32, Self::Device>>(&self, tape: &mut T, x: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// See [`Backend::contrastive_loss`].
    fn contrastive_loss<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        image: &Self::Tensor,
        text: &Self::Tensor,
        log_scale: &Parameter<Self>,
        true_pairs: Option<&[bool]>,
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::cross_entropy`].
    fn cross_entropy<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        logits: &Self::Tensor,
        targets: &[u32],
        weights: Option<&[f32]>,
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::mean_squared_error`].
    fn mean_squared_error<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Self::Tensor,
        target: &[f32],
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::sum`]; at least one term.
    fn sum<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        terms: &[(&Self::Tensor, f32)],
    ) -> Result<Self::Tensor, Error>;

    /// See [`Backend::quantize`].
    fn quantize<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        z: &Self::Tensor,
        codebook: &Parameter<Self>,
        commitment: f32,
    ) -> Result<Quantized<Self::Tensor>, Error>;

    /// See [`Backend::convolutions`]; `sizes` holds that of the pictures and that of each layer's result.
    fn convolutions<T, B>(
        &self,
        _tape: &mut T,
        _x: &Self::Tensor,
        _layers: &[Layer<B>],
        _sizes: &[Size],
    ) -> Result<Self::Tensor, Error>
    where
        T: Tape<f32, Self::Device>,
        B: Backend<Weight = Parameter<Self>, Kernel = Parameter<Self>, Param = Parameter<Self>>,
    {
        Err(Error::Unsupported { operation: "convolution" })
    }

    /// See [`Backend::prepend_mean`].
    fn prepend_mean<T: Tape<f32, Self::Device>>(
        &self,
        _tape: &mut T,
        _x: &Self::Tensor,
        _sequences: usize,
    ) -> Result<Self::Tensor, Error> {
        Err(Error::Unsupported { operation: "mean of sequences" })
    }

    /// [`Backend::transformer`] as one operation, where the device can.
    fn transformer<T, B>(
        &self,
        _tape: &mut T,
        _x: &Self::Tensor,
        _blocks: &[Block<B>],
        _attention: Attention,
        _activation: Activation,
    ) -> Option<Result<Self::Tensor, Error>>
    where
        T: Tape<f32, Self::Device>,
        B: Backend<Weight = Parameter<Self>, Param = Parameter<Self>>,
    {
        None
    }
}
