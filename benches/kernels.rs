//! The operations of CLIP's towers one by one: fused inference and the forward pass of training on each instruction set of this
//! machine, and dfdx's own operations where it has them. Two threads; elements a second are multiply-adds.
//!
//!     cargo bench --manifest-path benches/Cargo.toml --target-dir target/benches [-- FILTER]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use runner_nn::{
    Activation, Attention, Backend, Cpu, Dfdx, Epilogue, Error, Fused, Isa, Layer, LayerNorm, Operation, Patches, Size,
    Stock, Window, Workers,
};

const THREADS: usize = 2;

/// What is timed.
#[derive(Clone, Copy)]
enum Case {
    /// Rows, inputs and outputs of a linear map with bias and quick GELU.
    Linear(usize, usize, usize),
    /// Rows and width.
    LayerNorm(usize, usize),
    /// Sequences, tokens and heads of 64.
    Attention(usize, usize, usize),
    /// Pictures of 224 × 224, the side of a patch and the width.
    Patches(usize, usize, usize),
    /// Pictures, their side and channels, the side of the window, and outputs; with bias and ReLU.
    Convolution(usize, usize, usize, usize, usize),
}

/// Of ViT-B/32 (one picture and eight), ViT-L/14 and RN50.
const CASES: [(&str, Case); 12] = [
    ("linear 50 × 768 × 3072", Case::Linear(50, 768, 3072)),
    ("linear 400 × 768 × 3072", Case::Linear(400, 768, 3072)),
    ("linear 400 × 3072 × 768", Case::Linear(400, 3072, 768)),
    ("layer norm 400 × 768", Case::LayerNorm(400, 768)),
    ("attention 8 × 50 tokens, 12 heads", Case::Attention(8, 50, 12)),
    ("attention 2 × 257 tokens, 16 heads", Case::Attention(2, 257, 16)),
    ("patches 8 × 224², 32 to 768", Case::Patches(8, 32, 768)),
    ("convolution 8 × 112², 32 by 3² to 64", Case::Convolution(8, 112, 32, 3, 64)),
    ("convolution 8 × 56², 64 by 3² to 64", Case::Convolution(8, 56, 64, 3, 64)),
    ("convolution 8 × 14², 256 by 3² to 256", Case::Convolution(8, 14, 256, 3, 256)),
    ("convolution 8 × 7², 512 by 3² to 512", Case::Convolution(8, 7, 512, 3, 512)),
    ("convolution 8 × 14², 1024 by 1² to 256", Case::Convolution(8, 14, 1024, 1, 256)),
];

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 1e-2).collect()
}

impl Case {
    /// Multiply-adds by the definition of the operation; for layer norm its values.
    fn products(self) -> usize {
        match self {
            Self::Linear(rows, inputs, outputs) => rows * inputs * outputs,
            Self::LayerNorm(rows, width) => rows * width,
            Self::Attention(sequences, tokens, heads) => 2 * sequences * tokens * tokens * heads * 64,
            Self::Patches(images, _, width) => images * 3 * 224 * 224 * width,
            Self::Convolution(images, side, channels, window, outputs) => {
                images * side * side * channels * window * window * outputs
            }
        }
    }

    /// Makes parameters and input, and gives what computes once.
    fn prepare<B: Backend + 'static>(self, b: B) -> Result<Box<dyn Fn() -> Result<(), Error>>, Error> {
        let matrix = |rows, width| b.tensor(rows, width, numbers(rows * width));
        let row = |width| b.param("row", 1, width, numbers(width));
        Ok(match self {
            Self::Linear(rows, inputs, outputs) => {
                let weight = b.weight("weight", outputs, inputs, numbers(outputs * inputs))?;
                let (x, bias) = (matrix(rows, inputs)?, row(outputs)?);
                Box::new(move || {
                    let activation = Activation::QuickGelu;
                    let epilogue = Epilogue { bias: Some(&bias), activation, residual: None };
                    b.linear(&x, &weight, epilogue).map(|y| drop(black_box(y)))
                })
            }
            Self::LayerNorm(rows, width) => {
                let (x, norm) = (matrix(rows, width)?, LayerNorm { gain: row(width)?, bias: row(width)?, eps: 1e-5 });
                Box::new(move || b.layer_norm(&x, &norm).map(|y| drop(black_box(y))))
            }
            Self::Attention(sequences, tokens, heads) => {
                let qkv = matrix(sequences * tokens, 3 * 64 * heads)?;
                let attention = Attention { tokens, heads, causal: false };
                Box::new(move || b.attention(&qkv, attention).map(|y| drop(black_box(y))))
            }
            Self::Patches(images, size, width) => {
                let patches = Patches { channels: 3, height: 224, width: 224, size };
                let weight = b.weight("weight", width, patches.patch_len(), numbers(width * patches.patch_len()))?;
                let pixels = numbers(images * patches.image_len());
                Box::new(move || b.patch_embed(&pixels, patches, &weight, None).map(|y| drop(black_box(y))))
            }
            Self::Convolution(images, side, channels, size, outputs) => {
                let window = Window::new(size, 1, size / 2);
                let values = numbers(outputs * size * size * channels);
                let weight = b.kernel("kernel", window, outputs, channels, values)?;
                let (bias, x) = (row(outputs)?, matrix(images * side * side, channels)?);
                let operation = Operation::Convolution { weight, bias, residual: None, activation: Activation::Relu };
                let (layers, from) =
                    ([Layer { input: 0, window, operation }], Size { height: side, width: side, channels });
                Box::new(move || b.convolutions(&x, from, &layers).map(|y| drop(black_box(y))))
            }
        })
    }
}

/// Chains of multiply-adds that do not wait for each other, in registers alone: what the vector units do at most.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn chains(count: usize) -> f32 {
    use std::arch::x86_64::{_mm512_add_ps, _mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(black_box(1.0001)), _mm512_set1_ps(black_box(0.9999)));
    let mut sums = [a; CHAINS];
    for _ in 0..count {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(a, b, *sum);
        }
    }
    _mm512_reduce_add_ps(sums.into_iter().fold(a, |x, y| _mm512_add_ps(x, y)))
}

#[cfg(target_arch = "x86_64")]
const CHAINS: usize = 12;

/// On each thread at once.
#[cfg(target_arch = "x86_64")]
fn limit(criterion: &mut Criterion) {
    const COUNT: usize = 10_000_000;
    if !std::arch::is_x86_feature_detected!("avx512f") {
        return;
    }
    let mut group = criterion.benchmark_group("multiply-adds alone");
    group.throughput(Throughput::Elements((THREADS * COUNT * CHAINS * 16) as u64));
    // SAFETY: the instructions were detected above.
    let run = || black_box(unsafe { chains(COUNT) });
    group.bench_function("avx512", |bencher| {
        bencher.iter(|| std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(run)))));
    });
    group.finish();
}

#[cfg(not(target_arch = "x86_64"))]
fn limit(_: &mut Criterion) {}

fn kernels(criterion: &mut Criterion) {
    for (name, case) in CASES {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(case.products() as u64));
        let mut add = |engine: String, run: Result<Box<dyn Fn() -> Result<(), Error>>, Error>| match run {
            // dfdx on its own has not all of them.
            Ok(run) if run().is_ok() => drop(group.bench_function(engine, |bencher| bencher.iter(&run))),
            _ => {}
        };
        for isa in Isa::supported() {
            let workers = || Workers::with_isa(THREADS, isa).unwrap_or_else(|error| panic!("{error}"));
            add(format!("fused, {}", isa.name()), case.prepare(Fused::over(workers())));
            add(format!("training, {}", isa.name()), case.prepare(Dfdx::inference_over(Cpu::over(workers()))));
        }
        add("dfdx".to_owned(), Dfdx::<Stock<dfdx::prelude::Cpu>>::inference(THREADS).and_then(|b| case.prepare(b)));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(1))
        .warm_up_time(std::time::Duration::from_millis(200)).without_plots();
    targets = limit, kernels
}
criterion_main!(benches);
