//! Training: shards of whole pictures, each through all layers on one thread, forward and back.

use rayon::prelude::*;

use super::{Kind, Map, Pair, Pairs, Plan, backward::Pass};
use crate::{
    kernels,
    pool::{Buffer, Workers},
    stack::add_up,
};

/// Shards of a small batch.
const SHARDS: usize = 8;
/// Most groups of shards whose parameter gradients are added up apart: the most threads that backward can use.
const GROUPS: usize = 8;
/// Pictures for which a group pays: it costs a copy of all parameters.
const GROUP_IMAGES: usize = 32;
/// The most values that a shard keeps, if it has more than one picture, so that they stay in the cache.
const MOST: usize = 1 << 21;
/// Parameter gradients that one thread adds up at a time.
const SUM: usize = 1 << 14;

/// What [`forward`] keeps for [`backward`]: shard after shard, in each the results of all layers one after another, each
/// followed by what went into its activation, if that is more than bounds.
pub(crate) struct Kept {
    values: Buffer,
    /// Pictures of a shard.
    shard: usize,
}

impl Plan {
    /// Values that are kept for a picture: the result, and what went into the activation.
    pub(super) fn kept(&self) -> [usize; 2] {
        let before = match self.kind {
            // Known from what was read.
            Kind::Activate(_) | Kind::GroupNorm { .. } => 0,
            _ if kernels::bounds(self.activation()).is_some() => 0,
            _ => self.len(),
        };
        [self.len(), before]
    }
}

/// Runs the layers over pictures into `out`. At least one layer and one picture.
pub(crate) fn forward(
    workers: &Workers,
    plans: &[Plan],
    parameters: &[Pair<'_>],
    pictures: &[f32],
    out: &mut [f32],
) -> Kept {
    let (input, output) = (plans[0].input_len(), plans[plans.len() - 1].len());
    let images = pictures.len() / input;
    let each: usize = plans.iter().flat_map(Plan::kept).sum();
    let shard = images.div_ceil(SHARDS).min(MOST / each.max(1)).max(1);
    let mut values = workers.buffer(images * each);
    workers.run(|| {
        let maps = maps(plans, parameters, |plan, weight| plan.there(workers, weight));
        let shards = pictures.par_chunks(shard * input).zip(out.par_chunks_mut(shard * output));
        shards.zip(values.par_chunks_mut(shard * each)).for_each(|((pictures, out), kept)| {
            let images = pictures.len() / input;
            let mut results: Vec<&[f32]> = vec![pictures];
            let mut rest = kept;
            for ((plan, parameters), map) in plans.iter().zip(parameters).zip(&maps) {
                let [result, before] = plan.kept().map(|len| {
                    let (piece, after) = std::mem::take(&mut rest).split_at_mut(images * len);
                    rest = after;
                    piece
                });
                let residual = plan.residual().map_or(&[][..], |residual| results[residual]);
                plan.compute(workers, *parameters, map.as_ref(), results[plan.input], residual, result, before);
                results.push(result);
            }
            if let Some(last) = results.last() {
                out.copy_from_slice(last);
            }
        });
    });
    Kept { values, shard }
}

/// What is made of each layer's weight, on all threads of the pool it is called in.
fn maps(
    plans: &[Plan],
    parameters: &[Pair<'_>],
    make: impl Fn(&Plan, &[f32]) -> Option<Map> + Sync,
) -> Vec<Option<Map>> {
    plans.par_iter().zip(parameters).map(|(plan, [weight, _])| make(plan, weight)).collect()
}

/// The gradients of [`forward`] for `dy`: those of all parameters, layer after layer, weight before bias, and, if `wanted`,
/// that of the pictures.
pub(crate) fn backward(
    workers: &Workers,
    plans: &[Plan],
    parameters: &[Pair<'_>],
    pictures: &[f32],
    mut kept: Kept,
    dy: &[f32],
    wanted: bool,
) -> (Buffer, Option<Buffer>) {
    let (input, output) = (plans[0].input_len(), plans[plans.len() - 1].len());
    let images = pictures.len() / input;
    let each: usize = plans.iter().flat_map(Plan::kept).sum();
    let total: usize = parameters.iter().flatten().map(|part| part.len()).sum();
    let shard = kept.shard;
    let groups = (images / GROUP_IMAGES).next_power_of_two().clamp(2, GROUPS);
    let group = shard * images.div_ceil(shard).div_ceil(groups);
    // Without values where it is not wanted.
    let pixel = if wanted { input } else { 0 };
    let mut dx = workers.buffer(images * pixel);
    let mut sums = workers.buffer(total);
    workers.run(|| {
        let maps = maps(
            plans,
            parameters,
            |plan, weight| {
                if plan.input > 0 || wanted { plan.back(workers, weight) } else { None }
            },
        );
        let pairs: Vec<Option<Pairs>> = plans.par_iter().map(Plan::pairs).collect();
        let mut dx_groups: Vec<&mut [f32]> = Vec::new();
        let mut rest = &mut *dx;
        for first in (0..images).step_by(group) {
            let (own, after) = rest.split_at_mut(group.min(images - first) * pixel);
            dx_groups.push(own);
            rest = after;
        }
        let groups = pictures.par_chunks(group * input).zip(dy.par_chunks(group * output));
        let groups = groups.zip(kept.values.par_chunks_mut(group * each)).zip(dx_groups);
        let partial: Vec<Buffer> = groups
            .map(|(((pictures, dy), kept), dx)| {
                let mut gradients = workers.zeros(total);
                let shards = pictures.chunks(shard * input).zip(dy.chunks(shard * output));
                for (i, ((pictures, dy), kept)) in shards.zip(kept.chunks_mut(shard * each)).enumerate() {
                    let pass = Pass { workers, plans, parameters, maps: &maps, pairs: &pairs, pictures, wanted };
                    if let Some(own) = pass.run(kept, dy, &mut gradients) {
                        dx[i * shard * pixel..][..own.len()].copy_from_slice(&own);
                    }
                }
                gradients
            })
            .collect();
        sums.par_chunks_mut(SUM).enumerate().for_each(|(i, sums)| {
            add_up(workers.isa(), &partial, i * SUM, sums);
        });
    });
    (sums, wanted.then_some(dx))
}
