//! What the commands work with, made from flags over environment over files over defaults.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use runner_data::{Catalog, Limits};
use runner_engine::{Cancel, Decoded, Engine};
use runner_models::{Hub, HuggingFace};
use runner_nn::gpu::{self, GpuInfo};
use runner_spec::{Device, Pipeline};
use runner_stages::{Services, Surroundings};
use runner_store::{Place, Store};

use crate::{
    args::{Global, PipelineArgs},
    config::{Config, check_threads},
    failure::Failure,
    memory::StoreMemory,
    objects::BucketObjects,
    output::Output,
    place, secrets,
    signals::Signals,
};

/// The settings of this call.
pub(crate) struct App<'a> {
    pub(crate) output: &'a Output,
    /// What the files say.
    pub(crate) config: Config,
    /// Where paths start.
    pub(crate) folder: PathBuf,
    /// What the command line says.
    global: Global,
    /// Threads to compute with.
    pub(crate) threads: usize,
    /// Digests of datasets' files, remembered in the store.
    memory: Arc<StoreMemory>,
}

impl<'a> App<'a> {
    /// `rehash`: look at every file of a dataset again.
    pub(crate) fn new(global: &Global, rehash: bool, output: &'a Output) -> Result<Self, Failure> {
        let folder = env::current_dir().map_err(Failure::file("read", Path::new(".")))?;
        let config = Config::read(&folder)?;
        let all = || std::thread::available_parallelism().map_or(1, Into::into);
        if let Some(threads) = global.threads {
            check_threads("--threads", threads)?;
        }
        let threads = global.threads.or(config.threads).unwrap_or_else(all);
        let (global, memory) = (global.clone(), Arc::new(StoreMemory::new(rehash)));
        Ok(Self { output, config, folder, global, threads, memory })
    }

    /// Datasets and models, with relative paths below `folder`.
    pub(crate) fn services(&self, folder: &Path) -> Result<Services, Failure> {
        let mut catalog = Catalog::new(folder).with_aliases(self.config.datasets.clone());
        if env::var_os("RUNNER_DATA").is_none_or(|value| value.is_empty())
            && let Some(data) = &self.config.data
        {
            catalog = catalog.with_cache(data);
        }
        let objects = BucketObjects::new(place::buckets(&self.config)?);
        let catalog = Arc::new(catalog.with_memory(self.memory.clone()).with_objects(Arc::new(objects)));
        let surroundings = Surroundings::new(folder).with_secrets(self.secrets()?);
        let output = self.output.clone();
        let notes = Arc::new(move |line: &str| output.note(line));
        let hugging_face = HuggingFace { notes: Some(notes), ..HuggingFace::from_env() };
        let hub = Arc::new(Hub::new(folder.to_owned()).with_hugging_face(hugging_face));
        Ok(Services { catalog, hub, folder: folder.to_owned(), surroundings })
    }

    /// What the file of secrets holds.
    fn secrets(&self) -> Result<BTreeMap<String, String>, Failure> {
        self.config.secrets_file.as_deref().map_or_else(|| Ok(BTreeMap::new()), secrets::read)
    }

    /// Where the store is. Asked only by what needs one: others shall not fail because its password is not at hand.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        place::place(&self.global, &self.config, &self.folder)
    }

    /// The store, made if it is not there.
    pub(crate) async fn open_store(&self) -> Result<Store, Failure> {
        let store = Store::open_at(&self.place()?).await?;
        self.memory.attach(store.records());
        Ok(store)
    }

    /// The store, if there is one: what only reads makes none.
    pub(crate) async fn existing_store(&self) -> Result<Option<Store>, Failure> {
        Ok(if Store::exists_at(&self.place()?) { Some(self.open_store().await?) } else { None })
    }

    /// What runs pipelines; `pipeline` is the one that it shall run, whose secrets it needs.
    pub(crate) fn engine(&self, pipeline: &Pipeline, services: &Services, store: Store) -> Engine {
        let named = pipeline.stages.iter().flat_map(|stage| &stage.secrets);
        let secrets: BTreeMap<String, String> =
            named.filter_map(|name| Some((name.clone(), services.surroundings.secret(name)?))).collect();
        let config = runner_engine::Config {
            threads: self.threads,
            backend: format!("cpu/f32/{}", runner_nn::Isa::best().name()),
            gpus: gpus(pipeline),
            secrets,
            decode: Arc::new(|bytes, path| {
                let pixels = runner_data::decode(bytes, path, &Limits::default()).map_err(|error| error.to_string())?;
                let (height, width, channels) = (pixels.height, pixels.width, pixels.channels);
                Ok(Decoded { height, width, channels, data: pixels.data })
            }),
        };
        Engine::new(Arc::new(runner_stages::registry(services)), store, config)
    }

    /// Reads and checks a pipeline.
    pub(crate) fn pipeline(&self, args: &PipelineArgs, services: &Services) -> Result<Pipeline, Failure> {
        let (name, text) = read(&args.pipeline)?;
        let registry = runner_stages::registry(services);
        runner_spec::load(&name, &text, &args.set, &registry, services).map_err(Failure::Pipeline)
    }

    /// Where the store is, as short as it can be said here, without passwords.
    pub(crate) fn store_name(&self) -> Result<String, Failure> {
        let place = self.place()?;
        Ok(match (&place.records, &place.artifacts) {
            (None, None) => self.short(&place.folder),
            _ => place.to_string(),
        })
    }

    /// A path as short as it can be said here.
    pub(crate) fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
    }

    /// Stops in three steps, at Ctrl-C or when the process is told to terminate.
    pub(crate) fn cancel_on_interrupt(&self) -> Cancel {
        let cancel = Cancel::new();
        let (stop, output) = (cancel.clone(), self.output.clone());
        let mut signals = Signals::new();
        tokio::spawn(async move {
            signals.next().await;
            output.note("finishing what is in flight; Ctrl-C once more to stop at once");
            stop.finish();
            signals.next().await;
            output.note("stopping; Ctrl-C once more to leave everything as it is");
            stop.now();
            signals.next().await;
            std::process::exit(130);
        });
        cancel
    }
}

/// A pipeline's name for messages, and its bytes.
pub(crate) fn read(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    // Of what is longer than a pipeline may be, no more is read than it takes to say so.
    let start = |from: &mut dyn Read| {
        let mut text = Vec::new();
        from.take(runner_spec::MAX_BYTES as u64 + 1).read_to_end(&mut text).map(|_| text)
    };
    if path == Path::new("-") {
        let text = start(&mut io::stdin().lock()).map_err(Failure::file("read", path))?;
        return Ok(("stdin".to_owned(), text));
    }
    let text = File::open(path).and_then(|mut file| start(&mut file)).map_err(Failure::unreadable(path))?;
    Ok((path.display().to_string(), text))
}

/// What computes on each GPU, where a stage asks for one. Looking at a GPU takes memory on it.
fn gpus(pipeline: &Pipeline) -> Result<Vec<String>, String> {
    if !pipeline.stages.iter().any(|stage| matches!(stage.device, Some(Device::Cuda(_)))) {
        return Ok(Vec::new());
    }
    let backend = |index| gpu::describe(index).map(|found| format!("cuda/f32/{}", architecture(&found)));
    let all = gpu::count().and_then(|count| (0..count).map(backend).collect());
    all.map_err(|error| error.to_string())
}

/// `sm_90`
pub(crate) fn architecture(gpu: &GpuInfo) -> String {
    let (major, minor) = gpu.capability;
    format!("sm_{major}{minor}")
}
