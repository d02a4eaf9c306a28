//! What a picture costs on its way into a model, on one thread: `cargo bench -p runner-data --bench pictures -- FOLDER`.
//!
//! `FOLDER` holds JPEG files (`imagenet_like` of runner-testbed makes some). Prints milliseconds a picture: decoding, and resize,
//! crop and normalisation for ViT-B/32, medians of five rounds. `reference/pictures_speed.py FOLDER` does the same with Pillow,
//! torchvision and `transformers`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it is a program for people")]

use std::{env, fs, hint::black_box, path::PathBuf, time::Instant};

use runner_contract::ImageRef;
use runner_data::{Limits, Preprocess, decode};

const PICTURES: usize = 200;
const ROUNDS: usize = 5;

fn main() {
    let folder = env::args().skip(1).find(|argument| !argument.starts_with("--")).expect("name a folder of JPEG files");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jpeg")));
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().take(PICTURES).map(|path| fs::read(path).unwrap()).collect();
    let pictures: Vec<_> = files.iter().map(|bytes| decode(bytes, "a picture", &Limits::default()).unwrap()).collect();
    let preprocess = Preprocess::clip(224);
    let mut out = vec![0.0; 3 * 224 * 224];
    let (mut decoding, mut rest, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for bytes in &files {
            black_box(decode(bytes, "a picture", &Limits::default()).unwrap());
        }
        decoding.push(begun.elapsed());
        let begun = Instant::now();
        for picture in &pictures {
            preprocess.apply_into(picture.as_ref(), &mut out).unwrap();
            black_box(&out);
        }
        rest.push(begun.elapsed());
        let begun = Instant::now();
        for bytes in &files {
            preprocess.apply_into(ImageRef::Encoded { bytes, path: "a picture" }, &mut out).unwrap();
            black_box(&out);
        }
        both.push(begun.elapsed());
    }
    for (what, mut times) in [("decode", decoding), ("resize, crop, normalise", rest), ("all of it", both)] {
        times.sort();
        let each = times[ROUNDS / 2].as_secs_f64() * 1e3 / files.len() as f64;
        println!("{what:24} {each:6.3} ms a picture");
    }
}
