//! Supervised classifiers: a convolutional network, the mean over all places, a linear map to the classes.

use runner_data::{Preprocess, imagenet_classes};
use runner_nn::{Backend, Fused, Linear, Size};
use serde_json::{Map, Value};

use crate::{
    ModelError,
    blueprint::{Blueprint, Network},
    clip::{Values, check_pixels, check_preprocess},
    efficientnet_lite::EfficientNetLiteConfig,
    fields::Fields,
    resnet::ResNetConfig,
};

/// A classifier's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// A ResNet of torchvision.
    ResNet(ResNetConfig),
    /// An EfficientNet-Lite.
    EfficientNetLite(EfficientNetLiteConfig),
}

/// A classifier's architecture and its classes, as a `config.json` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassifierConfig {
    /// The network.
    pub architecture: Architecture,
    /// Height and width of the input in pixels.
    pub image_size: usize,
    /// The classes' names, by number.
    pub classes: Vec<String>,
}

impl Architecture {
    /// `model_type` in a `config.json`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "torchvision_resnet",
            Self::EfficientNetLite(_) => "efficientnet_lite",
        }
    }

    /// Components of the features before the last map.
    pub fn features(&self) -> usize {
        match self {
            Self::ResNet(config) => config.features(),
            Self::EfficientNetLite(config) => config.head,
        }
    }

    /// The last map's name in a checkpoint.
    fn head(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "fc",
            Self::EfficientNetLite(_) => "_fc",
        }
    }

    fn blueprint(&self, side: usize) -> Result<Blueprint, ModelError> {
        match self {
            Self::ResNet(config) => config.blueprint(side),
            Self::EfficientNetLite(config) => config.blueprint(side),
        }
    }
}

impl ClassifierConfig {
    /// What a checkpoint's tensors are, by their names and shapes; `None` if they are no classifier that is known here.
    pub fn derive(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let resnet = ResNetConfig::derive(shape).map(Architecture::ResNet);
        let architecture =
            resnet.or_else(|| EfficientNetLiteConfig::derive(shape).map(Architecture::EfficientNetLite))?;
        let image_size = match &architecture {
            Architecture::ResNet(_) => 224,
            Architecture::EfficientNetLite(config) => config.image_size(),
        };
        let count = shape(&format!("{}.weight", architecture.head()))?.first().copied()?;
        (count <= MAX_CLASSES).then(|| Self { architecture, image_size, classes: class_names(count) })
    }

    /// Whether a `model_type` is one of a classifier's.
    pub(crate) fn is_type(model_type: &str) -> bool {
        ["torchvision_resnet", "efficientnet_lite"].contains(&model_type)
    }

    /// Reads a `config.json`, see [`ClassifierConfig::to_json`]. What it leaves out is that of ResNet-50 and
    /// EfficientNet-Lite0 for ImageNet.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, ModelError> {
        let types = ["torchvision_resnet", "efficientnet_lite"];
        let architecture = match fields.word("model_type", types[0], &types)? {
            "efficientnet_lite" => Architecture::EfficientNetLite(EfficientNetLiteConfig::read(fields)?),
            _ => Architecture::ResNet(ResNetConfig::read(fields)?),
        };
        let own = match &architecture {
            Architecture::ResNet(_) => 224,
            Architecture::EfficientNetLite(config) => config.image_size(),
        };
        let image_size = fields.number("image_size", own, 1..=8_192)?;
        let names = fields.get("id2label").map(|value| names(fields, value)).transpose()?;
        let count = fields.number("num_labels", names.as_ref().map_or(1_000, Vec::len), 1..=MAX_CLASSES)?;
        let classes = names.unwrap_or_else(|| class_names(count));
        if classes.len() != count {
            return Err(fields.problem(&format!("num_labels: {count}, but id2label has {}", classes.len())));
        }
        Ok(Self { architecture, image_size, classes })
    }

    /// A `config.json` that is read back.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("model_type".into(), self.architecture.name().into());
        map.insert("image_size".into(), self.image_size.into());
        match &self.architecture {
            Architecture::ResNet(config) => config.write(&mut map),
            Architecture::EfficientNetLite(config) => config.write(&mut map),
        }
        let labels = self.classes.iter().enumerate().map(|(i, name)| (i.to_string(), Value::from(name.as_str())));
        map.insert("id2label".into(), Value::Object(labels.collect()));
        Value::Object(map)
    }

    /// Floating-point operations to classify an image, a multiplication and an addition being two.
    pub fn image_flops(&self) -> u64 {
        let convolutions = self.architecture.blueprint(self.image_size).map_or(0, |net| net.flops());
        convolutions + 2 * (self.architecture.features() * self.classes.len()) as u64
    }
}

/// The most classes a classifier may have.
const MAX_CLASSES: usize = 1 << 20;

/// Names for classes that have none: ImageNet's where there are 1,000, else their numbers.
fn class_names(count: usize) -> Vec<String> {
    let imagenet = imagenet_classes();
    if count == imagenet.len() {
        return imagenet.to_vec();
    }
    (0..count).map(|class| class.to_string()).collect()
}

/// `id2label`: class numbers as texts to names, each number from 0 once.
fn names(fields: &Fields<'_>, value: &Value) -> Result<Vec<String>, ModelError> {
    let wrong = || fields.wrong("id2label", "an object of names by number, \"0\" first and none missing", value);
    let map = value.as_object().ok_or_else(wrong)?;
    let name = |class: usize| map.get(&class.to_string())?.as_str().map(str::to_owned);
    (0..map.len()).map(|class| name(class).ok_or_else(wrong)).collect()
}

/// A classifier with its preprocessing. Shared between threads; using it does not change it.
pub struct Classifier {
    config: ClassifierConfig,
    network: Network<Fused>,
    head: Linear<Fused>,
    preprocess: Preprocess,
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classifier").field("architecture", &self.config.architecture).finish_non_exhaustive()
    }
}

impl Classifier {
    pub(crate) fn new(
        config: ClassifierConfig,
        values: &mut Values<'_>,
        preprocess: Preprocess,
    ) -> Result<Self, ModelError> {
        check_preprocess(&preprocess, 3, config.image_size)?;
        let backend = Fused::new(1)?;
        let mut net = config.architecture.blueprint(config.image_size)?;
        let Size { height, .. } = net.size(net.last());
        net.mean_pool(net.last(), runner_nn::Window::new(height, height, 0))?;
        let network = net.load(&backend, values)?;
        let (name, inputs, outputs) =
            (config.architecture.head(), config.architecture.features(), config.classes.len());
        let weight = values(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = values(&format!("{name}.bias"), &[outputs])?;
        let head = Linear {
            weight: backend.weight("fc.weight", outputs, inputs, weight)?,
            bias: Some(backend.param("fc.bias", 1, outputs, bias)?),
        };
        Ok(Self { config, network, head, preprocess })
    }

    /// The architecture and the classes.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// The classes' names, by number.
    pub fn classes(&self) -> &[String] {
        &self.config.classes
    }

    /// Turns pictures into the pixels that it takes.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Components of the pooled features.
    pub fn dim(&self) -> usize {
        self.config.architecture.features()
    }

    /// The features of `n` preprocessed pictures, `[n, 3, side, side]`, before the last map: `[n, dim]`.
    pub fn encode_images(&self, pixels: &[f32], n: usize, threads: usize) -> Result<Vec<f32>, ModelError> {
        self.each(pixels, n, threads, |_, features| Ok(features))
    }

    /// The logits of `n` preprocessed pictures, `[n, classes]`.
    pub fn logits(&self, pixels: &[f32], n: usize, threads: usize) -> Result<Vec<f32>, ModelError> {
        self.each(pixels, n, threads, |backend, features| Ok(self.head.apply(backend, &features)?))
    }

    /// Computes some pictures at a time, and `last` of their features.
    fn each(
        &self,
        pixels: &[f32],
        n: usize,
        threads: usize,
        last: impl Fn(&Fused, Features) -> Result<Features, ModelError>,
    ) -> Result<Vec<f32>, ModelError> {
        let image = check_pixels(pixels, n, 3, self.config.image_size)?;
        let backend = Fused::new(threads)?;
        let mut found = Vec::new();
        for pixels in pixels.chunks(self.network.together() * image) {
            found.append(&mut backend.values(&last(&backend, self.network.run(&backend, pixels)?)?)?);
        }
        Ok(found)
    }
}

/// An activation on the CPU.
type Features = <Fused as Backend>::Tensor;
