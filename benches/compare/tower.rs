//! `runner` as a process of its own that answers lines on stdin, for `benches/compare`.
//!
//! ```text
//! tower MODEL INPUTS [THREADS [GPU]]
//! ```
//!
//! When the model is loaded it prints `ready`, then answers the lines that `engine.py` describes. Prompts are never padded.

#![expect(clippy::print_stdout, reason = "the answers are the output")]

use std::{
    env,
    error::Error,
    fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use runner_contract::{Model, ModelSource};
use runner_models::{Hub, Loaded};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Values of a picture of 224 × 224.
const IMAGE: usize = 3 * 224 * 224;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(model), Some(inputs)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tower MODEL INPUTS [THREADS [GPU]]".into());
    };
    let threads = arguments.next().map_or(Ok(2), |threads| threads.parse())?;
    let gpu = arguments.next().map(|index| index.parse()).transpose()?;
    let hub = Hub::new(env::current_dir()?);
    let (identity, source) = (hub.info(&model)?.identity, ModelSource::Reference(model));
    let loaded = hub.load_on(&Model { identity, source }, gpu)?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [what, tower, size, last] = words.as_slice() else {
            return Err(format!("expected four words, found `{line}`").into());
        };
        let work = Work::new(Path::new(&inputs), tower, size)?;
        if *what == "save" {
            let embeddings = work.run(&loaded, threads)?;
            fs::write(
                PathBuf::from(last),
                embeddings.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(),
            )?;
            println!("saved");
        } else {
            let start = Instant::now();
            for _ in 0..last.parse::<usize>()? {
                work.run(&loaded, threads)?;
            }
            println!("{}", start.elapsed().as_secs_f64());
        }
        io::stdout().flush()?;
    }
    Ok(())
}

/// What is encoded at once.
enum Work {
    /// Pixels `[n, 3, 224, 224]`, and n.
    Images(Vec<f32>, usize),
    /// Token ids, as many as each prompt has.
    Texts(Vec<Vec<u32>>),
}

impl Work {
    fn new(inputs: &Path, tower: &str, size: &str) -> Result<Self> {
        if tower == "text" {
            return Ok(Self::Texts(serde_json::from_slice(&fs::read(inputs.join("prompts.json"))?)?));
        }
        let n: usize = size.parse()?;
        let bytes = fs::read(inputs.join("pixels.f32"))?;
        let values = bytes.chunks_exact(4).take(n * IMAGE);
        let values: Vec<f32> =
            values.map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect();
        Ok(Self::Images(values, n))
    }

    fn run(&self, model: &Loaded, threads: usize) -> Result<Vec<f32>> {
        Ok(match self {
            Self::Images(pixels, n) => model.encode_images(pixels, *n, threads)?,
            Self::Texts(ids) => model.clip()?.encode_texts(ids, threads)?,
        })
    }
}
