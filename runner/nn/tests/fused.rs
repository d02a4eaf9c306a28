//! Fused inference against the stock operations of dfdx, over sizes that fit nothing, on every instruction set of this machine;
//! a row's bits, whatever is computed beside it and on how many threads.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod numbers;

use std::cell::Cell;

use proptest::prelude::*;
use runner_nn::{
    Activation, Attention, Backend, Block, Dfdx, Epilogue, Fused, Isa, LayerNorm, Linear, Patches, Stock, Workers,
};

use numbers::numbers;

/// A model with an image and a text tower.
#[derive(Debug, Clone)]
struct Model {
    heads: usize,
    head_width: usize,
    hidden: usize,
    blocks: usize,
    bias: bool,
    activation: Activation,
    patches: Patches,
}

/// Makes parameters, each of other values.
struct Maker<'a, B>(&'a B, Cell<usize>);

impl<B: Backend> Maker<'_, B> {
    fn values(&self, rows: usize, width: usize, scale: f32) -> Vec<f32> {
        self.1.set(self.1.get() + 1);
        numbers(self.1.get(), rows * width).into_iter().map(|x| x * scale).collect()
    }

    fn param(&self, rows: usize, width: usize) -> B::Param {
        self.0.param("parameter", rows, width, self.values(rows, width, 0.5)).unwrap()
    }

    fn linear(&self, outputs: usize, inputs: usize, bias: bool) -> Linear<B> {
        let values = self.values(outputs, inputs, 1.0 / (inputs as f32).sqrt());
        let weight = self.0.weight("weight", outputs, inputs, values).unwrap();
        Linear { weight, bias: bias.then(|| self.param(1, outputs)) }
    }

    fn norm(&self, width: usize) -> LayerNorm<B> {
        LayerNorm { gain: self.param(1, width), bias: self.param(1, width), eps: 1e-5 }
    }

    fn blocks(&self, model: &Model) -> Vec<Block<B>> {
        let width = model.width();
        let block = |_| Block {
            norm1: self.norm(width),
            qkv: self.linear(3 * width, width, model.bias),
            out: self.linear(width, width, model.bias),
            norm2: self.norm(width),
            up: self.linear(model.hidden, width, model.bias),
            down: self.linear(width, model.hidden, model.bias),
        };
        (0..model.blocks).map(block).collect()
    }
}

impl Model {
    fn width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Embeddings of `[n, channels, height, width]` pixels, and the whole output of the stack.
    fn images<B: Backend>(&self, b: &B, pixels: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let maker = Maker(b, Cell::new(0));
        let (n, width) = (pixels.len() / self.patches.image_len(), self.width());
        let patch = maker.linear(width, self.patches.patch_len(), self.bias);
        let x = b.patch_embed(pixels, self.patches, &patch.weight, patch.bias.as_ref()).unwrap();
        let tokens = self.patches.count() + 1;
        let x = b.add_positions(&x, n, Some(&maker.param(1, width)), &maker.param(tokens + 1, width)).unwrap();
        let x = b.layer_norm(&x, &maker.norm(width)).unwrap();
        let blocks = maker.blocks(self);
        let attention = Attention { tokens, heads: self.heads, causal: false };
        let whole = b.transformer(&x, &blocks, attention, self.activation).unwrap();
        let class: Vec<u32> = (0..n).map(|i| (i * tokens) as u32).collect();
        let x = b.transformer_rows(&x, &blocks, attention, self.activation, &class).unwrap();
        let out = maker.linear(5, width, true);
        let epilogue = Epilogue { bias: out.bias.as_ref(), activation: self.activation, residual: None };
        let y = b.linear(&x, &out.weight, epilogue).unwrap();
        let epilogue = Epilogue { bias: None, activation: self.activation, residual: Some(&y) };
        let y = b.linear(&x, &out.weight, epilogue).unwrap();
        let qkv = maker.linear(3 * width, width, self.bias);
        let attended = b.attention_rows(&whole, &qkv, attention, &class).unwrap();
        ([b.values(&y).unwrap(), b.values(&attended).unwrap()].concat(), b.values(&whole).unwrap())
    }

    /// Embeddings of texts of different lengths.
    fn texts<B: Backend>(&self, b: &B, lengths: &[usize]) -> Vec<f32> {
        let maker = Maker(b, Cell::new(0));
        let width = self.width();
        let ids: Vec<u32> = lengths.iter().flat_map(|length| (0..*length).map(|i| (i * 7 % 11) as u32)).collect();
        let longest = lengths.iter().copied().max().unwrap();
        let (table, positions) = (maker.param(11, width), maker.param(longest + 2, width));
        let x = b.embed_sequences(&table, &positions, &ids, lengths).unwrap();
        let blocks = maker.blocks(self);
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end as u32 - 1)
        });
        let ends: Vec<u32> = ends.collect();
        let x = b.causal_transformer(&x, lengths, &blocks, self.heads, self.activation, &ends).unwrap();
        b.values(&b.l2_normalize(&x).unwrap()).unwrap()
    }
}

/// Values differ by at most 1e-5 of the largest.
fn close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / size;
        assert!(error <= 1e-5, "{what}[{i}] is {found}, expected {expected}, an error of {error} · {size}");
    }
}

fn model() -> impl Strategy<Value = Model> {
    let activation = prop_oneof![
        Just(Activation::None),
        Just(Activation::Gelu),
        Just(Activation::QuickGelu),
        Just(Activation::Relu),
        Just(Activation::Relu6)
    ];
    let patches = (1usize..4, 1usize..9, 1usize..9, 1usize..6).prop_map(|(channels, down, across, size)| Patches {
        channels,
        height: down * size,
        width: across * size,
        size,
    });
    ((1usize..4, 2usize..37, 1usize..70, 0usize..3), any::<bool>(), activation, patches).prop_map(
        |((heads, head_width, hidden, blocks), bias, activation, patches)| Model {
            heads,
            head_width,
            hidden,
            blocks,
            bias,
            activation,
            patches,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_equal_stock_operations(
        model in model(), n in 0usize..6, lengths in proptest::collection::vec(1usize..40, 1..9), threads in 1usize..4,
    ) {
        let stock = Dfdx::<Stock<dfdx::prelude::Cpu>>::inference(1).unwrap();
        let pixels = numbers(999, n * model.patches.image_len());
        let images = (n > 0).then(|| model.images(&stock, &pixels));
        let texts = model.texts(&stock, &lengths);
        for isa in Isa::supported() {
            let fused = Fused::over(Workers::with_isa(threads, isa).unwrap());
            let found = model.images(&fused, &pixels);
            if let Some(expected) = &images {
                close(&format!("{} images", isa.name()), &found.0, &expected.0);
                close(&format!("{} tokens of images", isa.name()), &found.1, &expected.1);
            }
            close(&format!("{} texts", isa.name()), &model.texts(&fused, &lengths), &texts);
        }
    }
}

/// A model whose panels, tiles and shards do not come out even.
fn large() -> Model {
    Model {
        heads: 5,
        head_width: 20,
        hidden: 300,
        blocks: 2,
        bias: true,
        activation: Activation::Gelu,
        patches: Patches { channels: 3, height: 30, width: 30, size: 5 },
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_is_beside_it() {
    let model = large();
    let pixels = numbers(7, 40 * model.patches.image_len());
    let lengths: Vec<usize> = (0..90).map(|i| i * 7 % 23 + 1).collect();
    for isa in Isa::supported() {
        let one = Fused::over(Workers::with_isa(1, isa).unwrap());
        let (images, tokens) = model.images(&one, &pixels);
        let texts = model.texts(&one, &lengths);
        for threads in [2, 3] {
            let many = Fused::over(Workers::with_isa(threads, isa).unwrap());
            assert!((&images, &tokens) == (&model.images(&many, &pixels).0, &model.images(&many, &pixels).1));
            assert!(texts == model.texts(&many, &lengths), "{threads} threads, {}", isa.name());
            for i in [0, 17, 39] {
                let len = model.patches.image_len();
                let alone = model.images(&many, &pixels[i * len..][..len]).0;
                let (alone, attended) = alone.split_at(5);
                assert!(alone == &images[i * 5..][..5], "picture {i} alone, {}", isa.name());
                assert!(attended == &images[40 * 5 + i * model.width()..][..model.width()], "{}", isa.name());
            }
            // All texts begin alike, so the shorter ones stand alone as they stood among others.
            let alone = model.texts(&many, &lengths[3..4]);
            assert!(alone == texts[3 * model.width()..][..model.width()], "text alone, {}", isa.name());
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let (fused, stock) = (Fused::new(1).unwrap(), Dfdx::<Stock<dfdx::prelude::Cpu>>::inference(1).unwrap());
    fn errors<B: Backend>(b: &B) -> Vec<String> {
        let maker = Maker(b, Cell::new(0));
        let (table, positions) = (maker.param(4, 6), maker.param(3, 6));
        let embed = |ids: &[u32], lengths: &[usize]| b.embed_sequences(&table, &positions, ids, lengths).err();
        let x = b.tensor(3, 6, vec![0.0; 18]).unwrap();
        let run =
            |lengths: &[usize], rows: &[u32]| b.causal_transformer(&x, lengths, &[], 2, Activation::None, rows).err();
        let all = [embed(&[1, 2], &[1]), embed(&[1, 2], &[2, 0]), embed(&[0; 4], &[4]), embed(&[9], &[1])];
        let all = all.into_iter().chain([run(&[2], &[0]), run(&[1, 2], &[3])]);
        all.map(|error| error.unwrap().to_string()).collect()
    }
    let expected = [
        "sequences: number of rows is 2, expected 1",
        "sequences: number of empty ones is 1, expected 0",
        "positions: index 3 is out of range, there are 3 rows",
        "embedding: index 9 is out of range, there are 4 rows",
        "sequences: number of rows is 3, expected 2",
        "rows: index 3 is out of range, there are 3 rows",
    ];
    assert_eq!(errors(&fused), expected);
    assert_eq!(errors(&stock), expected);
}
