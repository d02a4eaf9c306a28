//! dfdx's own operations, on any of its devices: the GPU, and the reference for our kernels' gradients.

use std::sync::{PoisonError, RwLock};

use dfdx::prelude::*;

use super::{Matrix, Operations, Parameter, failed};
use crate::{Activation, Attention, Error, Isa, Quantized, Shaped, kernels};

/// Added to what a softmax must not see; e to the power of it is 0.
const HIDDEN: f32 = -1e30;

/// A device with nothing but dfdx's operations.
#[derive(Debug, Default)]
pub struct Stock<D> {
    device: D,
}

impl<D> Stock<D> {
    /// The operations of a device.
    pub fn over(device: D) -> Self {
        Self { device }
    }
}

/// A device of dfdx that values can be copied to and from.
pub trait Copying: Device<f32> + CopySlice<f32> {}

impl<D: Device<f32> + CopySlice<f32>> Copying for D {}

/// A parameter as a tensor, replaced when it changes.
type Stored<D> = RwLock<Matrix<D>>;

/// A parameter's tensor.
fn tensor<D: Copying>(parameter: &Parameter<Stock<D>>) -> Matrix<D> {
    parameter.storage().read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A parameter of one row as a vector.
fn vector<D: Copying>(parameter: &Parameter<Stock<D>>) -> Result<Tensor<(usize,), f32, D>, D::Err> {
    tensor(parameter).try_reshape_like(&(parameter.shape().1,))
}

/// `(rows, width)` of a matrix.
fn shape<D: Copying, T>(matrix: &Matrix<D, T>) -> (usize, usize) {
    *matrix.shape()
}

/// A matrix from values.
fn matrix<D: Copying>(device: &D, rows: usize, width: usize, values: Vec<f32>) -> Result<Matrix<D>, Error> {
    device.try_tensor_from_vec(values, (rows, width)).map_err(failed)
}

/// The values of a matrix.
fn values<D: Copying>(x: &Matrix<D>) -> Vec<f32> {
    let (rows, width) = shape(x);
    let mut values = vec![0.0; rows * width];
    x.copy_into(&mut values);
    values
}

/// The sum of all values, `[1, 1]`.
fn total<D: Copying, T: Tape<f32, D>>(x: Matrix<D, T>) -> Result<Matrix<D, T>, D::Err> {
    x.try_sum::<(), Axes2<0, 1>>()?.try_reshape_like(&(1, 1))
}

/// Runs `f` on `x` with the tape, and gives the tape back.
fn on<D: Device<f32>, T: Tape<f32, D>>(
    tape: &mut T,
    x: &Matrix<D>,
    f: impl FnOnce(Matrix<D, T>) -> Result<Matrix<D, T>, D::Err>,
) -> Result<Matrix<D>, Error> {
    let (y, after) = f(x.clone().put_tape(std::mem::take(tape))).map_err(failed)?.split_tape();
    *tape = after;
    Ok(y)
}

/// The given rows of a matrix.
fn gather<D: Device<f32>, T: Tape<f32, D>>(
    device: &D,
    x: Matrix<D, T>,
    rows: impl Iterator<Item = usize>,
) -> Result<Matrix<D, T>, D::Err> {
    let rows: Vec<usize> = rows.collect();
    let shape = (rows.len(),);
    x.try_gather(device.try_tensor_from_vec(rows, shape)?)
}

/// `x·Φ(x)`. dfdx 0.13's derivative has √2 times too much of the density, which a term of value 0 takes off again.
fn gelu<D: Device<f32>, T: Tape<f32, D>>(x: Matrix<D, T>) -> Result<Matrix<D, T>, D::Err> {
    // A product, so that it gets a gradient of its own.
    let same = x.retaped::<NoneTape>().try_mul(1.0)?;
    let bell = same.clone().try_square()?.try_mul(-0.5)?.try_exp()?;
    let excess = (std::f32::consts::SQRT_2 - 1.0) / std::f32::consts::TAU.sqrt();
    let excess = bell.try_mul(same.clone())?.try_mul(excess)?;
    let nothing = x.with_empty_tape().try_sub(same)?.try_mul(excess)?;
    x.try_accurate_gelu()?.try_sub(nothing)
}

impl<D: Copying> Operations for Stock<D> {
    type Device = D;
    type Tensor = Matrix<D>;
    type Storage = Stored<D>;

    fn new(_: usize) -> Result<Self, Error> {
        Ok(Self { device: D::default() })
    }

    fn tensor(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Matrix<D>, Error> {
        matrix(&self.device, rows, width, values)
    }

    fn values(&self, tensor: &Matrix<D>) -> Vec<f32> {
        values(tensor)
    }

    fn shape(&self, tensor: &Matrix<D>) -> (usize, usize) {
        shape(tensor)
    }

    fn store(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Stored<D>, Error> {
        matrix(&self.device, rows, width, values).map(RwLock::new)
    }

    fn read(&self, parameter: &Parameter<Self>) -> Vec<f32> {
        tensor(parameter).as_vec()
    }

    fn update(&self, parameters: &[&Parameter<Self>], change: &mut (dyn FnMut(&mut [&mut [f32]]) + Send)) {
        let mut values: Vec<_> = parameters.iter().map(|parameter| tensor(parameter).as_vec()).collect();
        change(&mut values.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        for (parameter, values) in parameters.iter().zip(values) {
            let mut tensor = parameter.storage().write().unwrap_or_else(PoisonError::into_inner);
            tensor.copy_from(&values);
        }
    }

    fn backward(&self, tape: OwnedTape<f32, D>, loss: &Matrix<D>) -> Result<Gradients<f32, D>, Error> {
        let loss = loss.clone().put_tape(tape).try_sum::<(), Axes2<0, 1>>().map_err(failed)?;
        loss.try_backward().map_err(failed)
    }

    fn take_gradient(&self, parameter: &Parameter<Self>, gradients: &mut Gradients<f32, D>) -> Result<Vec<f32>, Error> {
        let tensor = tensor(parameter);
        gradients.get_or_alloc_mut(&tensor).map_err(failed)?;
        Ok(gradients.get(&tensor).as_vec())
    }

    fn linear<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        x: &Matrix<D>,
        weight: &Parameter<Self>,
        bias: Option<&Parameter<Self>>,
        activation: Activation,
        residual: Option<&Matrix<D>>,
    ) -> Result<Matrix<D>, Error> {
        let (rows, outputs) = (shape(x).0, weight.shape().0);
        on(tape, x, |x| {
            let weight = tensor(weight).try_permute::<(usize, usize), Axes2<1, 0>>()?;
            let mut y = x.try_matmul(weight)?;
            if let Some(bias) = bias {
                y = y.try_add(vector(bias)?.try_broadcast_like::<_, Axis<0>>(&(rows, outputs))?)?;
            }
            let y = match activation {
                Activation::None => y,
                Activation::Gelu => gelu(y)?,
                Activation::QuickGelu => {
                    let gate = y.with_empty_tape().try_mul(1.702)?.try_sigmoid()?;
                    y.try_mul(gate)?
                }
                Activation::Silu => {
                    let gate = y.with_empty_tape().try_sigmoid()?;
                    y.try_mul(gate)?
                }
                Activation::Relu => y.try_relu()?,
                Activation::Relu6 => y.try_clamp(0.0, 6.0)?,
            };
            match residual {
                Some(residual) => y.try_add(residual.clone()),
                None => Ok(y),
            }
        })
    }

    fn layer_norm<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        x: &Matrix<D>,
        gain: &Parameter<Self>,
        bias: &Parameter<Self>,
        eps: f32,
    ) -> Result<Matrix<D>, Error> {
        let shape = shape(x);
        on(tape, x, |x| {
            let normal = x.try_normalize::<Axis<1>>(eps)?;
            let y = normal.try_mul(vector(gain)?.try_broadcast_like::<_, Axis<0>>(&shape)?)?;
            y.try_add(vector(bias)?.try_broadcast_like::<_, Axis<0>>(&shape)?)
        })
    }

    fn embed<T: Tape<f32, D>>(&self, tape: &mut T, table: &Parameter<Self>, ids: &[u32]) -> Result<Matrix<D>, Error> {
        on(tape, &tensor(table), |table| gather(&self.device, table, ids.iter().map(|id| *id as usize)))
    }

    fn add_positions<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        x: &Matrix<D>,
        sequences: usize,
        class: Option<&Parameter<Self>>,
        positions: &Parameter<Self>,
    ) -> Result<Matrix<D>, Error> {
        let (rows, width) = shape(x);
        let own = rows / sequences.max(1);
        on(tape, x, |x| {
            let (x, tokens) = match class {
                Some(class) => {
                    let class = vector(class)?.put_tape(T::default());
                    let class = class.try_broadcast_like::<_, Axes2<0, 1>>(&(sequences, 1, width))?;
                    let x = x.try_reshape_like(&(sequences, own, width))?;
                    let all = (class, x).try_concat_along(Axis::<1>)?;
                    (all.try_reshape_like(&(sequences * (own + 1), width))?, own + 1)
                }
                None => (x, own),
            };
            let places = (0..sequences).flat_map(|_| 0..tokens);
            x.try_add(gather(&self.device, tensor(positions).put_tape(T::default()), places)?)
        })
    }

    fn attention<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        qkv: &Matrix<D>,
        attention: Attention,
    ) -> Result<Matrix<D>, Error> {
        let Attention { tokens, heads, causal } = attention;
        let (rows, width) = (shape(qkv).0, shape(qkv).1 / 3);
        let (sequences, each) = (rows / tokens, width / heads);
        let split = (sequences, tokens, heads, each);
        let all = (sequences, heads, tokens, tokens);
        let hidden = (0..tokens * tokens).map(|i| if causal && i % tokens > i / tokens { HIDDEN } else { 0.0 });
        let hidden = self.device.try_tensor_from_vec(hidden.collect(), (tokens, tokens)).map_err(failed)?;
        on(tape, qkv, |qkv| {
            let k = qkv.with_empty_tape().try_slice((.., width..2 * width))?.try_reshape_like(&split)?;
            let v = qkv.with_empty_tape().try_slice((.., 2 * width..3 * width))?.try_reshape_like(&split)?;
            let q = qkv.try_slice((.., 0..width))?.try_reshape_like(&split)?;
            let q = q.try_permute::<(usize, usize, usize, usize), Axes4<0, 2, 1, 3>>()?;
            let k = k.try_permute::<(usize, usize, usize, usize), Axes4<0, 2, 3, 1>>()?;
            let v = v.try_permute::<(usize, usize, usize, usize), Axes4<0, 2, 1, 3>>()?;
            let scores = q.try_matmul(k)?.try_mul(1.0 / (each as f32).sqrt())?;
            let scores = scores.try_add(hidden.try_broadcast_like::<_, Axes2<0, 1>>(&all)?)?;
            let mixed = scores.try_softmax::<Axis<3>>()?.try_matmul(v)?;
            let mixed = mixed.try_permute::<(usize, usize, usize, usize), Axes4<0, 2, 1, 3>>()?;
            mixed.try_reshape_like(&(rows, width))
        })
    }

    fn rows<T: Tape<f32, D>>(&self, tape: &mut T, x: &Matrix<D>, rows: &[u32]) -> Result<Matrix<D>, Error> {
        on(tape, x, |x| gather(&self.device, x, rows.iter().map(|row| *row as usize)))
    }

    fn l2_normalize<T: Tape<f32, D>>(&self, tape: &mut T, x: &Matrix<D>) -> Result<Matrix<D>, Error> {
        let shape = shape(x);
        on(tape, x, |x| {
            let squares = x.with_empty_tape().try_square()?.try_sum::<(usize,), Axis<1>>()?;
            // Keeps rows of zeros from becoming 0/0.
            let lengths = squares.try_add(1e-30)?.try_sqrt()?;
            x.try_div(lengths.try_broadcast_like::<_, Axis<1>>(&shape)?)
        })
    }

    fn contrastive_loss<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        image: &Matrix<D>,
        text: &Matrix<D>,
        log_scale: &Parameter<Self>,
        true_pairs: Option<&[bool]>,
    ) -> Result<Matrix<D>, Error> {
        let n = shape(image).0;
        let pairs = (0..n * n).map(|i| (i / n, i % n));
        let diagonal = pairs.clone().map(|(row, column)| if row == column { -0.5 / n as f32 } else { 0.0 });
        let hidden = pairs.map(|(row, column)| {
            let left_out = row != column && true_pairs.is_some_and(|pairs| pairs[row * n + column]);
            if left_out { HIDDEN } else { 0.0 }
        });
        let diagonal = matrix(&self.device, n, n, diagonal.collect())?;
        let hidden = matrix(&self.device, n, n, hidden.collect())?;
        on(tape, image, |image| {
            let scale = tensor(log_scale).put_tape(T::default()).try_exp()?.try_reshape_like(&())?;
            let text = text.clone().try_permute::<(usize, usize), Axes2<1, 0>>()?;
            let logits = image.try_matmul(text)?.try_mul(scale.try_broadcast_like::<_, Axes2<0, 1>>(&(n, n))?)?;
            let logits = logits.try_add(hidden)?;
            let by_text = logits.with_empty_tape().try_log_softmax::<Axis<0>>()?.try_mul(diagonal.clone())?;
            let by_image = logits.try_log_softmax::<Axis<1>>()?.try_mul(diagonal)?;
            total(by_image.try_add(by_text)?)
        })
    }

    fn cross_entropy<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        logits: &Matrix<D>,
        targets: &[u32],
        weights: Option<&[f32]>,
    ) -> Result<Matrix<D>, Error> {
        let (rows, classes) = shape(logits);
        let mut factors = vec![0.0; rows * classes];
        for (row, target) in targets.iter().enumerate() {
            factors[row * classes + *target as usize] = -weights.map_or(1.0 / rows as f32, |weights| weights[row]);
        }
        let factors = matrix(&self.device, rows, classes, factors)?;
        on(tape, logits, |logits| total(logits.try_log_softmax::<Axis<1>>()?.try_mul(factors)?))
    }

    fn mean_squared_error<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        x: &Matrix<D>,
        target: &[f32],
    ) -> Result<Matrix<D>, Error> {
        let (rows, width) = shape(x);
        let target = matrix(&self.device, rows, width, target.to_vec())?;
        let share = 1.0 / (rows * width).max(1) as f32;
        on(tape, x, |x| total(x.try_sub(target)?.try_square()?)?.try_mul(share))
    }

    fn sum<T: Tape<f32, D>>(&self, tape: &mut T, terms: &[(&Matrix<D>, f32)]) -> Result<Matrix<D>, Error> {
        let Some(((first, factor), rest)) = terms.split_first() else {
            return Err(Error::Unsupported { operation: "a sum of nothing" });
        };
        let first = on(tape, first, |x| x.try_mul(*factor))?;
        rest.iter().try_fold(first, |sum, (term, factor)| {
            // With a gradient of its own, because a term may come twice.
            let term = on(tape, term, |x| x.try_mul(*factor))?;
            on(tape, &sum, |sum| sum.try_add(term))
        })
    }

    fn quantize<T: Tape<f32, D>>(
        &self,
        tape: &mut T,
        z: &Matrix<D>,
        codebook: &Parameter<Self>,
        commitment: f32,
    ) -> Result<Quantized<Matrix<D>>, Error> {
        let (rows, width) = shape(z);
        let held = values(z);
        let mut codes = vec![0; rows];
        let (isa, table) = (Isa::best(), tensor(codebook).as_vec());
        let squares = kernels::row_squares(isa, &table, width);
        let mut scratch = vec![0.0; rows * squares.len()];
        let map = kernels::Packed::new(isa, squares.len(), width, &table);
        kernels::nearest(isa, &held, &map, &squares, &mut codes, &mut scratch);
        let chosen =
            on(tape, &tensor(codebook), |table| gather(&self.device, table, codes.iter().map(|code| *code as usize)))?;
        let of_codebook = self.mean_squared_error(tape, &chosen, &held)?;
        let of_encoder = self.mean_squared_error(tape, z, &values(&chosen))?;
        let loss = self.sum(tape, &[(&of_codebook, 1.0), (&of_encoder, commitment)])?;
        let difference = values(&chosen).iter().zip(&held).map(|(e, z)| e - z).collect();
        let difference = matrix(&self.device, rows, width, difference)?;
        let values = on(tape, z, |z| z.try_add(difference))?;
        Ok(Quantized { codes, values, loss })
    }
}
