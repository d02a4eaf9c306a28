//! A convolutional network as one operation on dfdx's tape.

use std::sync::RwLockReadGuard;

use dfdx::prelude::Tape;

use super::{Activations, Cpu, Device, Parameter, give_parameters, operations::give_to, values};
use crate::{
    Backend, Error, Layer, Size,
    network::{self, Pair, Plan},
};

/// The parameters of a layer, which live as long as the tape may need them.
type Parameters = [Option<Parameter<Cpu>>; 2];

/// Their values, held for one pass.
type Held<'a> = [Option<RwLockReadGuard<'a, Vec<f32>>>; 2];

fn hold(parameters: &[Parameters]) -> Vec<Held<'_>> {
    parameters.iter().map(|layer| layer.each_ref().map(|part| part.as_ref().map(values))).collect()
}

fn slices<'a>(held: &'a [Held<'_>]) -> Vec<Pair<'a>> {
    let slice = |part: &'a Option<RwLockReadGuard<'_, Vec<f32>>>| part.as_ref().map_or(&[][..], |part| part.as_slice());
    held.iter().map(|layer| layer.each_ref().map(slice)).collect()
}

impl Cpu {
    /// The layers over pictures of `sizes[0]`; `sizes[i + 1]` is what layer i makes.
    pub(super) fn network<T, B>(
        &self,
        tape: &mut T,
        x: &Activations,
        layers: &[Layer<B>],
        sizes: &[Size],
    ) -> Result<Activations, Error>
    where
        T: Tape<f32, Device>,
        B: Backend<Weight = Parameter<Self>, Kernel = Parameter<Self>, Param = Parameter<Self>>,
    {
        let Some(to) = sizes.last().filter(|_| !layers.is_empty()) else { return Ok(x.clone()) };
        let workers = self.workers.clone();
        let (plans, parameters): (Vec<Plan>, Vec<Parameters>) = layers
            .iter()
            .enumerate()
            .map(|(i, layer)| {
                let (plan, parameters) = Plan::new(i, layer, sizes);
                (plan, parameters.map(Option::<&_>::cloned))
            })
            .unzip();
        let images = x.rows / sizes[0].pixels().max(1);
        let rows = images * to.pixels();
        let mut out = workers.buffer(rows * to.channels);
        let kept = (images > 0).then(|| {
            let held = hold(&parameters);
            network::forward(&workers, &plans, &slices(&held), x, &mut out)
        });
        let x = x.clone();
        self.record(tape, rows, to.channels, out, move |dy, tensors| {
            let Some(kept) = kept else { return Ok(()) };
            let (sums, dx) = {
                let held = hold(&parameters);
                network::backward(&workers, &plans, &slices(&held), &x, kept, &dy, x.gradient.is_some())
            };
            give_parameters(&workers, tensors, parameters.iter().flatten().map(Option::as_ref), &sums)?;
            match dx {
                Some(dx) => give_to(tensors, &x, dx),
                None => Ok(()),
            }
        })
    }
}
