//! `preprocessor_config.json`, in and out.

use serde_json::{Map, Value, json};

use super::{CLIP_MEAN, CLIP_STD, Preprocess, Reference, RgbConversion, Size, open_clip::channels};
use crate::{DataError, resize::Filter};

impl Preprocess {
    /// Reads the text of a `preprocessor_config.json`, or of a `processor_config.json` that holds one as `image_processor`. The
    /// error does not say which.
    pub fn from_config(text: &str) -> Result<Self, DataError> {
        let value: Value = serde_json::from_str(text).map_err(|error| DataError::Invalid(error.to_string()))?;
        let config = value.get("image_processor").unwrap_or(&value);
        let config = config.as_object().ok_or_else(|| DataError::Invalid("expected an object".to_owned()))?;
        Config(config).read().map_err(DataError::Invalid)
    }

    /// The text of a `preprocessor_config.json` that gives this back.
    pub fn to_json(&self) -> String {
        let sides = |(height, width)| json!({"height": height, "width": width});
        let size = match self.resize {
            Some(Size::ShortestEdge(edge)) => json!({"shortest_edge": edge}),
            Some(Size::Exact { height, width } | Size::Cover { height, width } | Size::Contain { height, width }) => {
                sides((height, width))
            }
            None => Value::Null,
        };
        let (mean, std) = self.normalize.unwrap_or((CLIP_MEAN, CLIP_STD));
        let mut config = json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": self.rgb == RgbConversion::OnWhite,
            "do_resize": self.resize.is_some(),
            "size": size,
            "resample": self.filter.to_pillow(),
            "do_center_crop": self.crop.is_some(),
            "crop_size": self.crop.map(sides),
            "do_rescale": self.rescale.is_some(),
            "rescale_factor": self.rescale.unwrap_or(1.0 / 255.0),
            "do_normalize": self.normalize.is_some(),
            "image_mean": mean.map(shortest),
            "image_std": std.map(shortest),
        });
        // What no processor of transformers can say has keys of our own.
        match self.reference {
            Reference::TransformersPil => {}
            Reference::TransformersTorchvision => config["backend"] = json!("torchvision"),
            Reference::TorchvisionPil => config["backend"] = json!("torchvision_pil"),
        }
        if self.rgb == RgbConversion::Last {
            config["convert_rgb_last"] = json!(true);
        }
        match self.resize {
            Some(Size::Cover { .. }) => config["keep_shape"] = json!("cover"),
            Some(Size::Contain { .. }) => config["keep_shape"] = json!("contain"),
            Some(Size::ShortestEdge(_) | Size::Exact { .. }) | None => {}
        }
        if self.fill != 0 {
            config["fill_color"] = json!(self.fill);
        }
        config.to_string()
    }
}

/// The shortest decimal that reads back as this f32: `0.48145466`, not its double.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// The processors of `transformers` that stand before image-text models, by what they do where a config is silent.
fn processor(name: &str) -> Result<(Preprocess, bool), String> {
    let family = name.trim_end_matches("Pil").trim_end_matches("Fast");
    let family = family.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor");
    let clip = Preprocess::clip(224);
    let exact = |side, filter| Preprocess {
        resize: Some(Size::Exact { height: side, width: side }),
        filter,
        crop: None,
        normalize: Some(([0.5; 3], [0.5; 3])),
        ..Preprocess::clip(side)
    };
    // Whether a bare number is both sides; else it is the short one.
    Ok(match family {
        "" | "CLIP" | "ChineseCLIP" | "Bit" => (clip, false),
        "Siglip" => (exact(224, Filter::Bicubic), false),
        "Blip" => (Preprocess { normalize: clip.normalize, ..exact(384, Filter::Bicubic) }, true),
        "ViT" => (Preprocess { rgb: RgbConversion::First, ..exact(224, Filter::Bilinear) }, true),
        "DeiT" => (Preprocess { rgb: RgbConversion::First, crop: clip.crop, ..exact(256, Filter::Bicubic) }, true),
        "ConvNext" => {
            let resize = Some(Size::ShortestEdge(384));
            (Preprocess { rgb: RgbConversion::First, resize, ..exact(384, Filter::Bicubic) }, false)
        }
        _ => {
            return Err(format!(
                "`image_processor_type` is \"{name}\", expected CLIP, ChineseCLIP, Siglip, Blip, ViT, DeiT, ConvNext or Bit and `ImageProcessor`"
            ));
        }
    })
}

/// A `preprocessor_config.json`, with its processor's defaults for what it leaves out.
struct Config<'a>(&'a Map<String, Value>);

impl Config<'_> {
    fn read(&self) -> Result<Preprocess, String> {
        let name = ["image_processor_type", "feature_extractor_type"].iter().find_map(|key| self.0.get(*key)?.as_str());
        let name = name.unwrap_or_default();
        let (default, square) = processor(name)?;
        let resize = match (self.flag("do_resize", true)?, self.get("size")) {
            (false, _) => None,
            (true, None) => default.resize,
            (true, Some(value)) => Some(size(value, square)?),
        };
        let crop = match (self.flag("do_center_crop", default.crop.is_some())?, self.get("crop_size")) {
            (false, _) => None,
            (true, None) => default.crop.or(Some((224, 224))),
            (true, Some(value)) => match size(value, true).map_err(|message| message.replace("size", "crop_size"))? {
                Size::ShortestEdge(edge) => Some((edge, edge)),
                Size::Exact { height, width } | Size::Cover { height, width } | Size::Contain { height, width } => {
                    Some((height, width))
                }
            },
        };
        let (resize, crop) = match resize {
            Some(Size::ShortestEdge(edge)) if name.starts_with("ConvNext") => {
                let (resize, crop) = self.convnext(edge)?;
                (Some(resize), crop)
            }
            other => (other, crop),
        };
        if resize.is_none() && crop.is_none() {
            return Err("`do_resize` and `do_center_crop` are both false: pictures would have no common size".into());
        }
        let resize = match (self.get("keep_shape").and_then(Value::as_str), resize) {
            (Some("cover"), Some(Size::Exact { height, width })) => Some(Size::Cover { height, width }),
            (Some("contain"), Some(Size::Exact { height, width })) => Some(Size::Contain { height, width }),
            (_, resize) => resize,
        };
        let filter = match self.get("resample") {
            None => default.filter,
            Some(value) => value.as_u64().and_then(Filter::from_pillow).ok_or_else(|| {
                format!("`resample` is {value}, expected 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box) or 5 (hamming)")
            })?,
        };
        let scale = match self.get("rescale_factor") {
            None => 1.0 / 255.0,
            Some(value) => value
                .as_f64()
                .filter(|scale| scale.is_normal())
                .ok_or_else(|| format!("`rescale_factor` is {value}, expected a number other than 0"))?,
        };
        let (mean, std) = default.normalize.unwrap_or((CLIP_MEAN, CLIP_STD));
        let mean = self.get("image_mean").map_or(Ok(mean), |value| channels("image_mean", value))?;
        let std = self.get("image_std").map_or(Ok(std), |value| channels("image_std", value))?;
        if std.contains(&0.0) {
            return Err("`image_std` holds a 0".into());
        }
        let reference = match self.get("backend").map(|value| value.as_str().unwrap_or_default()) {
            Some("torchvision") => Reference::TransformersTorchvision,
            Some("pil") => Reference::TransformersPil,
            Some("torchvision_pil") => Reference::TorchvisionPil,
            Some(other) => return Err(format!("`backend` is {other:?}, expected \"pil\" or \"torchvision\"")),
            None if name.ends_with("Fast") => Reference::TransformersTorchvision,
            None => Reference::TransformersPil,
        };
        let rgb = match (
            self.flag("convert_rgb_last", false)?,
            self.flag("do_convert_rgb", default.rgb == RgbConversion::OnWhite)?,
        ) {
            (true, _) => RgbConversion::Last,
            (false, true) => RgbConversion::OnWhite,
            // Models take three channels, so what else comes is converted all the same.
            (false, false) => RgbConversion::First,
        };
        let fill = self.get("fill_color").and_then(Value::as_u64).and_then(|fill| u8::try_from(fill).ok());
        Ok(Preprocess {
            reference,
            rgb,
            resize,
            filter,
            crop,
            fill: fill.unwrap_or(0),
            rescale: self.flag("do_rescale", true)?.then_some(scale),
            normalize: self.flag("do_normalize", true)?.then_some((mean, std)),
            limits: default.limits,
        })
    }

    /// `ConvNextImageProcessor`: below 384 a crop of `crop_pct`, from there on the whole picture, squeezed.
    fn convnext(&self, edge: usize) -> Result<(Size, Option<(usize, usize)>), String> {
        if edge >= 384 {
            return Ok((Size::Exact { height: edge, width: edge }, None));
        }
        let share = match self.get("crop_pct") {
            None => 224.0 / 256.0,
            Some(value) => value
                .as_f64()
                .filter(|share| (0.05..=1.0).contains(share))
                .ok_or_else(|| format!("`crop_pct` is {value}, expected a share of 0.05 to 1"))?,
        };
        Ok((Size::ShortestEdge((edge as f64 / share) as usize), Some((edge, edge))))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        let value = self
            .get(key)
            .map(|value| value.as_bool().ok_or_else(|| format!("`{key}` is {value}, expected true or false")));
        value.unwrap_or(Ok(default))
    }
}

/// A size as the config has it: `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`.
fn size(value: &Value, square: bool) -> Result<Size, String> {
    let wrong = || {
        format!(
            "`size` is {value}, expected a number, {{\"shortest_edge\": n}} or {{\"height\": n, \"width\": n}} of 1 to 16384"
        )
    };
    let side = |value: &Value| value.as_u64().filter(|side| (1..=16_384).contains(side)).map(|side| side as usize);
    let part = |key: &str| value.get(key).filter(|value| !value.is_null());
    if value.is_number() {
        let side = side(value).ok_or_else(wrong)?;
        return Ok(if square { Size::Exact { height: side, width: side } } else { Size::ShortestEdge(side) });
    }
    match (part("shortest_edge"), part("height"), part("width"), part("longest_edge")) {
        (Some(edge), None, None, None) => side(edge).map(Size::ShortestEdge).ok_or_else(wrong),
        (None, Some(height), Some(width), None) => match (side(height), side(width)) {
            (Some(height), Some(width)) => Ok(Size::Exact { height, width }),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}
