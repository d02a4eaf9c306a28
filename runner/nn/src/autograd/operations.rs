//! What a device has to compute for [`Dfdx`](super::Dfdx); shapes are checked before.

use dfdx::prelude::{CopySlice, Device, Gradients, HasShape, Storage, Tape, TensorFromVec};

use super::{Matrix, Parameter, failed};
use crate::{Activation, Attention, Block, Error, Layer, Size, backend::Backend};

/// The operations of one device, each of which leaves its gradient on the tape it is lent.
pub trait Operations: Sized + 'static {
    /// The device of dfdx.
    type Device: Device<f32> + CopySlice<f32>;
    /// A parameter on it.
    type Storage;

    /// The device, with at most `threads` threads where it has any.
    fn new(threads: usize) -> Result<Self, Error>;

    /// The device of dfdx.
    fn device(&self) -> &Self::Device;

    /// Puts a parameter `[rows, width]` on the device.
    fn store(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Self::Storage, Error>;

    /// Copies a parameter's values to the host.
    fn read(&self, parameter: &Parameter<Self>) -> Vec<f32>;

    /// Changes a parameter's values; gradients keep their place.
    fn update(&self, parameter: &Parameter<Self>, change: &mut dyn FnMut(&mut [f32]));

    /// Takes a parameter's gradient out; zeros where nothing flowed.
    fn take_gradient(
        &self,
        parameter: &Parameter<Self>,
        gradients: &mut Gradients<f32, Self::Device>,
    ) -> Result<Vec<f32>, Error>;

    /// See [`Backend::linear`].
    fn linear<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Self::Device>,
        weight: &Parameter<Self>,
        bias: Option<&Parameter<Self>>,
        activation: Activation,
        residual: Option<&Matrix<Self::Device>>,
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::layer_norm`].
    fn layer_norm<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Self::Device>,
        gain: &Parameter<Self>,
        bias: &Parameter<Self>,
        eps: f32,
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::embed`].
    fn embed<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        table: &Parameter<Self>,
        ids: &[u32],
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::add_positions`].
    fn add_positions<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Self::Device>,
        sequences: usize,
        class: Option<&Parameter<Self>>,
        positions: &Parameter<Self>,
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::attention`].
    fn attention<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        qkv: &Matrix<Self::Device>,
        attention: Attention,
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::rows`].
    fn rows<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Self::Device>,
        rows: &[u32],
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::l2_normalize`].
    fn l2_normalize<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        x: &Matrix<Self::Device>,
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::contrastive_loss`].
    fn contrastive_loss<T: Tape<f32, Self::Device>>(
        &self,
        tape: &mut T,
        image: &Matrix<Self::Device>,
        text: &Matrix<Self::Device>,
        log_scale: &Parameter<Self>,
        true_pairs: Option<&[bool]>,
    ) -> Result<Matrix<Self::Device>, Error>;

    /// See [`Backend::convolutions`]; `sizes` holds that of the pictures and that of each layer's result.
    fn convolutions<T, B>(
        &self,
        _tape: &mut T,
        _x: &Matrix<Self::Device>,
        _layers: &[Layer<B>],
        _sizes: &[Size],
    ) -> Result<Matrix<Self::Device>, Error>
    where
        T: Tape<f32, Self::Device>,
        B: Backend<Weight = Parameter<Self>, Param = Parameter<Self>>,
    {
        Err(Error::Unsupported { operation: "convolution" })
    }

    /// See [`Backend::prepend_mean`].
    fn prepend_mean<T: Tape<f32, Self::Device>>(
        &self,
        _tape: &mut T,
        _x: &Matrix<Self::Device>,
        _sequences: usize,
    ) -> Result<Matrix<Self::Device>, Error> {
        Err(Error::Unsupported { operation: "mean of sequences" })
    }

    /// [`Backend::transformer`] as one operation, where the device can.
    fn transformer<T, B>(
        &self,
        _tape: &mut T,
        _x: &Matrix<Self::Device>,
        _blocks: &[Block<B>],
        _attention: Attention,
        _activation: Activation,
    ) -> Option<Result<Matrix<Self::Device>, Error>>
    where
        T: Tape<f32, Self::Device>,
        B: Backend<Weight = Parameter<Self>, Param = Parameter<Self>>,
    {
        None
    }
}

/// `(rows, width)` of a matrix.
pub(super) fn shape<D: Storage<f32>, T>(matrix: &Matrix<D, T>) -> (usize, usize) {
    *matrix.shape()
}

/// A matrix of dfdx from values.
pub(super) fn matrix<D: TensorFromVec<f32>>(
    device: &D,
    rows: usize,
    width: usize,
    values: Vec<f32>,
) -> Result<Matrix<D>, Error> {
    device.try_tensor_from_vec(values, (rows, width)).map_err(failed)
}
