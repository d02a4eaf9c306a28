//! Times a contrastive training step of a small CLIP and the image tower of ViT-B/32: `cargo bench -p runner-nn`.

#![expect(clippy::print_stdout, reason = "the timings are the output")]

use std::time::Instant;

use runner_nn::{Activation, Attention, Backend, Block, Cpu, Dfdx, Error, LayerNorm, Linear, Session};

/// Parameters of one block with small values that differ.
fn block<B: Backend>(b: &B, width: usize) -> Result<Block<B>, Error> {
    let values = |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 4e-4).collect::<Vec<_>>();
    let norm = || {
        let gain = b.param("gain", 1, width, vec![1.0; width])?;
        Ok::<_, Error>(LayerNorm { gain, bias: b.param("bias", 1, width, vec![0.0; width])?, eps: 1e-5 })
    };
    let linear = |outputs: usize, inputs: usize| {
        let weight = b.weight("weight", outputs, inputs, values(outputs * inputs))?;
        Ok::<_, Error>(Linear { weight, bias: Some(b.param("bias", 1, outputs, values(outputs))?) })
    };
    Ok(Block {
        norm1: norm()?,
        qkv: linear(3 * width, width)?,
        out: linear(width, width)?,
        norm2: norm()?,
        up: linear(4 * width, width)?,
        down: linear(width, 4 * width)?,
    })
}

/// One tower: `batch` sequences of `tokens`, the first row of each at the end.
fn tower<B: Backend>(
    b: &B,
    blocks: &[Block<B>],
    batch: usize,
    tokens: usize,
    width: usize,
    causal: bool,
) -> Result<B::Tensor, Error> {
    let x = (0..batch * tokens * width).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = b.tensor(batch * tokens, width, x)?;
    let heads = width / if width > 128 { 64 } else { 32 };
    let x = b.transformer(&x, blocks, Attention { tokens, heads, causal }, Activation::QuickGelu)?;
    let first: Vec<u32> = (0..batch).map(|i| (i * tokens) as u32).collect();
    b.l2_normalize(&b.rows(&x, &first)?)
}

/// The best of some runs, in milliseconds.
fn best(runs: usize, mut run: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

fn main() -> Result<(), Error> {
    for threads in [1, 2] {
        for image_tokens in [50, 17] {
            let session = Session::<Cpu>::new(threads)?;
            let image = (0..4).map(|_| block(&session, 128)).collect::<Result<Vec<_>, _>>()?;
            let text = (0..3).map(|_| block(&session, 128)).collect::<Result<Vec<_>, _>>()?;
            let scale = session.param("logit_scale", 1, 1, vec![2.6])?;
            let time = best(6, || {
                let image = tower(&session, &image, 256, image_tokens, 128, false)?;
                let text = tower(&session, &text, 256, 24, 128, true)?;
                session.backward(session.contrastive_loss(&image, &text, &scale, None)?).map(drop)
            })?;
            println!(
                "training step, image 4×128 on {image_tokens} tokens, text 3×128 on 24, batch 256, {threads} threads: {time:.0} ms"
            );
        }
        let backend = Dfdx::<Cpu>::inference(threads)?;
        let blocks = (0..12).map(|_| block(&backend, 768)).collect::<Result<Vec<_>, _>>()?;
        for batch in [1, 8, 32] {
            let time = best(3, || tower(&backend, &blocks, batch, 50, 768, false).map(drop))?;
            println!("ViT-B/32, batch {batch}, {threads} threads: {:.1} images a second", batch as f64 / time * 1e3);
        }
    }
    Ok(())
}
