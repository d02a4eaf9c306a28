//! Makes a set of JPEGs shaped like ImageNet's validation set, in three layouts, to measure and compare with:
//!
//!     cargo run --release -p runner-testbed --example imagenet_like -- DIR [--rows 50000] [--per-tar 1000]
//!
//! `DIR/flat` has them in one folder with the development kit's ground truth, `DIR/synsets` in a folder for each class (hard
//! links), `DIR/tars` as WebDataset. Pictures differ in size, quality and sampling; some are grey, few are CMYK. The same arguments
//! make the same bytes.

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{BufWriter, Write, stdout},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
use runner_data::imagenet_synsets;

const CLASSES: usize = 1000;

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// The class of a picture, from its number.
fn label(number: usize) -> usize {
    Random(number as u64).below(CLASSES)
}

/// The development kit's id of a class: an order of its own, as there.
fn id(label: usize) -> usize {
    (label * 617 + 89) % CLASSES + 1
}

fn name(number: usize) -> String {
    format!("ILSVRC2012_val_{number:08}")
}

/// A picture: coloured areas, a few shapes and grain.
fn picture(number: usize) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let mut random = Random(number as u64 ^ 0x5EED_0000);
    let (width, height) = match random.below(10) {
        0 | 1 => (375, 500),
        2 => (500, 333),
        3 => (200 + random.below(300), 200 + random.below(400)),
        _ => (500, 375),
    };
    let channels = match random.below(200) {
        0..=3 => 1,
        4 => 4,
        _ => 3,
    };
    let base: Vec<usize> = (0..channels).map(|_| random.below(200)).collect();
    let slope: Vec<(usize, usize)> = (0..channels).map(|_| (random.below(80), random.below(80))).collect();
    let shapes: Vec<[usize; 5]> = (0..3 + random.below(9))
        .map(|_| {
            [random.below(width), random.below(height), 10 + random.below(120), random.below(256), random.below(2)]
        })
        .collect();
    let mut pixels = vec![0u8; width * height * channels];
    for (y, row) in pixels.chunks_exact_mut(width * channels).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = (base[c] + slope[c].0 * x / width + slope[c].1 * y / height).min(255) as u8;
            }
        }
    }
    for [cx, cy, radius, colour, round] in shapes {
        for y in cy.saturating_sub(radius)..(cy + radius).min(height) {
            for x in cx.saturating_sub(radius)..(cx + radius).min(width) {
                let (dx, dy) = (x.abs_diff(cx), y.abs_diff(cy));
                if round == 1 && dx * dx + dy * dy > radius * radius {
                    continue;
                }
                let at = (y * width + x) * channels;
                for (c, value) in pixels[at..at + channels].iter_mut().enumerate() {
                    *value = (colour * (c + 1) + x * 3 / 2 + y) as u8 / 2 + *value / 2;
                }
            }
        }
    }
    for chunk in pixels.chunks_mut(8) {
        let grain = random.next().to_le_bytes();
        chunk.iter_mut().zip(grain).for_each(|(value, grain)| *value = value.saturating_add(grain % 24));
    }
    let (format, sampling) = match (channels, random.below(4)) {
        (1, _) => (PixelFormat::Grayscale, Subsampling::S444),
        (4, _) => (PixelFormat::Cmyk, Subsampling::S444),
        (_, 0) => (PixelFormat::Rgb, Subsampling::S444),
        _ => (PixelFormat::Rgb, Subsampling::S420),
    };
    let quality = 70 + random.below(26) as u8;
    Ok(compress(&pixels, width, height, format, quality, sampling)?)
}

/// One tar's worth of pictures, in all layouts.
fn part(folder: &Path, tar_number: usize, numbers: std::ops::Range<usize>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let tar = File::create(folder.join(format!("tars/val/{tar_number:06}.tar")))?;
    let mut tar = tar::Builder::new(BufWriter::new(tar));
    for number in numbers {
        let (content, label) = (picture(number)?, label(number));
        let file = format!("{}.JPEG", name(number));
        let flat = folder.join("flat/val").join(&file);
        fs::write(&flat, &content)?;
        let synset = folder.join("synsets/val").join(imagenet_synsets()[label]).join(&file);
        // What an earlier call left may be another picture.
        let _ = fs::remove_file(&synset);
        fs::hard_link(&flat, &synset)?;
        for (name, content) in [(file, content), (format!("{}.cls", name(number)), label.to_string().into_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content.as_slice())?;
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |name: &str, default: usize| -> Result<usize, Box<dyn Error + Send + Sync>> {
        let at = arguments.iter().position(|argument| argument == name);
        Ok(at.and_then(|at| arguments.get(at + 1)).map(|value| value.parse()).transpose()?.unwrap_or(default))
    };
    let folder = PathBuf::from(arguments.first().filter(|folder| !folder.starts_with('-')).ok_or("name a folder")?);
    let (rows, per_tar) = (number("--rows", 50_000)?, number("--per-tar", 1000)?.max(1));
    let kit = folder.join("flat/ILSVRC2012_devkit_t12/data");
    for below in ["flat/val", "tars/val"] {
        fs::create_dir_all(folder.join(below))?;
    }
    fs::create_dir_all(&kit)?;
    for synset in imagenet_synsets() {
        fs::create_dir_all(folder.join("synsets/val").join(synset))?;
    }
    let truth: String = (1..=rows).map(|number| format!("{}\n", id(label(number)))).collect();
    fs::write(kit.join("ILSVRC2012_validation_ground_truth.txt"), truth)?;
    let map: String =
        imagenet_synsets().iter().enumerate().map(|(at, synset)| format!("{synset} {} _\n", id(at))).collect();
    fs::write(kit.join("map_clsloc.txt"), map)?;
    let (next, tars) = (AtomicUsize::new(0), rows.div_ceil(per_tar));
    let work = || -> Result<(), Box<dyn Error + Send + Sync>> {
        loop {
            let tar = next.fetch_add(1, Ordering::Relaxed);
            if tar >= tars {
                return Ok(());
            }
            part(&folder, tar, tar * per_tar + 1..rows.min((tar + 1) * per_tar) + 1)?;
        }
    };
    let threads = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a thread panicked")?)
    })?;
    writeln!(stdout(), "{rows} pictures and {tars} tars in {}", folder.display())?;
    Ok(())
}
