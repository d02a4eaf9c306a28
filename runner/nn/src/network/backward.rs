//! The gradients of one shard, last layer first.

use super::{Kind, Map, Pair, Pairs, Plan, WHOLE};
use crate::{
    kernels::{self, Added, Finish, Pairing, Side},
    pool::{Buffer, Workers},
};

/// One shard's way back.
pub(super) struct Pass<'a> {
    pub(super) workers: &'a Workers,
    pub(super) plans: &'a [Plan],
    pub(super) parameters: &'a [Pair<'a>],
    /// For each layer [`Plan::back`] and [`Plan::pairs`].
    pub(super) maps: &'a [Option<Map>],
    pub(super) pairs: &'a [Option<Pairs>],
    /// The shard's pictures.
    pub(super) pictures: &'a [f32],
    /// Whether the gradient of the pictures is wanted.
    pub(super) wanted: bool,
}

/// What a layer read and made.
struct Seen<'a> {
    x: &'a [f32],
    y: &'a [f32],
    /// What went into its activation, if that is kept.
    before: &'a mut [f32],
}

/// The gradients of the results, numbered as [`Layer::input`](crate::Layer::input); those that nothing was added to are none.
type Results = Vec<Option<Buffer>>;

/// Adds to a gradient.
fn give(gradient: &mut Option<Buffer>, own: Buffer) {
    match gradient {
        Some(gradient) => kernels::add(own.workers().isa(), gradient, &own),
        None => *gradient = Some(own),
    }
}

impl Pass<'_> {
    /// Adds the gradients of all parameters for the gradient `dy` of the last result, and gives that of the pictures.
    pub(super) fn run(&self, kept: &mut [f32], dy: &[f32], gradients: &mut [f32]) -> Option<Buffer> {
        let images = self.pictures.len() / self.plans[0].input_len();
        let mut seen: Vec<(&[f32], &mut [f32])> = Vec::with_capacity(self.plans.len());
        let mut rest = kept;
        for plan in self.plans {
            let [result, before] = plan.kept().map(|len| {
                let (piece, after) = std::mem::take(&mut rest).split_at_mut(images * len);
                rest = after;
                piece
            });
            seen.push((result, before));
        }
        let mut last = self.workers.buffer(dy.len());
        last.copy_from_slice(dy);
        let mut results: Results = self.plans.iter().map(|_| None).chain([Some(last)]).collect();
        let mut rest = gradients;
        for (i, (plan, [weight, bias])) in self.plans.iter().zip(self.parameters).enumerate().rev() {
            let at = rest.len() - weight.len() - bias.len();
            let (others, own) = std::mem::take(&mut rest).split_at_mut(at);
            rest = others;
            let (dy, result) = (results.pop().flatten(), seen.pop());
            let (Some(dy), Some((y, before))) = (dy, result) else { continue };
            let x = plan.input.checked_sub(1).map_or(self.pictures, |input| seen[input].0);
            let seen = Seen { x, y, before };
            self.layer(i, [weight, bias], seen, dy, own.split_at_mut(weight.len()), &mut results);
        }
        results.pop().flatten()
    }

    /// One layer: from the gradient of its result to those of what it read and of its parameters.
    fn layer(
        &self,
        number: usize,
        [weight, bias]: Pair<'_>,
        seen: Seen<'_>,
        mut dy: Buffer,
        (dweight, dbias): (&mut [f32], &mut [f32]),
        results: &mut Results,
    ) {
        let plan = &self.plans[number];
        let (isa, sweep) = (self.workers.isa(), plan.sweep());
        let wanted = plan.input > 0 || self.wanted;
        let Seen { x, y, before } = seen;
        if let Kind::GroupNorm { .. } = plan.kind {
            self.group_norm(plan, [weight, bias], x, &mut dy, dweight, dbias);
            return if wanted {
                give(&mut results[plan.input], dy)
            };
        }
        self.activation(plan, x, y, before, &mut dy);
        let zeros = || self.workers.zeros(x.len());
        let input = &mut results[plan.input];
        match plan.kind {
            Kind::Activate(_) if wanted => give(input, dy),
            Kind::Convolution { residual, .. } => {
                self.linear(number, x, &dy, dweight, dbias, input);
                if let Some(residual) = residual.filter(|residual| *residual > 0 || self.wanted) {
                    give(&mut results[residual], dy);
                }
            }
            Kind::Depthwise { .. } => {
                kernels::add_columns(isa, dbias, &dy);
                let dx = input.get_or_insert_with(zeros);
                kernels::depthwise_backward(isa, sweep, x, weight, &dy, dx, dweight);
            }
            Kind::Transposed { .. } => self.linear(number, x, &dy, dweight, dbias, input),
            _ if !wanted => {}
            Kind::Upsample => {
                kernels::upsample_backward(isa, plan.from, plan.window.size, &dy, input.get_or_insert_with(zeros));
            }
            Kind::MaxPool => kernels::max_pool_backward(sweep, x, y, &mut dy, input.get_or_insert_with(zeros)),
            Kind::MeanPool => {
                let share = 1.0 / (plan.window.size * plan.window.size) as f32;
                kernels::mean_pool_backward(isa, sweep, &dy, share, input.get_or_insert_with(zeros));
            }
            Kind::Activate(_) | Kind::GroupNorm { .. } => {}
        }
    }

    /// Takes `dy` back through the layer's activation.
    fn activation(&self, plan: &Plan, x: &[f32], y: &[f32], before: &mut [f32], dy: &mut [f32]) {
        let isa = self.workers.isa();
        match kernels::bounds(plan.activation()) {
            Some(bounds) if bounds != WHOLE => kernels::cut_backward(isa, y, bounds, dy),
            Some(_) => {}
            None => {
                let mut scratch = self.workers.buffer(if before.is_empty() { x.len() } else { 0 });
                if before.is_empty() {
                    scratch.copy_from_slice(x);
                }
                let before = if before.is_empty() { &mut *scratch } else { before };
                self.slopes(plan, before, dy);
            }
        }
    }

    /// `dy *= activation'(before)`; `before` is used up.
    fn slopes(&self, plan: &Plan, before: &mut [f32], dy: &mut [f32]) {
        let mut after = self.workers.buffer(before.len());
        kernels::activate_backward(self.workers.isa(), plan.activation(), before, &mut after);
        kernels::multiply(self.workers.isa(), dy, before);
    }

    /// The gradients of a convolution, one way or the other; that of what it read where there is a map for the way back.
    fn linear(
        &self,
        number: usize,
        x: &[f32],
        dy: &[f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
        gradient: &mut Option<Buffer>,
    ) {
        let (plan, isa) = (&self.plans[number], self.workers.isa());
        let (inputs, outputs) = (plan.from.channels, plan.to.channels);
        kernels::add_columns(isa, dbias, dy);
        let scratch = |width| self.workers.buffer(kernels::weight_gradient_scratch(isa, outputs, width));
        let (left, right) = (Side::new(dy, outputs), Side::new(x, inputs));
        match &self.pairs[number] {
            None => {}
            Some(Pairs::Tiles(tiles)) => {
                let mut scratch = self.workers.buffer(kernels::winograd_gradient_scratch(isa, *tiles));
                kernels::winograd_gradient(isa, *tiles, x, dy, dweight, &mut scratch);
            }
            Some(Pairs::There(taps)) => {
                kernels::weight_gradient(isa, left, right, Pairing::There(taps), dweight, &mut scratch(inputs));
            }
            Some(Pairs::Back(taps)) => {
                kernels::weight_gradient(isa, left, right, Pairing::Back(taps), dweight, &mut scratch(inputs));
            }
            Some(Pairs::Rows) => {
                kernels::weight_gradient(isa, left, right, Pairing::Rows, dweight, &mut scratch(inputs));
            }
            Some(Pairs::Covered) => {
                let (covered, part) = (plan.sweep().covered(), plan.places());
                let mut rows = self.workers.buffer(part.min(dy.len() / outputs) * covered);
                let mut scratch = scratch(covered);
                for (i, dy) in dy.chunks(part * outputs).enumerate() {
                    let rows = &mut rows[..dy.len() / outputs * covered];
                    kernels::window_rows(plan.sweep(), x, i * part, rows);
                    let (left, right) = (Side::new(dy, outputs), Side::new(rows, covered));
                    kernels::weight_gradient(isa, left, right, Pairing::Rows, dweight, &mut scratch);
                }
            }
        }
        if let Some(map) = &self.maps[number] {
            let added = if gradient.is_some() { Added::Result } else { Added::Nothing };
            let dx = gradient.get_or_insert_with(|| self.workers.buffer(x.len()));
            map.apply(self.workers, dy, Finish { added, ..Finish::NOTHING }, dx);
        }
    }

    fn group_norm(
        &self,
        plan: &Plan,
        [gain, bias]: Pair<'_>,
        x: &[f32],
        dy: &mut [f32],
        dgain: &mut [f32],
        dbias: &mut [f32],
    ) {
        let Kind::GroupNorm { groups, eps, activation } = plan.kind else { return };
        let (isa, each) = (self.workers.isa(), plan.len());
        let [mut stats, mut sums] = [(); 2].map(|()| self.workers.buffer(2 * plan.to.channels));
        let mut before = self.workers.buffer(each);
        for (x, dy) in x.chunks_exact(each).zip(dy.chunks_exact_mut(each)) {
            kernels::group_norm(isa, x, gain, bias, groups, eps, &mut before, &mut stats);
            if activation != crate::Activation::None {
                self.slopes(plan, &mut before, dy);
            }
            kernels::group_norm_backward(isa, x, &stats, gain, groups, dy, dgain, dbias, &mut sums);
        }
    }
}
