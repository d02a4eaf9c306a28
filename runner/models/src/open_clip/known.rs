//! The configurations that open_clip knows by name, and what its pretrained tags say beside them.

use runner_data::{PreprocessCfg, ResizeMode};

use super::{EPS, LOG_SCALE};
use crate::clip::{
    Activation, ClipConfig, ModifiedResNetConfig, Pooling, TextConfig, TowerConfig, VisionConfig, VitConfig,
};

/// A vision transformer: name, embedding; image and patch size, width, layers, width of a head, width of the MLP; text width, layers.
type Vit = (&'static str, usize, [usize; 6], [usize; 2]);
/// A modified ResNet: name, embedding, image size, width, layers, text width.
type ResNet = (&'static str, usize, usize, usize, [usize; 4], usize);

const VITS: &[Vit] = &[
    ("ViT-S-32", 384, [224, 32, 384, 12, 64, 1536], [384, 12]),
    ("ViT-S-32-alt", 256, [224, 32, 384, 12, 64, 1536], [256, 10]),
    ("ViT-S-16", 384, [224, 16, 384, 12, 64, 1536], [384, 12]),
    ("ViT-S-16-alt", 256, [224, 16, 384, 12, 64, 1536], [256, 10]),
    ("ViT-M-32", 512, [224, 32, 512, 12, 64, 2048], [512, 12]),
    ("ViT-M-32-alt", 384, [224, 32, 512, 12, 64, 2048], [384, 12]),
    ("ViT-M-16", 512, [224, 16, 512, 12, 64, 2048], [512, 12]),
    ("ViT-M-16-alt", 384, [224, 16, 512, 12, 64, 2048], [384, 12]),
    ("ViT-B-32", 512, [224, 32, 768, 12, 64, 3072], [512, 12]),
    ("ViT-B-32-256", 512, [256, 32, 768, 12, 64, 3072], [512, 12]),
    ("ViT-B-32-plus-256", 640, [256, 32, 896, 12, 64, 3584], [640, 12]),
    ("ViT-B-16", 512, [224, 16, 768, 12, 64, 3072], [512, 12]),
    ("ViT-B-16-plus", 640, [224, 16, 896, 12, 64, 3584], [640, 12]),
    ("ViT-B-16-plus-240", 640, [240, 16, 896, 12, 64, 3584], [640, 12]),
    ("ViT-L-16", 768, [224, 16, 1024, 24, 64, 4096], [768, 12]),
    ("ViT-L-16-320", 768, [320, 16, 1024, 24, 64, 4096], [768, 12]),
    ("ViT-L-14", 768, [224, 14, 1024, 24, 64, 4096], [768, 12]),
    ("ViT-L-14-280", 768, [280, 14, 1024, 24, 64, 4096], [768, 12]),
    ("ViT-L-14-336", 768, [336, 14, 1024, 24, 64, 4096], [768, 12]),
    ("ViT-H-16", 1024, [224, 16, 1280, 32, 80, 5120], [1024, 24]),
    ("ViT-H-14", 1024, [224, 14, 1280, 32, 80, 5120], [1024, 24]),
    ("ViT-H-14-378", 1024, [378, 14, 1280, 32, 80, 5120], [1024, 24]),
    ("ViT-g-14", 1024, [224, 14, 1408, 40, 88, 6144], [1024, 24]),
    ("ViT-bigG-14", 1280, [224, 14, 1664, 48, 104, 8192], [1280, 32]),
    ("ViT-e-14", 1280, [224, 14, 1792, 56, 112, 15360], [1280, 36]),
];

const RESNETS: &[ResNet] = &[
    ("RN50", 1024, 224, 64, [3, 4, 6, 3], 512),
    ("RN101", 512, 224, 64, [3, 4, 23, 3], 512),
    ("RN50x4", 640, 288, 80, [4, 6, 10, 6], 640),
    ("RN50x16", 768, 384, 96, [6, 8, 18, 8], 768),
    ("RN50x64", 1024, 448, 128, [3, 15, 36, 10], 1024),
];

/// Components of an attention head of a text tower, and of most image towers.
const HEAD: usize = 64;
/// What an open_clip name with quick GELU ends in.
const QUICK: &str = "-quickgelu";
/// Pretrained tags whose weights were trained with quick GELU, whatever the name of the configuration.
const QUICK_TAGS: &[&str] = &["openai", "yfcc15m", "cc12m", "metaclip_400m", "metaclip_fullcc", "dfn2b", "dfn5b"];
/// How the other pretrained tags begin.
const TAGS: &[&str] = &["laion400m_", "laion2b_", "datacomp_", "commonpool_", "dfn2b_", "metaclip_altogether"];

/// A configuration of a name.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) config: ClipConfig,
    pub(crate) preprocess: PreprocessCfg,
}

impl Known {
    /// `NAME`, `NAME-quickgelu` or `NAME/TAG` with a pretrained tag of open_clip; else what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, tag) = text.split_once('/').map_or((text, None), |(name, tag)| (name, Some(tag)));
        let base = name.strip_suffix(QUICK).unwrap_or(name);
        let mut activation = if base == name { Activation::Gelu } else { Activation::QuickGelu };
        let mut preprocess = PreprocessCfg::default();
        if let Some(tag) = tag {
            let laion400m = base == "ViT-B-32" && tag.starts_with("laion400m_");
            if QUICK_TAGS.contains(&tag) || laion400m {
                activation = Activation::QuickGelu;
            } else if !TAGS.iter().any(|known| tag.starts_with(known)) {
                return Err(format!("`{tag}` is no pretrained tag of open_clip; leave it out, with its slash"));
            }
            match (base, tag) {
                ("ViT-L-14", "laion2b_s32b_b82k") => (preprocess.mean, preprocess.std) = ([0.5; 3], [0.5; 3]),
                ("ViT-H-14" | "ViT-H-14-378", "dfn5b") => preprocess.resize_mode = ResizeMode::Squash,
                _ => {}
            }
        }
        let Some(config) = named(base, activation) else {
            return Err(format!("there is {}; each also with {QUICK}", names().collect::<Vec<_>>().join(", ")));
        };
        let side = config.vision.image_size();
        Ok(Self { config, preprocess: PreprocessCfg { size: (side, side), ..preprocess } })
    }
}

/// The names whose configuration is this one, activation aside.
pub(crate) fn like(config: &ClipConfig) -> Vec<&'static str> {
    let activation = config.text.tower.activation;
    names().filter(|name| named(name, activation).as_ref() == Some(config)).collect()
}

fn names() -> impl Iterator<Item = &'static str> {
    VITS.iter().map(|vit| vit.0).chain(RESNETS.iter().map(|resnet| resnet.0))
}

fn named(name: &str, activation: Activation) -> Option<ClipConfig> {
    let tower =
        |width, layers, head, hidden| TowerConfig { width, layers, heads: width / head, hidden, activation, eps: EPS };
    let (dim, vision, [width, layers]) = if let Some((_, dim, vision, text)) = VITS.iter().find(|vit| vit.0 == name) {
        let [image_size, patch_size, width, layers, head, hidden] = *vision;
        let tower = tower(width, layers, head, hidden);
        (*dim, VisionConfig::Vit(VitConfig { tower, image_size, patch_size, channels: 3 }), *text)
    } else {
        let (_, dim, image_size, width, layers, text) = *RESNETS.iter().find(|resnet| resnet.0 == name)?;
        let config = ModifiedResNetConfig { layers, width, heads: 32 * width / HEAD, image_size };
        (dim, VisionConfig::ResNet(config), [text, 12])
    };
    Some(ClipConfig {
        text: TextConfig {
            tower: tower(width, layers, HEAD, 4 * width),
            vocab: 49_408,
            positions: 77,
            pooling: Pooling::LargestId,
        },
        vision,
        dim,
        logit_scale_init: LOG_SCALE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activation_and_preprocessing_are_those_of_the_tag() {
        let activation = |text: &str| Known::parse(text).unwrap().config.text.tower.activation;
        assert_eq!(activation("ViT-B-32"), Activation::Gelu);
        assert_eq!(activation("ViT-B-32-quickgelu"), Activation::QuickGelu);
        assert_eq!(activation("ViT-B-32/openai"), Activation::QuickGelu);
        assert_eq!(activation("ViT-B-32/laion400m_e32"), Activation::QuickGelu);
        assert_eq!(activation("ViT-B-16/laion400m_e32"), Activation::Gelu);
        assert_eq!(activation("ViT-L-14/dfn2b"), Activation::QuickGelu);
        assert_eq!(activation("ViT-L-14/dfn2b_s39b"), Activation::Gelu);
        assert_eq!(Known::parse("ViT-L-14/laion2b_s32b_b82k").unwrap().preprocess.mean, [0.5; 3]);
        assert_eq!(Known::parse("ViT-H-14-378-quickgelu/dfn5b").unwrap().preprocess.resize_mode, ResizeMode::Squash);
        assert!(Known::parse("ViT-B-32/mine").unwrap_err().contains("no pretrained tag"));
        assert!(Known::parse("ViT-B-32-SigLIP").unwrap_err().contains("ViT-B-32-256, "));
    }

    #[test]
    fn a_configuration_has_its_names() {
        let names = |text: &str| like(&Known::parse(text).unwrap().config);
        assert_eq!(names("ViT-B-32"), ["ViT-B-32"]);
        assert_eq!(names("RN50x16-quickgelu"), ["RN50x16"]);
    }
}
