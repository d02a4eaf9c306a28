//! Kernels against plain arithmetic in f64, gradients against differences, on every instruction set of this machine.

use proptest::prelude::*;

use super::*;
use crate::{Activation, Isa, Patches, Size, Window, Workers};

/// The gradient of `f` at `x` by central differences.
fn differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let (count, mut x) = (x.len(), x.to_vec());
    let mut slope = |i: usize| {
        let (here, step) = (x[i], 1e-5);
        x[i] = here + step;
        let above = f(&x);
        x[i] = here - step;
        let below = f(&x);
        x[i] = here;
        (above - below) / (2.0 * step)
    };
    (0..count).map(&mut slope).collect()
}

/// Numbers in −1..1 that look random.
fn numbers(stream: u64, count: usize) -> Vec<f32> {
    let mut state = (stream + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

fn weighted(y: &[f64], weights: &[f32]) -> f64 {
    y.iter().zip(weights).map(|(y, w)| y * f64::from(*w)).sum()
}

fn close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1.0f64, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs() / size;
        assert!(error < tolerance, "{what}[{i}] is {found}, expected {expected}");
    }
}

/// The Gaussian distribution function, by Simpson's rule.
fn distribution(x: f64) -> f64 {
    let steps = 2000;
    let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let width = x / f64::from(steps);
    let inner = (1..steps).map(|i| density(f64::from(i) * width) * if i % 2 == 1 { 4.0 } else { 2.0 });
    0.5 + (inner.sum::<f64>() + density(0.0) + density(x)) * width / 3.0
}

#[test]
fn activations_are_precise_from_tail_to_tail() {
    let x: Vec<f32> = (-1201..=1201).map(|i| i as f32 * 0.01).collect();
    for activation in [Activation::Gelu, Activation::QuickGelu, Activation::Silu] {
        let function = |x: f64| match activation {
            Activation::Gelu => x * distribution(x),
            Activation::Silu => x / (1.0 + (-x).exp()),
            _ => x / (1.0 + (-1.702 * x).exp()),
        };
        let values: Vec<f64> = x.iter().map(|x| function(f64::from(*x))).collect();
        let slope = |x: &f32| (function(f64::from(*x) + 1e-5) - function(f64::from(*x) - 1e-5)) / 2e-5;
        let slopes: Vec<f64> = x.iter().map(slope).collect();
        for isa in Isa::supported() {
            let (mut found, mut derivative, mut again) = (vec![0.0; x.len()], x.clone(), vec![0.0; x.len()]);
            activate(isa, activation, &x, &mut found);
            activate_backward(isa, activation, &mut derivative, &mut again);
            assert_eq!(found, again);
            for i in 0..x.len() {
                let error = (f64::from(found[i]) - values[i]).abs();
                assert!(error < 4e-7 * f64::from(x[i].abs()).max(1.0), "{activation:?}({}) is {}", x[i], found[i]);
                let error = (f64::from(derivative[i]) - slopes[i]).abs();
                assert!(error < 2e-6, "{activation:?}'({}) is {}, expected {}", x[i], derivative[i], slopes[i]);
            }
        }
    }
}

#[test]
fn activations_saturate() {
    let x = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 0.0, -0.0, 1e-40, 88.0, -88.0, 1e19, -1e19];
    for activation in [Activation::Gelu, Activation::QuickGelu] {
        for isa in Isa::supported() {
            let mut y = [0.0; 10];
            activate(isa, activation, &x, &mut y);
            for (x, y) in x.iter().zip(y) {
                let limit = if *x > 10.0 { *x } else { 0.0 };
                assert!(
                    (y - limit).abs() <= 1e-6 * x.abs().clamp(1.0, 1e30),
                    "{activation:?}({x}) is {y} by {}",
                    isa.name()
                );
            }
        }
    }
}

fn layer_norm_f64(x: &[f64], gain: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let width = gain.len();
    let row = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / width as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let normal = x.iter().map(|x| (x - mean) / (variance + eps).sqrt());
        normal.zip(gain.iter().zip(bias)).map(|(x, (gain, bias))| x * gain + bias).collect::<Vec<_>>()
    };
    x.chunks_exact(width).flat_map(row).collect()
}

/// softmax(q·kᵀ/√width)·v.
fn attention_f64(shape: Heads, qkv: &[f64]) -> Vec<f64> {
    let Heads { tokens, heads, width, causal } = shape;
    let model = heads * width;
    let mut out = vec![0.0; qkv.len() / 3];
    for (row, out) in out.chunks_exact_mut(model).enumerate() {
        let sequence = row / tokens * tokens;
        let seen = if causal { row % tokens + 1 } else { tokens };
        for head in 0..heads {
            let at = |row: usize, part: usize| &qkv[row * 3 * model + part * model + head * width..][..width];
            let score = |other: usize| {
                let products = at(row, 0).iter().zip(at(sequence + other, 1)).map(|(q, k)| q * k);
                (products.sum::<f64>() / (width as f64).sqrt()).exp()
            };
            let total: f64 = (0..seen).map(score).sum();
            for other in 0..seen {
                for (out, v) in out[head * width..].iter_mut().zip(at(sequence + other, 2)) {
                    *out += score(other) / total * v;
                }
            }
        }
    }
    out
}

fn contrastive_f64(image: &[f64], text: &[f64], n: usize, log_scale: f64, pairs: Option<&[bool]>) -> f64 {
    let width = image.len() / n;
    let logit = |i: usize, j: usize| {
        let products = image[i * width..][..width].iter().zip(&text[j * width..][..width]).map(|(a, b)| a * b);
        products.sum::<f64>() * log_scale.exp()
    };
    let seen = |i: usize, j: usize| i == j || pairs.is_none_or(|pairs| !pairs[i * n + j]);
    let of = |i: usize| {
        let by_image: f64 = (0..n).filter(|j| seen(i, *j)).map(|j| logit(i, j).exp()).sum();
        let by_text: f64 = (0..n).filter(|j| seen(*j, i)).map(|j| logit(j, i).exp()).sum();
        by_image.ln() + by_text.ln() - 2.0 * logit(i, i)
    };
    (0..n).map(of).sum::<f64>() / (2 * n) as f64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layer_norm_and_its_gradients(rows in 1usize..5, width in 2usize..40, seed: u64) {
        let (x, dy) = (numbers(seed, rows * width), numbers(!seed, rows * width));
        let (gain, bias) = (numbers(seed ^ 5, width), numbers(seed ^ 6, width));
        let (x64, gain64, bias64) = (wide(&x), wide(&gain), wide(&bias));
        let eps = 1e-3;
        let y64 = |x: &[f64], gain: &[f64], bias: &[f64]| layer_norm_f64(x, gain, bias, f64::from(eps));
        for isa in Isa::supported() {
            let (mut y, mut stats) = (vec![0.0; x.len()], vec![0.0; 2 * rows]);
            layer_norm(isa, &x, &gain, &bias, eps, &mut y, &mut stats);
            close("y", &y, &y64(&x64, &gain64, &bias64), 2e-5);
            let (mut dx, mut dgain, mut dbias) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
            layer_norm_backward(isa, &x, &stats, &gain, &dy, &mut dx, &mut dgain, &mut dbias);
            close("dx", &dx, &differences(&x64, |x| weighted(&y64(x, &gain64, &bias64), &dy)), 1e-4);
            close("dgain", &dgain, &differences(&gain64, |gain| weighted(&y64(&x64, gain, &bias64), &dy)), 1e-4);
            close("dbias", &dbias, &differences(&bias64, |bias| weighted(&y64(&x64, &gain64, bias), &dy)), 1e-4);
        }
    }

    #[test]
    fn l2_normalize_and_its_gradient(rows in 1usize..4, width in 1usize..40, seed: u64) {
        let (x, dy) = (numbers(seed, rows * width), numbers(!seed, rows * width));
        let y64 = |x: &[f64]| {
            let row = |x: &[f64]| {
                let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                x.iter().map(|x| x / length).collect::<Vec<_>>()
            };
            x.chunks_exact(width).flat_map(row).collect::<Vec<_>>()
        };
        for isa in Isa::supported() {
            let (mut y, mut lengths, mut dx) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; x.len()]);
            l2_normalize(isa, &x, &mut y, &mut lengths);
            close("y", &y, &y64(&wide(&x)), 1e-6);
            l2_normalize_backward(isa, &y, &lengths, &dy, &mut dx);
            close("dx", &dx, &differences(&wide(&x), |x| weighted(&y64(x), &dy)), 1e-4);
        }
    }

    #[test]
    fn attention_and_its_gradient(tokens in 1usize..8, heads in 1usize..3, width in 1usize..20, causal: bool, seed: u64) {
        let shape = Heads { tokens, heads, width, causal };
        let rows = 2 * tokens;
        let (qkv, dout) = (numbers(seed, rows * 3 * heads * width), numbers(!seed, rows * heads * width));
        let expected = attention_f64(shape, &wide(&qkv));
        let slopes = differences(&wide(&qkv), |qkv| weighted(&attention_f64(shape, qkv), &dout));
        for isa in Isa::supported() {
            // Scratch may hold anything.
            let mut scratch = vec![f32::NAN; attention_scratch(shape)];
            let (mut out, mut dqkv) = (vec![f32::NAN; dout.len()], vec![f32::NAN; qkv.len()]);
            attention(isa, shape, &qkv, &mut out, &mut scratch);
            close("out", &out, &expected, 1e-5);
            scratch.fill(f32::NAN);
            attention_backward(isa, shape, &qkv, &dout, &mut dqkv, &mut scratch);
            close("dqkv", &dqkv, &slopes, 1e-4);
        }
    }

    #[test]
    fn long_attention(tokens in 49usize..130, width in 1usize..70, causal: bool, seed: u64) {
        let shape = Heads { tokens, heads: 1, width, causal };
        let qkv: Vec<f32> = numbers(seed, tokens * 3 * width).iter().map(|x| 3.0 * x).collect();
        let expected = attention_f64(shape, &wide(&qkv));
        for isa in Isa::supported() {
            let mut scratch = vec![f32::NAN; attention_scratch(shape)];
            let mut out = vec![f32::NAN; tokens * width];
            attention(isa, shape, &qkv, &mut out, &mut scratch);
            close("out", &out, &expected, 1e-5);
        }
    }

    #[test]
    fn contrastive_loss_and_its_gradients(n in 1usize..20, width in 1usize..9, pairs: bool, seed: u64) {
        let (image, text) = (numbers(seed, n * width), numbers(!seed, n * width));
        let pairs: Option<Vec<bool>> = pairs.then(|| numbers(seed ^ 9, n * n).iter().map(|x| *x > 0.3).collect());
        let pairs = pairs.as_deref();
        let (images, texts, log_scale) = (wide(&image), wide(&text), 0.7);
        for isa in Isa::supported() {
            let mut scratch = vec![f32::NAN; contrastive_scratch(n)];
            let (mut dimage, mut dtext) = (vec![0.0; n * width], vec![0.0; n * width]);
            let gradients = Some((&mut dimage[..], &mut dtext[..]));
            let found = contrastive(isa, &image, &text, n, log_scale as f32, pairs, gradients, &mut scratch);
            close("loss", &[found.loss], &[contrastive_f64(&images, &texts, n, log_scale, pairs)], 1e-5);
            let by_scale = differences(&[log_scale], |scale| contrastive_f64(&images, &texts, n, scale[0], pairs));
            close("dlog_scale", &[found.dlog_scale], &by_scale, 1e-4);
            let by_image = differences(&images, |images| contrastive_f64(images, &texts, n, log_scale, pairs));
            close("dimage", &dimage, &by_image, 1e-4);
            let by_text = differences(&texts, |texts| contrastive_f64(&images, texts, n, log_scale, pairs));
            close("dtext", &dtext, &by_text, 1e-4);
        }
    }

    #[test]
    fn gradients_of_weights(rows in 1usize..420, left in 1usize..70, right in 1usize..70, first in 0usize..70, seed: u64) {
        let (dy, x) = (numbers(seed, rows * left), numbers(!seed, rows * right));
        let first = first % left;
        let own = left - first;
        let before = numbers(seed ^ 7, own * right);
        let sum = |i: usize, j: usize| {
            (0..rows).map(|row| f64::from(dy[row * left + first + i]) * f64::from(x[row * right + j])).sum::<f64>()
        };
        let expected: Vec<f64> =
            (0..own * right).map(|at| f64::from(before[at]) + sum(at / right, at % right)).collect();
        for isa in Isa::supported() {
            let mut out = before.clone();
            let mut scratch = vec![f32::NAN; weight_gradient_scratch(isa, own, right)];
            let sides = (Side::new(&dy, left).columns(first, own), Side::new(&x, right));
            weight_gradient(isa, sides.0, sides.1, Pairing::Rows, &mut out, &mut scratch);
            close("gradient", &out, &expected, 1e-5);
        }
    }

    #[test]
    fn gradients_of_kernels_by_tiles(
        images in 1usize..30, sides in (3usize..11, 3usize..11), channels in (1usize..40, 1usize..40), before in 0usize..3, seed: u64,
    ) {
        let from = Size { height: sides.0, width: sides.1, channels: channels.0 };
        let window = Window { before, after: 1, ..Window::new(3, 1, 1) };
        let [height, width] = [sides.0, sides.1].map(|side| side + before + 1 - 2);
        let to = Size { height, width, channels: channels.1 };
        let x = numbers(seed, images * from.pixels() * from.channels);
        let dy = numbers(!seed, images * to.pixels() * to.channels);
        let before_all = numbers(seed ^ 7, to.channels * 9 * from.channels);
        let mut expected = wide(&before_all);
        for place in 0..images * to.pixels() {
            let (picture, y, x0) = (place / to.pixels(), place % to.pixels() / to.width, place % to.width);
            for tap in 0..9 {
                let at = (y + tap / 3).checked_sub(before).zip((x0 + tap % 3).checked_sub(before));
                let Some((line, column)) = at.filter(|at| at.0 < from.height && at.1 < from.width) else { continue };
                let read = &x[(picture * from.pixels() + line * from.width + column) * from.channels..][..from.channels];
                for (output, dy) in dy[place * to.channels..][..to.channels].iter().enumerate() {
                    let own = &mut expected[(output * 9 + tap) * from.channels..][..from.channels];
                    own.iter_mut().zip(read).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*dy));
                }
            }
        }
        let tiles = Tiles::new(Sweep { window, from, to });
        for isa in Isa::supported() {
            let mut out = before_all.clone();
            let mut scratch = vec![f32::NAN; winograd_gradient_scratch(isa, tiles)];
            winograd_gradient(isa, tiles, &x, &dy, &mut out, &mut scratch);
            close("gradient", &out, &expected, 1e-5);
        }
    }

    #[test]
    fn products_with_matrices_in_either_layout(m in 1usize..40, n in 1usize..90, k in 1usize..600, seed: u64) {
        let (a, b) = (numbers(seed, m * k), numbers(!seed, n * k));
        let at = |i: usize| (0..k).map(|p| f64::from(a[i / n * k + p]) * f64::from(b[i % n * k + p])).sum::<f64>();
        let expected: Vec<f64> = (0..m * n).map(at).collect();
        let turned: Vec<f32> = (0..n * k).map(|i| b[i % n * k + i / n]).collect();
        for isa in Isa::supported() {
            let workers = Workers::with_isa(2, isa).unwrap_or_else(|error| panic!("{error}"));
            for source in [Source::rows(&b, k), Source::columns(&turned, n)] {
                let map = Packed::borrowed(&workers, source);
                let (mut out, mut spread) = (vec![0.0; m * n], vec![0.0; m * n]);
                linear(Left::Rows(&a), &map, 0..map.panels(), Finish::NOTHING, &mut out);
                close("product", &out, &expected, 1e-5);
                workers.run(|| linear_spread(Left::Rows(&a), &map, 0..map.panels(), Finish::NOTHING, (7, 2), &mut spread));
                assert!(out == spread);
                let finish = Finish { added: Added::Result, ..Finish::NOTHING };
                linear(Left::Rows(&a), &map, 0..map.panels(), finish, &mut out);
                close("added product", &out, &expected.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 1e-5);
            }
        }
    }
}

#[test]
fn patches_are_ordered_channel_row_column() {
    let patches = Patches { channels: 2, height: 2, width: 4, size: 2 };
    let pixels: Vec<f32> = (0..16u8).map(f32::from).collect();
    let mut rows = [0.0; 16];
    patch_rows(&pixels, patches, &mut rows);
    assert_eq!(rows, [0., 1., 4., 5., 8., 9., 12., 13., 2., 3., 6., 7., 10., 11., 14., 15.]);
}

#[test]
fn gradients_of_repeated_rows_add_up() {
    for isa in Isa::supported() {
        let mut table = [0.0; 6];
        scatter_rows(isa, &mut table, 2, &[2, 0, 2], &[1., 2., 3., 4., 5., 6.]);
        assert_eq!(table, [3., 4., 0., 0., 6., 8.]);
    }
}
