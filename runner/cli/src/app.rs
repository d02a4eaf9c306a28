//! What the commands work with, made from flags over environment over files over defaults.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use runner_data::{Catalog, Limits};
use runner_engine::{Cancel, Decoded, Engine};
use runner_models::Hub;
use runner_spec::{Device, Pipeline};
use runner_stages::Services;
use runner_store::Store;

use crate::{
    args::{Global, PipelineArgs},
    config::Config,
    failure::Failure,
    output::Output,
};

/// The settings of this call.
pub(crate) struct App<'a> {
    pub(crate) output: &'a Output,
    /// What the files say.
    pub(crate) config: Config,
    /// Where paths start.
    pub(crate) folder: PathBuf,
    /// The store's folder.
    pub(crate) store: PathBuf,
    /// Threads to compute with.
    pub(crate) threads: usize,
}

impl<'a> App<'a> {
    pub(crate) fn new(global: &Global, output: &'a Output) -> Result<Self, Failure> {
        let folder = env::current_dir().map_err(Failure::file("read", Path::new(".")))?;
        let config = Config::read(&folder)?;
        let beside = || config.project.as_deref().unwrap_or(&folder).join(".runner");
        let store = global.store.clone().or_else(|| config.store.clone()).unwrap_or_else(beside);
        let all = || std::thread::available_parallelism().map_or(1, Into::into);
        let threads = global.threads.or(config.threads).unwrap_or_else(all);
        if threads == 0 {
            return Err(Failure::usage("--threads is 0", "leave it out to use all"));
        }
        Ok(Self { output, store: folder.join(store), config, folder, threads })
    }

    /// Datasets and models, with relative paths below `folder`.
    pub(crate) fn services(&self, folder: &Path) -> Services {
        let mut catalog = Catalog::new(folder).with_aliases(self.config.datasets.clone());
        if env::var_os("RUNNER_DATA").is_none_or(|value| value.is_empty())
            && let Some(data) = &self.config.data
        {
            catalog = catalog.with_cache(data);
        }
        Services { catalog: Arc::new(catalog), hub: Arc::new(Hub::new(folder.to_owned())), folder: folder.to_owned() }
    }

    /// The store, made if it is not there.
    pub(crate) async fn open_store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.store).await?)
    }

    /// The store, if there is one: what only reads makes none.
    pub(crate) async fn existing_store(&self) -> Result<Option<Store>, Failure> {
        Ok(if Store::exists(&self.store) { Some(self.open_store().await?) } else { None })
    }

    /// What runs pipelines.
    pub(crate) fn engine(&self, services: &Services, store: Store) -> Engine {
        let config = runner_engine::Config {
            threads: self.threads,
            backend: format!("cpu/f32/{}", runner_nn::instruction_set()),
            devices: vec![Device::Cpu],
            decode: Arc::new(|bytes, path| {
                let pixels = runner_data::decode(bytes, path, &Limits::default()).map_err(|error| error.to_string())?;
                let (height, width, channels) = (pixels.height, pixels.width, pixels.channels);
                Ok(Decoded { height, width, channels, data: pixels.data })
            }),
            secrets: Default::default(),
        };
        Engine::new(Arc::new(runner_stages::registry(services)), store, config)
    }

    /// Reads and checks a pipeline.
    pub(crate) fn pipeline(&self, args: &PipelineArgs, services: &Services) -> Result<Pipeline, Failure> {
        let (name, text) = read(&args.pipeline)?;
        let registry = runner_stages::registry(services);
        runner_spec::load(&name, &text, &args.set, &registry, services).map_err(Failure::Pipeline)
    }

    /// A path as short as it can be said here.
    pub(crate) fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
    }

    /// Stops at the first Ctrl-C; at the second the program ends at once.
    pub(crate) fn cancel_on_interrupt(&self) -> Cancel {
        let cancel = Cancel::new();
        let (stop, output) = (cancel.clone(), self.output.clone());
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                output.note("stopping; once more to stop at once");
                stop.cancel();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
        cancel
    }
}

/// A pipeline's name for messages, and its bytes.
fn read(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).map_err(Failure::file("read", path))?;
        return Ok(("stdin".to_owned(), text));
    }
    match std::fs::read(path) {
        Ok(text) => Ok((path.display().to_string(), text)),
        Err(error) => Err(Failure::Usage { message: format!("cannot read {}: {error}", path.display()), hint: None }),
    }
}
