//! Models that are trained, through the operations that they are made of: gradients against PyTorch's in 64-bit floating
//! point (reference/training.py), the same bits for any number of threads, and a loss that falls.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;

use runner_nn::{
    Activation, Attention, Backend, Block, Cpu, Dfdx, Isa, Layer, LayerNorm, Linear, Operation, Operations, Session,
    Size, Step, Stock, Window, Workers, optim,
};
use serde_json::Value;

/// A golden file, whose parameters are used one after another.
struct Golden {
    file: Value,
    used: Cell<usize>,
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|x| x as u32).collect()
}

impl Golden {
    fn read(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let file = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        Self { file, used: Cell::new(0) }
    }

    fn values(&self) -> Vec<f32> {
        let place = self.used.replace(self.used.get() + 1);
        numbers(&self.file["parameters"][place]["values"])
    }

    fn param<B: Backend>(&self, b: &B, width: usize) -> B::Param {
        let values = self.values();
        b.param("param", values.len() / width, width, values).unwrap()
    }

    fn weight<B: Backend>(&self, b: &B, inputs: usize) -> B::Weight {
        let values = self.values();
        b.weight("weight", values.len() / inputs, inputs, values).unwrap()
    }

    fn linear<B: Backend>(&self, b: &B, inputs: usize, outputs: usize) -> Linear<B> {
        Linear { weight: self.weight(b, inputs), bias: Some(self.param(b, outputs)) }
    }

    fn norm<B: Backend>(&self, b: &B, width: usize) -> LayerNorm<B> {
        LayerNorm { gain: self.param(b, width), bias: self.param(b, width), eps: 1e-5 }
    }

    fn convolution<B: Backend>(
        &self,
        b: &B,
        channels: usize,
        outputs: usize,
        window: Window,
        residual: Option<usize>,
        activation: Activation,
    ) -> Operation<B> {
        let weight = b.kernel("kernel", window, outputs, channels, self.values()).unwrap();
        Operation::Convolution { weight, bias: self.param(b, outputs), residual, activation }
    }

    fn group_norm<B: Backend>(&self, b: &B, groups: usize) -> Operation<B> {
        let (gain, bias) = (self.param(b, 8), self.param(b, 8));
        Operation::GroupNorm { gain, bias, groups, eps: 1e-6, activation: Activation::Silu }
    }

    /// The loss and all gradients are those of the file.
    fn check(&self, step: &Step) {
        let loss = self.file["loss"].as_f64().unwrap();
        assert!((f64::from(step.loss) - loss).abs() < 1e-5 * loss, "the loss is {}, expected {loss}", step.loss);
        let expected = self.file["parameters"].as_array().unwrap();
        assert_eq!(step.gradients.len(), expected.len());
        let expected: Vec<Vec<f32>> = expected.iter().map(|parameter| numbers(&parameter["gradient"])).collect();
        for (place, (found, expected)) in step.gradients.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "parameter {place}");
            let size = expected.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                let error = (found - expected).abs() / size;
                assert!(error < 2e-5, "gradient {place}[{i}] is {found}, expected {expected}");
            }
        }
    }
}

fn layer<B: Backend>(input: usize, window: Window, operation: Operation<B>) -> Layer<B> {
    Layer { input, window, operation }
}

/// The tokenizer of the golden file: its loss for `copies` of the batch, and the codes.
fn tokenizer<B: Backend>(golden: &Golden, b: &B, copies: usize) -> (B::Tensor, Vec<u32>) {
    golden.used.set(0);
    let (three, pixel, none) = (Window::new(3, 1, 1), Window::PIXEL, Activation::None);
    let half = Window { size: 3, stride: 2, before: 0, after: 1 };
    let first = golden.convolution(b, 3, 8, three, None, none);
    let norm = golden.group_norm(b, 4);
    let second = golden.convolution(b, 8, 8, three, None, none);
    let encoder = [
        layer(0, three, first),
        layer(1, pixel, norm),
        layer(2, three, second),
        layer(3, pixel, golden.group_norm(b, 2)),
        layer(4, three, golden.convolution(b, 8, 8, three, Some(1), none)),
        layer(5, half, golden.convolution(b, 8, 8, half, None, Activation::Relu)),
        layer(6, Window::new(2, 2, 0), Operation::MaxPool),
        layer(7, pixel, golden.convolution(b, 8, 6, pixel, None, none)),
    ];
    let codebook = golden.param(b, 6);
    let mut decoder = vec![
        layer(0, three, golden.convolution(b, 6, 8, three, None, Activation::Relu)),
        layer(1, Window::new(2, 2, 0), Operation::Upsample),
        layer(2, three, golden.convolution(b, 8, 8, three, None, Activation::Gelu)),
    ];
    let weight = golden.weight(b, 8);
    let transposed = Operation::Transposed { weight, bias: golden.param(b, 4), activation: Activation::Silu };
    decoder.push(layer(3, Window::new(4, 2, 1), transposed));
    decoder.push(layer(4, three, golden.convolution(b, 4, 3, three, None, none)));
    let pixels = numbers(&golden.file["pixels"]).repeat(copies);
    let x = b.tensor(pixels.len() / 3, 3, pixels.clone()).unwrap();
    let z = b.convolutions(&x, Size { height: 8, width: 8, channels: 3 }, &encoder).unwrap();
    let quantized = b.quantize(&z, &codebook, 0.25).unwrap();
    let y = b.convolutions(&quantized.values, Size { height: 2, width: 2, channels: 6 }, &decoder).unwrap();
    let error = b.mean_squared_error(&y, &pixels).unwrap();
    (b.sum(&[(&error, 1.0), (&quantized.loss, 1.0)]).unwrap(), quantized.codes)
}

/// The prior of the golden file.
fn prior<B: Backend>(golden: &Golden, b: &B, copies: usize) -> B::Tensor {
    golden.used.set(0);
    let (tokens, width) = (7, 8);
    let (table, positions) = (golden.param(b, width), golden.param(b, width));
    let block = |_| Block {
        norm1: golden.norm(b, width),
        qkv: golden.linear(b, width, 3 * width),
        out: golden.linear(b, width, width),
        norm2: golden.norm(b, width),
        up: golden.linear(b, width, 12),
        down: golden.linear(b, 12, width),
    };
    let blocks: Vec<_> = (0..2).map(block).collect();
    let (norm, head) = (golden.norm(b, width), golden.linear(b, width, 11));
    let [inputs, targets] = ["ids", "targets"].map(|name| ids(&golden.file[name]).repeat(copies));
    let n = inputs.len() / tokens;
    let x = b.add_positions(&b.embed(&table, &inputs).unwrap(), n, None, &positions).unwrap();
    let attention = Attention { tokens, heads: 2, causal: true };
    let x = b.transformer(&x, &blocks, attention, Activation::Gelu).unwrap();
    let logits = head.apply(b, &b.layer_norm(&x, &norm).unwrap()).unwrap();
    let weight = |i: usize| if i % tokens < 3 { 0.125 / (3 * n) as f32 } else { 0.875 / (4 * n) as f32 };
    let weights: Vec<f32> = (0..targets.len()).map(weight).collect();
    b.cross_entropy(&logits, &targets, Some(&weights)).unwrap()
}

#[test]
fn tokenizers_gradients_are_pytorchs() {
    let golden = Golden::read("tokenizer");
    for isa in Isa::supported() {
        let session = Session::over(Cpu::over(Workers::with_isa(2, isa).unwrap()));
        let (loss, codes) = tokenizer(&golden, &session, 1);
        assert_eq!(codes, ids(&golden.file["codes"]));
        golden.check(&session.backward(loss).unwrap());
    }
}

#[test]
fn priors_gradients_are_pytorchs() {
    fn check<O: Operations>(golden: &Golden, session: Session<O>) {
        golden.check(&session.backward(prior(golden, &session, 1)).unwrap());
    }
    let golden = Golden::read("prior");
    check(&golden, Session::<Stock<dfdx::prelude::Cpu>>::new(1).unwrap());
    for isa in Isa::supported() {
        check(&golden, Session::over(Cpu::over(Workers::with_isa(2, isa).unwrap())));
    }
}

/// A batch of copies has the loss and the gradients of one, whatever the shards; inference computes the same loss.
#[test]
fn shards_and_threads_change_nothing() {
    let [images, texts] = [Golden::read("tokenizer"), Golden::read("prior")];
    let steps = |threads: usize, copies: usize| {
        let session = Session::<Cpu>::new(threads).unwrap();
        let first = session.backward(tokenizer(&images, &session, copies).0).unwrap();
        let session = Session::<Cpu>::new(threads).unwrap();
        [first, session.backward(prior(&texts, &session, copies)).unwrap()]
    };
    for copies in [5, 43] {
        let one = steps(1, copies);
        images.check(&one[0]);
        texts.check(&one[1]);
        for threads in [2, 3] {
            let more = steps(threads, copies);
            assert!(one == more, "{threads} threads change the result");
        }
        let inference = Dfdx::<Cpu>::inference(2).unwrap();
        let loss = inference.values(&tokenizer(&images, &inference, copies).0).unwrap()[0];
        assert!((loss - one[0].loss).abs() < 1e-5 * loss);
    }
}

#[test]
fn steps_make_the_loss_fall() {
    let golden = Golden::read("tokenizer");
    let session = Session::<Cpu>::new(2).unwrap();
    let mut optimizer = optim::AdamW::new(0.9, 0.98, 1e-6, golden.file["parameters"].as_array().unwrap().len());
    let mut losses = Vec::new();
    let model = trainable(&golden, &session);
    for _ in 0..60 {
        let step = session.backward(model(&session)).unwrap();
        losses.push(step.loss);
        session.update(|_, values| {
            let factor = optim::clip_factor(optim::global_norm(&step.gradients), 1.0);
            optimizer.step(values, &step.gradients, optim::Stride { rate: 1e-2, factor }, |_| 0.0);
        });
    }
    assert!(losses[59] < 0.6 * losses[0], "from {} to {}", losses[0], losses[59]);
}

/// A linear autoencoder with a codebook whose parameters are made once.
fn trainable<B: Backend>(golden: &Golden, b: &B) -> impl Fn(&B) -> B::Tensor + use<B> {
    let pixels = numbers(&golden.file["pixels"]);
    let make = |outputs: usize, inputs: usize| {
        let values = (0..outputs * inputs).map(|i| ((i * 37 % 101) as f32 - 50.0) * 8e-3).collect();
        let weight = b.weight("weight", outputs, inputs, values).unwrap();
        Linear::<B> { weight, bias: Some(b.param("bias", 1, outputs, vec![0.0; outputs]).unwrap()) }
    };
    let (down, up) = (make(6, 48), make(48, 6));
    let codebook = (0..20 * 6).map(|i| ((i * 53 % 97) as f32 - 48.0) * 1e-2).collect();
    let codebook = b.param("codebook", 20, 6, codebook).unwrap();
    move |b| {
        let x = b.tensor(pixels.len() / 48, 48, pixels.clone()).unwrap();
        let quantized = b.quantize(&down.apply(b, &x).unwrap(), &codebook, 0.25).unwrap();
        let error = b.mean_squared_error(&up.apply(b, &quantized.values).unwrap(), &pixels).unwrap();
        b.sum(&[(&error, 1.0), (&quantized.loss, 1.0)]).unwrap()
    }
}

#[test]
fn losses_check_their_operands() {
    let session = Session::<Cpu>::new(1).unwrap();
    let x = session.tensor(2, 3, vec![0.0; 6]).unwrap();
    let message = |result: Result<_, runner_nn::Error>| result.err().unwrap().to_string();
    assert_eq!(message(session.cross_entropy(&x, &[0], None)), "cross-entropy: number of targets is 1, expected 2");
    assert_eq!(
        message(session.cross_entropy(&x, &[0, 3], None)),
        "cross-entropy: index 3 is out of range, there are 3 rows"
    );
    assert!(message(session.cross_entropy(&x, &[0, 1], Some(&[1.0]))).contains("number of weights"));
    assert!(message(session.mean_squared_error(&x, &[0.0])).contains("number of values of the target"));
    assert!(message(session.sum(&[])).contains("number of terms"));
    let wide = session.tensor(2, 4, vec![0.0; 8]).unwrap();
    assert!(message(session.sum(&[(&x, 1.0), (&wide, 1.0)])).contains("width of a term"));
    let codebook = session.param("codebook", 5, 4, vec![0.0; 20]).unwrap();
    assert!(message(session.quantize(&x, &codebook, 0.25).map(|q| q.loss)).contains("width of the codebook"));
}

/// A term may come twice, and what nothing depends on gets no gradient.
#[test]
fn sums_add_their_gradients() {
    fn check<O: Operations>(session: Session<O>) {
        let table = session.param("table", 2, 1, vec![3.0, 4.0]).unwrap();
        let x = session.embed(&table, &[0]).unwrap();
        let _unused = session.mean_squared_error(&session.embed(&table, &[1]).unwrap(), &[0.0]).unwrap();
        let step = session.backward(session.sum(&[(&x, 2.0), (&x, 0.5)]).unwrap()).unwrap();
        assert_eq!((step.loss, step.gradients), (7.5, vec![vec![2.5, 0.0]]));
    }
    check(Session::<Cpu>::new(1).unwrap());
    check(Session::<Stock<dfdx::prelude::Cpu>>::new(1).unwrap());
}
