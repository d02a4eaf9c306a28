//! What a loss is made of: contrastive loss, cross-entropy, squared error, quantisation.

use dfdx::prelude::Tape;
use rayon::prelude::*;

use super::{Activations, Cpu, Device, Parameter, give, operations::give_to, parameter_gradient, values};
use crate::{
    Error, Quantized,
    kernels::{self, Packed, Source},
};

/// Values that one thread takes at a time.
const VALUES: usize = 1 << 15;

impl Cpu {
    pub(super) fn contrastive<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        image: &Activations,
        text: &Activations,
        log_scale: &Parameter<Self>,
        true_pairs: Option<&[bool]>,
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (n, width) = (image.rows, image.width);
        let (mut dimage, mut dtext) = (workers.buffer(n * width), workers.buffer(n * width));
        let gradients = T::OWNS_TAPE.then_some((&mut *dimage, &mut *dtext));
        let mut scratch = workers.buffer(kernels::contrastive_scratch(n));
        let scale = values(log_scale)[0];
        let found = kernels::contrastive(isa, image, text, n, scale, true_pairs, gradients, &mut scratch);
        let (image, text, log_scale) = (image.clone(), text.clone(), log_scale.clone());
        self.record(tape, 1, 1, workers.hold(vec![found.loss]), move |dy, tensors| {
            parameter_gradient(&workers, tensors, &log_scale)?[0] += dy[0] * found.dlog_scale;
            kernels::scale(isa, &mut dimage, dy[0]);
            kernels::scale(isa, &mut dtext, dy[0]);
            give_to(tensors, &image, dimage)?;
            give_to(tensors, &text, dtext)
        })
    }

    pub(super) fn softmax_cross_entropy<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        logits: &Activations,
        targets: &[u32],
        weights: Option<&[f32]>,
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (rows, classes) = (logits.rows, logits.width);
        let even = 1.0 / rows.max(1) as f32;
        let part = (VALUES / classes).max(1);
        let mut dlogits = workers.buffer(rows * classes);
        let losses: Vec<f64> = workers.run(|| {
            let parts = logits.par_chunks(part * classes).zip(dlogits.par_chunks_mut(part * classes));
            let parts = parts.zip(targets.par_chunks(part)).enumerate().map(|(i, ((logits, dlogits), targets))| {
                dlogits.copy_from_slice(logits);
                let weights = weights.map(|weights| &weights[i * part..][..targets.len()]);
                kernels::cross_entropy(isa, dlogits, targets, weights, even)
            });
            parts.collect()
        });
        let loss = losses.iter().sum::<f64>() as f32;
        let logits = logits.clone();
        self.record(tape, 1, 1, workers.hold(vec![loss]), move |dy, tensors| {
            if dy[0] != 1.0 {
                kernels::scale(isa, &mut dlogits, dy[0]);
            }
            give_to(tensors, &logits, dlogits)
        })
    }

    pub(super) fn squared_error<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        x: &Activations,
        target: &[f32],
    ) -> Result<Activations, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let mut dx = workers.buffer(x.len());
        let parts = x.par_chunks(VALUES).zip(target.par_chunks(VALUES)).zip(dx.par_chunks_mut(VALUES));
        let sums: Vec<f64> = workers.run(|| {
            parts
                .map(|((x, target), dx)| {
                    dx.copy_from_slice(x);
                    kernels::add_scaled(isa, dx, target, -1.0);
                    f64::from(kernels::squares(isa, dx))
                })
                .collect()
        });
        let count = x.len().max(1) as f64;
        let loss = (sums.iter().sum::<f64>() / count) as f32;
        let x = x.clone();
        self.record(tape, 1, 1, workers.hold(vec![loss]), move |dy, tensors| {
            kernels::scale(isa, &mut dx, (2.0 * f64::from(dy[0]) / count) as f32);
            give_to(tensors, &x, dx)
        })
    }

    pub(super) fn nearest_codes<T: Tape<f32, Device>>(
        &self,
        tape: &mut T,
        z: &Activations,
        codebook: &Parameter<Self>,
        commitment: f32,
    ) -> Result<Quantized<Activations>, Error> {
        let workers = self.workers.clone();
        let isa = workers.isa();
        let (rows, width) = (z.rows, z.width);
        let mut codes = vec![0; rows];
        // z − e
        let mut off = workers.buffer(rows * width);
        let mut chosen = workers.buffer(rows * width);
        let part = (VALUES / width).max(1);
        let sums: Vec<f64> = {
            let table = values(codebook);
            let squares = kernels::row_squares(isa, &table, width);
            workers.run(|| {
                let map = Packed::borrowed(&workers, Source::rows(&table, width));
                let parts = z.par_chunks(part * width).zip(codes.par_chunks_mut(part));
                let parts = parts.zip(off.par_chunks_mut(part * width)).zip(chosen.par_chunks_mut(part * width));
                let sums = parts.map(|(((z, codes), off), chosen)| {
                    let mut scratch = workers.buffer(codes.len() * squares.len());
                    kernels::nearest(isa, z, &map, &squares, codes, &mut scratch);
                    kernels::gather_rows(&table, width, codes, chosen);
                    off.copy_from_slice(z);
                    kernels::add_scaled(isa, off, chosen, -1.0);
                    f64::from(kernels::squares(isa, off))
                });
                sums.collect()
            })
        };
        let count = z.len().max(1) as f64;
        let mean = sums.iter().sum::<f64>() / count;
        let loss = ((1.0 + f64::from(commitment)) * mean) as f32;
        let values = {
            let z = z.clone();
            self.record(tape, rows, width, chosen, move |dy, tensors| give_to(tensors, &z, dy))?
        };
        let (z, codebook, ids) = (z.clone(), codebook.clone(), codes.clone());
        let loss = self.record(tape, 1, 1, workers.hold(vec![loss]), move |dy, tensors| {
            let slope = (2.0 * f64::from(dy[0]) / count) as f32;
            kernels::scale(isa, &mut off, -slope);
            kernels::scatter_rows(isa, parameter_gradient(&workers, tensors, &codebook)?, width, &ids, &off);
            match &z.gradient {
                Some(handle) => {
                    kernels::scale(isa, &mut off, -commitment);
                    give(tensors, handle, off)
                }
                None => Ok(()),
            }
        })?;
        Ok(Quantized { codes, values, loss })
    }
}
