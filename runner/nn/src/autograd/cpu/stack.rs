//! A whole transformer stack as one operation on dfdx's tape.

use std::sync::{Arc, RwLockReadGuard};

use dfdx::prelude::Tape;

use super::{Activations, Cpu, Device, Parameter, give, give_parameters, operations::heads, values};
use crate::{
    Activation, Attention, Backend, Block, Error, Shaped,
    stack::{self, BlockSlices, Parts, Stack},
};

/// The parameters of a block, which live as long as the tape may need them.
pub(super) struct BlockParameters {
    parts: Parts<Option<Parameter<Cpu>>>,
    eps1: f32,
    eps2: f32,
}

impl BlockParameters {
    pub(super) fn new<B: Backend<Weight = Parameter<Cpu>, Param = Parameter<Cpu>>>(block: &Block<B>) -> Self {
        let Block { norm1, qkv, out, norm2, up, down } = block;
        let parts = [
            Some(&norm1.gain),
            Some(&norm1.bias),
            Some(&qkv.weight),
            qkv.bias.as_ref(),
            Some(&out.weight),
            out.bias.as_ref(),
            Some(&norm2.gain),
            Some(&norm2.bias),
            Some(&up.weight),
            up.bias.as_ref(),
            Some(&down.weight),
            down.bias.as_ref(),
        ];
        Self { parts: parts.map(Option::<&_>::cloned), eps1: norm1.eps, eps2: norm2.eps }
    }
}

/// The values of a block, held for one pass.
struct Held<'a> {
    parts: Parts<Option<RwLockReadGuard<'a, Vec<f32>>>>,
    eps1: f32,
    eps2: f32,
}

impl BlockParameters {
    fn hold(&self) -> Held<'_> {
        let parts = self.parts.each_ref().map(|part| part.as_ref().map(values));
        Held { parts, eps1: self.eps1, eps2: self.eps2 }
    }
}

impl Held<'_> {
    fn slices(&self) -> BlockSlices<'_> {
        let parts = self.parts.each_ref().map(|part| part.as_ref().map_or(&[][..], |values| values.as_slice()));
        BlockSlices { parts, eps1: self.eps1, eps2: self.eps2 }
    }
}

impl Cpu {
    /// The stack over `x`, `[rows, width]`.
    pub(super) fn stack<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        blocks: Arc<[BlockParameters]>,
        attention: Attention,
        activation: Activation,
    ) -> Result<Activations, Error> {
        let (rows, width) = (x.rows, x.width);
        let Some(hidden) = blocks.first().and_then(|block| block.parts[8].as_ref()).map(|up| up.shape().0) else {
            return Ok(x.clone());
        };
        let stack = Stack { heads: heads(attention, width), hidden, activation };
        let workers = self.workers.clone();
        let mut out = workers.buffer(x.len());
        let held: Vec<Held<'_>> = blocks.iter().map(BlockParameters::hold).collect();
        let slices: Vec<_> = held.iter().map(Held::slices).collect();
        let kept = stack::forward(&workers, stack, &slices, x, &mut out, T::OWNS_TAPE);
        drop(held);
        let dx = x.gradient.clone();
        self.record(tape, rows, width, out, move |mut dy, tensors| {
            let Some(kept) = kept else { return Ok(()) };
            let held: Vec<Held<'_>> = blocks.iter().map(BlockParameters::hold).collect();
            let slices: Vec<_> = held.iter().map(Held::slices).collect();
            let sums = stack::backward(&workers, stack, &slices, kept, &mut dy);
            drop(held);
            let parameters = blocks.iter().flat_map(|block| block.parts.iter().map(Option::as_ref));
            give_parameters(&workers, tensors, parameters, &sums)?;
            match dx {
                Some(dx) => give(tensors, &dx, dy),
                None => Ok(()),
            }
        })
    }
}
