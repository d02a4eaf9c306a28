//! Times training steps of three models on two threads: `cargo bench -p runner-nn`.
//!
//! A step is forward, loss, backward, shortening of the gradient and AdamW's update. With `serve` it answers lines on stdin
//! instead, for `benches/compare/training.py`, where the models are described: `step MODEL REPEATS` with the seconds of
//! that many steps.

#![expect(clippy::print_stdout, reason = "the timings are the output")]

use std::{
    env,
    io::{self, BufRead, Write},
    time::Instant,
};

use runner_nn::{
    Activation, Activations, Attention, Backend, Block, Cpu, Error, Layer, LayerNorm, Linear, Operation, Patches,
    Session, Size, Window, optim,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: usize = 2;

/// Makes parameters with small values that differ.
struct Maker<'a, B>(&'a B);

impl<B: Backend> Maker<'_, B> {
    fn values(&self, count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 1e-3).collect()
    }

    fn param(&self, rows: usize, width: usize) -> Result<B::Param, Error> {
        self.0.param("param", rows, width, self.values(rows * width))
    }

    fn weight(&self, outputs: usize, inputs: usize) -> Result<B::Weight, Error> {
        self.0.weight("weight", outputs, inputs, self.values(outputs * inputs))
    }

    fn linear(&self, outputs: usize, inputs: usize) -> Result<Linear<B>, Error> {
        Ok(Linear { weight: self.weight(outputs, inputs)?, bias: Some(self.param(1, outputs)?) })
    }

    fn norm(&self, width: usize) -> Result<LayerNorm<B>, Error> {
        let gain = self.0.param("gain", 1, width, vec![1.0; width])?;
        Ok(LayerNorm { gain, bias: self.param(1, width)?, eps: 1e-5 })
    }

    fn blocks(&self, count: usize, width: usize, hidden: usize) -> Result<Vec<Block<B>>, Error> {
        let block = |_| {
            Ok(Block {
                norm1: self.norm(width)?,
                qkv: self.linear(3 * width, width)?,
                out: self.linear(width, width)?,
                norm2: self.norm(width)?,
                up: self.linear(hidden, width)?,
                down: self.linear(width, hidden)?,
            })
        };
        (0..count).map(block).collect()
    }

    /// A convolution that reads result `input` of `channels` channels.
    fn convolution(
        &self,
        input: usize,
        channels: usize,
        outputs: usize,
        window: Window,
        activation: Activation,
        residual: Option<usize>,
    ) -> Result<Layer<B>, Error> {
        let values = self.values(outputs * window.size * window.size * channels);
        let weight = self.0.kernel("kernel", window, outputs, channels, values)?;
        let operation = Operation::Convolution { weight, bias: self.param(1, outputs)?, residual, activation };
        Ok(Layer { input, window, operation })
    }

    /// A transposed convolution of 4 × 4 that doubles the size.
    fn transposed(
        &self,
        input: usize,
        channels: usize,
        outputs: usize,
        activation: Activation,
    ) -> Result<Layer<B>, Error> {
        let weight = self.weight(16 * outputs, channels)?;
        let operation = Operation::Transposed { weight, bias: self.param(1, outputs)?, activation };
        Ok(Layer { input, window: Window::new(4, 2, 1), operation })
    }

    /// Appends two residual blocks of 128 channels and a rectifier.
    fn residuals(&self, layers: &mut Vec<Layer<B>>) -> Result<(), Error> {
        for _ in 0..2 {
            let start = layers.len();
            layers.push(rectifier(start));
            layers.push(self.convolution(start + 1, 128, 32, Window::new(3, 1, 1), Activation::Relu, None)?);
            layers.push(self.convolution(start + 2, 32, 128, Window::PIXEL, Activation::None, Some(start))?);
        }
        layers.push(rectifier(layers.len()));
        Ok(())
    }
}

fn rectifier<B: Backend>(input: usize) -> Layer<B> {
    Layer { input, window: Window::PIXEL, operation: Operation::Activate(Activation::Relu) }
}

type Training = Session<Cpu>;
/// Computes a model's loss.
type Loss = Box<dyn Fn(&Training) -> Result<Activations, Error>>;

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// `builtin:mini-clip`, batch 256, texts of 24 tokens.
fn clip(b: &Training) -> Result<Loss, Error> {
    let make = Maker(b);
    let (n, text_tokens) = (256, 24);
    let patches = Patches { channels: 3, height: 28, width: 28, size: 7 };
    let patch = make.weight(128, patches.patch_len())?;
    let (class, positions) = (make.param(1, 128)?, make.param(17, 128)?);
    let (first_norm, last_norm) = (make.norm(128)?, make.norm(128)?);
    let blocks = make.blocks(3, 128, 448)?;
    let projection = Linear { weight: make.weight(64, 128)?, bias: None };
    let (tokens, text_positions) = (make.param(722, 96)?, make.param(32, 96)?);
    let text_blocks = make.blocks(2, 96, 384)?;
    let (text_norm, text_projection) = (make.norm(96)?, Linear { weight: make.weight(64, 96)?, bias: None });
    let log_scale = b.param("logit_scale", 1, 1, vec![2.6592])?;
    let pixels = noise(n * patches.image_len());
    let ids: Vec<u32> = (0..n * text_tokens).map(|i| (i * 7 % 722) as u32).collect();
    let first: Vec<u32> = (0..n).map(|i| (i * 17) as u32).collect();
    let last: Vec<u32> = (0..n).map(|i| ((i + 1) * text_tokens - 1) as u32).collect();
    Ok(Box::new(move |b| {
        let x = b.patch_embed(&pixels, patches, &patch, None)?;
        let x = b.layer_norm(&b.add_positions(&x, n, Some(&class), &positions)?, &first_norm)?;
        let attention = Attention { tokens: 17, heads: 4, causal: false };
        let x = b.transformer_rows(&x, &blocks, attention, Activation::QuickGelu, &first)?;
        let image = projection.apply(b, &b.layer_norm(&x, &last_norm)?)?;
        let x = b.add_positions(&b.embed(&tokens, &ids)?, n, None, &text_positions)?;
        let attention = Attention { tokens: text_tokens, heads: 4, causal: true };
        let x = b.transformer_rows(&x, &text_blocks, attention, Activation::QuickGelu, &last)?;
        let text = text_projection.apply(b, &b.layer_norm(&x, &text_norm)?)?;
        b.contrastive_loss(&b.l2_normalize(&image)?, &b.l2_normalize(&text)?, &log_scale, None)
    }))
}

/// An autoregressive prior over 7 × 7 codes, batch 64.
fn prior(b: &Training) -> Result<Loss, Error> {
    let make = Maker(b);
    let (n, tokens) = (64, 49);
    let (codes, positions) = (make.param(266, 192)?, make.param(tokens, 192)?);
    let blocks = make.blocks(6, 192, 768)?;
    let (norm, head) = (make.norm(192)?, make.linear(256, 192)?);
    let inputs: Vec<u32> = (0..n * tokens).map(|i| (i * 7 % 266) as u32).collect();
    let targets: Vec<u32> = (0..n * tokens).map(|i| (i * 11 % 256) as u32).collect();
    Ok(Box::new(move |b| {
        let x = b.add_positions(&b.embed(&codes, &inputs)?, n, None, &positions)?;
        let attention = Attention { tokens, heads: 6, causal: true };
        let x = b.transformer(&x, &blocks, attention, Activation::Gelu)?;
        b.cross_entropy(&head.apply(b, &b.layer_norm(&x, &norm)?)?, &targets, None)
    }))
}

/// A VQ-VAE on 28 × 28 pictures, batch 128.
fn tokenizer(b: &Training) -> Result<Loss, Error> {
    let make = Maker(b);
    let (three, four) = (Window::new(3, 1, 1), Window::new(4, 2, 1));
    let mut encoder = vec![
        make.convolution(0, 1, 64, four, Activation::Relu, None)?,
        make.convolution(1, 64, 128, four, Activation::Relu, None)?,
        make.convolution(2, 128, 128, three, Activation::None, None)?,
    ];
    make.residuals(&mut encoder)?;
    encoder.push(make.convolution(encoder.len(), 128, 64, Window::PIXEL, Activation::None, None)?);
    let codebook = make.param(256, 64)?;
    let mut decoder = vec![make.convolution(0, 64, 128, three, Activation::None, None)?];
    make.residuals(&mut decoder)?;
    decoder.push(make.transposed(decoder.len(), 128, 64, Activation::Relu)?);
    decoder.push(make.transposed(decoder.len(), 64, 1, Activation::None)?);
    let pixels = noise(128 * 784);
    Ok(Box::new(move |b| {
        let x = b.tensor(pixels.len(), 1, pixels.clone())?;
        let z = b.convolutions(&x, Size { height: 28, width: 28, channels: 1 }, &encoder)?;
        let quantized = b.quantize(&z, &codebook, 0.25)?;
        let y = b.convolutions(&quantized.values, Size { height: 7, width: 7, channels: 64 }, &decoder)?;
        b.sum(&[(&b.mean_squared_error(&y, &pixels)?, 1.0), (&quantized.loss, 1.0)])
    }))
}

/// A model with its optimizer.
struct Trained {
    name: &'static str,
    session: Training,
    loss: Loss,
    optimizer: optim::AdamW,
}

impl Trained {
    fn new(name: &'static str, make: fn(&Training) -> Result<Loss, Error>) -> Result<Self, Error> {
        let session = Training::new(THREADS)?;
        let loss = make(&session)?;
        let optimizer = optim::AdamW::new(0.9, 0.98, 1e-6, session.parameters().len());
        Ok(Self { name, session, loss, optimizer })
    }

    /// The seconds of some steps.
    fn steps(&mut self, count: usize) -> Result<f64, Error> {
        let start = Instant::now();
        for _ in 0..count {
            let gradients = self.session.backward((self.loss)(&self.session)?)?.gradients;
            self.session.update(|_, values| {
                let factor = optim::clip_factor(optim::global_norm(&gradients), 1.0);
                self.optimizer.step(values, &gradients, optim::Stride { rate: 1e-4, factor }, |_| 0.1);
            });
            self.session.recycle(gradients);
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut models =
        [Trained::new("clip", clip)?, Trained::new("prior", prior)?, Trained::new("tokenizer", tokenizer)?];
    for model in &mut models {
        model.steps(3)?;
    }
    if env::args().nth(1).as_deref() == Some("serve") {
        println!("ready");
        for line in io::stdin().lock().lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["step", name, count] = words.as_slice() else {
                return Err(format!("expected `step MODEL REPEATS`, found `{line}`").into());
            };
            let model = models.iter_mut().find(|model| model.name == *name);
            println!("{}", model.ok_or("no such model")?.steps(count.parse()?)?);
            io::stdout().flush()?;
        }
        return Ok(());
    }
    for model in &mut models {
        let mut times = (0..9).map(|_| model.steps(3)).collect::<Result<Vec<_>, _>>()?;
        times.sort_by(f64::total_cmp);
        println!("{}: {:.1} ms a step", model.name, times[times.len() / 2] / 3.0 * 1e3);
    }
    Ok(())
}
