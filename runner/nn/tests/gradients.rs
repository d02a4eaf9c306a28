//! Our operations against dfdx's own: the same model on both, results and gradients of all parameters compared, on
//! every instruction set of this machine and over shapes that fit no register.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod numbers;

use proptest::prelude::*;
use runner_nn::{
    Activation, Attention, Backend, Block, Cpu, Epilogue, Isa, LayerNorm, Linear, Operations, Patches, Session, Step,
    Stock, Workers,
};

use numbers::numbers;

/// A small image-text model.
#[derive(Debug, Clone)]
struct Model {
    batch: usize,
    tokens: usize,
    heads: usize,
    head_width: usize,
    hidden: usize,
    blocks: usize,
    bias: bool,
    causal: bool,
    activation: Activation,
    true_pairs: Option<Vec<bool>>,
    /// Whether blocks run as a stack or part by part.
    whole: bool,
}

/// Makes parameters, each with numbers of its own.
struct Maker<'a, B>(&'a B, std::cell::Cell<usize>);

impl<B: Backend> Maker<'_, B> {
    fn values(&self, count: usize, scale: f32, offset: f32) -> Vec<f32> {
        self.1.set(self.1.get() + 1);
        numbers(self.1.get(), count).into_iter().map(|x| x * scale + offset).collect()
    }
    fn param(&self, rows: usize, width: usize) -> B::Param {
        self.0.param("param", rows, width, self.values(rows * width, 0.5, 0.0)).unwrap()
    }
    fn linear(&self, outputs: usize, inputs: usize, bias: bool) -> Linear<B> {
        let scale = 2.0 / (inputs as f32).sqrt();
        let weight = self.0.weight("weight", outputs, inputs, self.values(outputs * inputs, scale, 0.0)).unwrap();
        Linear { weight, bias: bias.then(|| self.param(1, outputs)) }
    }
    fn norm(&self, width: usize) -> LayerNorm<B> {
        let gain = self.0.param("gain", 1, width, self.values(width, 0.3, 1.0)).unwrap();
        LayerNorm { gain, bias: self.param(1, width), eps: 1e-5 }
    }
    fn block(&self, model: &Model) -> Block<B> {
        let width = model.heads * model.head_width;
        Block {
            norm1: self.norm(width),
            qkv: self.linear(3 * width, width, model.bias),
            out: self.linear(width, width, model.bias),
            norm2: self.norm(width),
            up: self.linear(model.hidden, width, model.bias),
            down: self.linear(width, model.hidden, model.bias),
        }
    }
}

impl Model {
    fn stack<B: Backend>(
        &self,
        backend: &B,
        x: B::Tensor,
        blocks: &[Block<B>],
        tokens: usize,
        causal: bool,
    ) -> B::Tensor {
        let attention = Attention { tokens, heads: self.heads, causal };
        if self.whole {
            return backend.transformer(&x, blocks, attention, self.activation).unwrap();
        }
        blocks.iter().fold(x, |x, block| backend.block(&x, block, attention, self.activation).unwrap())
    }

    /// The loss of both towers; also returns the embeddings.
    fn run<B: Backend>(&self, b: &B) -> (B::Tensor, Vec<f32>) {
        let maker = Maker(b, Default::default());
        let width = self.heads * self.head_width;
        let n = self.batch;

        let ids: Vec<u32> = (0..n * self.tokens).map(|i| (i * 7 % 11) as u32).collect();
        let x = b.embed(&maker.param(11, width), &ids).unwrap();
        let x = b.add_positions(&x, n, None, &maker.param(self.tokens + 3, width)).unwrap();
        let blocks: Vec<_> = (0..self.blocks).map(|_| maker.block(self)).collect();
        let x = self.stack(b, x, &blocks, self.tokens, self.causal);
        let last: Vec<u32> = (0..n).map(|i| (i * self.tokens + i % self.tokens) as u32).collect();
        let x = b.layer_norm(&b.rows(&x, &last).unwrap(), &maker.norm(width)).unwrap();
        let text = maker.linear(5, width, false).apply(b, &x).unwrap();

        let patches = Patches { channels: 2, height: 6, width: 9, size: 3 };
        let pixels = numbers(999, n * patches.image_len());
        let patch = maker.linear(width, patches.patch_len(), self.bias);
        let x = b.patch_embed(&pixels, patches, &patch.weight, patch.bias.as_ref()).unwrap();
        let tokens = patches.count() + 1;
        let x = b.add_positions(&x, n, Some(&maker.param(1, width)), &maker.param(tokens, width)).unwrap();
        let x = b.layer_norm(&x, &maker.norm(width)).unwrap();
        let blocks: Vec<_> = (0..self.blocks).map(|_| maker.block(self)).collect();
        let first: Vec<u32> = (0..n).map(|i| (i * tokens) as u32).collect();
        let attention = Attention { tokens, heads: self.heads, causal: false };
        let x = if self.whole {
            b.transformer_rows(&x, &blocks, attention, self.activation, &first).unwrap()
        } else {
            b.rows(&self.stack(b, x, &blocks, tokens, false), &first).unwrap()
        };
        let image = maker.linear(5, width, true);
        let image = b
            .linear(
                &x,
                &image.weight,
                Epilogue { bias: image.bias.as_ref(), activation: self.activation, residual: Some(&text) },
            )
            .unwrap();

        let (image, text) = (b.l2_normalize(&image).unwrap(), b.l2_normalize(&text).unwrap());
        let scale = b.param("logit_scale", 1, 1, vec![1.3]).unwrap();
        let loss = b.contrastive_loss(&image, &text, &scale, self.true_pairs.as_deref()).unwrap();
        (loss, [b.values(&image).unwrap(), b.values(&text).unwrap()].concat())
    }

    fn step<O: Operations>(&self, session: Session<O>) -> (Step, Vec<f32>) {
        let (loss, embeddings) = self.run(&session);
        (session.backward(loss).unwrap(), embeddings)
    }
}

/// Values differ by at most `tolerance` of `size`.
fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32, size: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / size;
        assert!(error <= tolerance, "{what}[{i}] is {found}, expected {expected}, an error of {error} · {size}");
    }
}

fn model() -> impl Strategy<Value = Model> {
    let activation = prop_oneof![
        Just(Activation::None),
        Just(Activation::Gelu),
        Just(Activation::QuickGelu),
        Just(Activation::Silu),
        Just(Activation::Relu),
        Just(Activation::Relu6)
    ];
    let sizes = (2usize..9, 1usize..70, 1usize..4, 2usize..37, 1usize..50, 0usize..3);
    (sizes, any::<[bool; 4]>(), activation).prop_map(|(sizes, [bias, causal, masked, whole], activation)| {
        let (batch, tokens, heads, head_width, hidden, blocks) = sizes;
        let true_pairs = masked.then(|| (0..batch * batch).map(|i| i % 3 == 1 || i % 7 == 2).collect());
        Model { batch, tokens, heads, head_width, hidden, blocks, bias, causal, activation, true_pairs, whole }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernels_equal_stock_operations(model in model()) {
        let (expected, embeddings) = model.step(Session::<Stock<dfdx::prelude::Cpu>>::new(1).unwrap());
        for isa in Isa::supported() {
            let workers = Workers::with_isa(1, isa).unwrap();
            let (found, found_embeddings) = model.step(Session::over(Cpu::over(workers)));
            close("embeddings", &found_embeddings, &embeddings, 1e-4, 1.0);
            close("loss", &[found.loss], &[expected.loss], 1e-5, 1.0);
            let size = expected.gradients.iter().flatten().fold(1e-3f32, |size, x| size.max(x.abs()));
            for (i, (found, expected)) in found.gradients.iter().zip(&expected.gradients).enumerate() {
                close(&format!("{} gradient {i}", isa.name()), found, expected, 2e-4, size);
            }
        }
    }
}

/// More sequences than fit a shard, in no round number.
fn large() -> Model {
    Model {
        batch: 131,
        tokens: 13,
        heads: 2,
        head_width: 16,
        hidden: 100,
        blocks: 2,
        bias: true,
        causal: true,
        activation: Activation::QuickGelu,
        true_pairs: None,
        whole: true,
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bits = |threads| {
        let (step, embeddings) = large().step(Session::<Cpu>::new(threads).unwrap());
        let gradients = step.gradients.into_iter().flatten();
        gradients.chain(embeddings).chain([step.loss]).map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = bits(1);
    assert!(one == bits(2), "two threads change the result");
    assert!(one == bits(3), "three threads change the result");
}

#[test]
fn inference_equals_training() {
    let model = large();
    let trained = model.step(Session::<Cpu>::new(2).unwrap()).1;
    let inferred = model.run(&runner_nn::Dfdx::<Cpu>::inference(2).unwrap()).1;
    assert!(trained == inferred, "recording changes the result");
}

#[test]
fn one_image_gives_the_same_bits_on_any_number_of_threads() {
    let model = Model { batch: 1, tokens: 77, head_width: 64, heads: 6, hidden: 1100, ..large() };
    let run = |threads| model.run(&runner_nn::Dfdx::<Cpu>::inference(threads).unwrap()).1;
    assert!(run(1) == run(2), "two threads change the result");
}
