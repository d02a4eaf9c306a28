//! A CLIP network on a GPU.
//!
//! What dfdx puts on a CUDA device cannot leave the thread that put it there. So a thread owns the network and answers one request
//! after the other; a GPU computes one batch at a time anyway.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use runner_nn::{
    Backend, Error,
    gpu::{self, Gpu},
};

use crate::{
    ModelError,
    clip::{ClipConfig, Network, VisionConfig, network::Values},
};

/// Pictures or texts encoded together at first; fewer once memory was full.
const TOGETHER: usize = 256;

/// Both towers, on the thread that owns them. It ends with the last request.
pub(crate) struct OnGpu {
    requests: Sender<Request>,
}

/// What is to be encoded, and where the embeddings go.
struct Request {
    work: Work,
    answer: Sender<Result<Vec<f32>, ModelError>>,
}

enum Work {
    /// Pixels `[n, channels, height, width]`.
    Images(Vec<f32>),
    /// Token ids.
    Texts(Vec<Vec<u32>>),
}

/// What the thread says while it loads.
enum Loading {
    /// It needs a tensor: name and shape.
    Wants(String, Vec<usize>),
    /// It is ready, or cannot be.
    Done(Result<(), ModelError>),
}

impl OnGpu {
    /// Puts a network on a GPU.
    pub(crate) fn load(index: u32, config: ClipConfig, values: &mut Values<'_>) -> Result<Self, ModelError> {
        if let VisionConfig::ResNet(_) = config.vision {
            let problem =
                "a modified ResNet cannot be computed on a GPU yet, only vision transformers; use `device: cpu`";
            return Err(ModelError::Input(problem.to_owned()));
        }
        Self::start(move || gpu::open(index), config, values)
    }

    /// Starts the thread, with what opens its device.
    fn start(
        open: impl FnOnce() -> Result<Gpu, Error> + Send + 'static,
        config: ClipConfig,
        values: &mut Values<'_>,
    ) -> Result<Self, ModelError> {
        let ((requests, received), (says, said), (tensors, wanted)) = (channel(), channel(), channel());
        let serve = move || match load(open, config, &says, &wanted) {
            Err(error) => drop(says.send(Loading::Done(Err(error)))),
            Ok((backend, network)) => {
                // Whoever loaded it may be gone; then there are no requests either.
                let _ = says.send(Loading::Done(Ok(())));
                answer(&backend, &network, &received);
            }
        };
        let spawned = thread::Builder::new().name("gpu".to_owned()).spawn(serve);
        spawned.map_err(|error| Error::Device(error.to_string()))?;
        loop {
            match said.recv().map_err(|_| ended())? {
                Loading::Wants(name, shape) => tensors.send(values(&name, &shape)?).map_err(|_| ended())?,
                Loading::Done(result) => return result.map(|()| Self { requests }),
            }
        }
    }

    /// Embeds preprocessed pictures.
    pub(crate) fn images(&self, pixels: &[f32]) -> Result<Vec<f32>, ModelError> {
        self.ask(Work::Images(pixels.to_vec()))
    }

    /// Embeds tokenized texts.
    pub(crate) fn texts(&self, ids: &[Vec<u32>]) -> Result<Vec<f32>, ModelError> {
        self.ask(Work::Texts(ids.to_vec()))
    }

    fn ask(&self, work: Work) -> Result<Vec<f32>, ModelError> {
        let (answer, answered) = channel();
        self.requests.send(Request { work, answer }).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }
}

/// The thread panicked: a failure that dfdx does not report.
fn ended() -> ModelError {
    ModelError::Compute(Error::Device("its thread ended".to_owned()))
}

/// On the thread: asks for one tensor after the other.
fn load(
    open: impl FnOnce() -> Result<Gpu, Error>,
    config: ClipConfig,
    says: &Sender<Loading>,
    tensors: &Receiver<Vec<f32>>,
) -> Result<(Gpu, Network<Gpu>), ModelError> {
    let backend = open()?;
    let mut values = |name: &str, shape: &[usize]| {
        says.send(Loading::Wants(name.to_owned(), shape.to_vec())).map_err(|_| ended())?;
        tensors.recv().map_err(|_| ended())
    };
    let (network, _) = Network::new(&backend, config, &mut values)?;
    Ok((backend, network))
}

/// On the thread: answers until nobody can ask any more.
fn answer(backend: &Gpu, network: &Network<Gpu>, requests: &Receiver<Request>) {
    let mut together = TOGETHER;
    for Request { work, answer } in requests {
        let made = match work {
            Work::Images(pixels) => images(backend, network, &pixels, &mut together),
            Work::Texts(ids) => texts(backend, network, &ids, &mut together),
        };
        // Who asked may have been stopped.
        let _ = answer.send(made);
    }
}

fn images(backend: &Gpu, network: &Network<Gpu>, pixels: &[f32], together: &mut usize) -> Result<Vec<f32>, ModelError> {
    let vision = &network.config().vision;
    let image = vision.channels() * vision.image_size().pow(2);
    few_at_once(pixels.len() / image, together, |range| {
        let pixels = &pixels[range.start * image..range.end * image];
        Ok(backend.values(&network.images(backend, pixels)?)?)
    })
}

/// Texts of like length are encoded together.
fn texts(
    backend: &Gpu,
    network: &Network<Gpu>,
    ids: &[Vec<u32>],
    together: &mut usize,
) -> Result<Vec<f32>, ModelError> {
    let dim = network.config().dim;
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|&i| ids[i].len());
    let sorted = few_at_once(ids.len(), together, |range| {
        let texts: Vec<&[u32]> = order[range].iter().map(|&i| ids[i].as_slice()).collect();
        Ok(backend.values(&network.texts(backend, &network.config().text.join(&texts)?)?)?)
    })?;
    let mut embeddings = vec![0.0; sorted.len()];
    for (&i, value) in order.iter().zip(sorted.chunks_exact(dim)) {
        embeddings[i * dim..(i + 1) * dim].copy_from_slice(value);
    }
    Ok(embeddings)
}

/// Computes `count` results, at most `together` at once, and from then on half as many when the device's memory is full.
fn few_at_once(
    count: usize,
    together: &mut usize,
    mut compute: impl FnMut(Range<usize>) -> Result<Vec<f32>, ModelError>,
) -> Result<Vec<f32>, ModelError> {
    let (mut all, mut done) = (Vec::new(), 0);
    while done < count {
        let range = done..count.min(done + *together);
        let size = range.len();
        match compute(range) {
            Ok(mut values) => {
                all.append(&mut values);
                done += size;
            }
            Err(ModelError::Compute(Error::OutOfMemory)) if size > 1 => *together = size / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with room for so many rows.
    fn room(most: usize) -> impl FnMut(Range<usize>) -> Result<Vec<f32>, ModelError> {
        move |range| match range.len() <= most {
            true => Ok(range.map(|row| row as f32).collect()),
            false => Err(Error::OutOfMemory.into()),
        }
    }

    #[test]
    fn a_full_memory_makes_batches_smaller_and_loses_nothing() {
        let mut together = 64;
        let all = few_at_once(100, &mut together, room(5)).unwrap();
        assert_eq!(all, (0..100).map(|row| row as f32).collect::<Vec<_>>());
        assert_eq!(together, 4, "and they stay as small");
        assert!(few_at_once(0, &mut together, room(5)).unwrap().is_empty());
    }

    #[test]
    fn a_memory_without_room_for_one_is_an_error() {
        let error = few_at_once(3, &mut 8, room(0)).unwrap_err();
        assert_eq!(error.to_string(), "the device is out of memory");
    }

    #[cfg(not(feature = "cuda"))]
    mod on_the_processor {
        use std::path::Path;

        use runner_contract::{Model, ModelSource};
        use runner_nn::{Dfdx, Stock};

        use super::*;
        use crate::{Hub, safetensors::Reader};

        /// The same code as on a GPU, on dfdx's own operations for the processor.
        #[test]
        fn the_thread_gives_what_the_processor_gives() {
            let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            let hub = Hub::new(golden.clone());
            let model = hub.open("quick_gelu").unwrap();
            let clip = model.clip().unwrap();
            let weights = Reader::open(&golden.join("quick_gelu/model.safetensors")).unwrap();
            let open = || Ok(Dfdx::inference_over(Stock::default()));
            let gpu = OnGpu::start(open, *clip.config(), &mut |name, shape| weights.tensor(name, shape)).unwrap();

            let near = |found: Vec<f32>, expected: Vec<f32>| {
                assert_eq!(found.len(), expected.len());
                found.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} {b}"));
            };
            let pixels: Vec<f32> = (0..3 * 2700).map(|i| (i as f32 * 0.37).sin()).collect();
            near(gpu.images(&pixels).unwrap(), clip.encode_images(&pixels, 3, 1).unwrap());
            let ids: Vec<Vec<u32>> = [9, 3, 5].map(|n| (1..n).chain([522]).collect()).to_vec();
            near(gpu.texts(&ids).unwrap(), clip.encode_texts(&ids, 1).unwrap());
            assert!(gpu.texts(&[vec![]]).unwrap_err().to_string().contains("a text of 0 tokens"));
        }

        #[test]
        fn a_build_without_cuda_says_so() {
            let hub = Hub::new(std::path::PathBuf::new());
            let identity = hub.info("builtin:mini-clip").unwrap().identity;
            let model = Model { identity, source: ModelSource::Reference("builtin:mini-clip".to_owned()) };
            let error = hub.load_on(&model, Some(0)).unwrap_err();
            assert!(error.to_string().starts_with("this program was built without CUDA"), "{error}");
        }
    }
}
