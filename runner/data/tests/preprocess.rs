//! Preprocessing equals Pillow's and transformers', byte for byte. Golden values: `reference/preprocess.py`.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use flate2::Crc;
use runner_contract::ImageRef;
use runner_data::{Preprocess, PreprocessCfg, Reference, ResizeMode, RgbConversion};
use serde_json::{Value, json};

/// The picture that the script makes: `[height, width, channels]`.
fn picture(height: usize, width: usize, channels: usize) -> Vec<u8> {
    let value = |y: usize, x: usize, c: usize| match (x / 7 + y / 7) % 5 {
        0 => 255,
        1 => 0,
        _ => ((x * 31 + y * 17 + c * 101 + (x * y) % 97 * 5 + ((x / 3) * (y / 5)) % 13 * 19) % 256) as u8,
    };
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    rows.flat_map(|(y, x)| (0..channels).map(move |c| (y, x, c))).map(|(y, x, c)| value(y, x, c)).collect()
}

fn crc(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut crc = Crc::new();
    crc.update(&bytes.into_iter().collect::<Vec<_>>());
    crc.sum().into()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/preprocess.json")).unwrap()
}

fn number(case: &Value, key: &str) -> usize {
    case[key].as_u64().unwrap() as usize
}

#[test]
fn resizing_equals_pillow_and_torchvision_byte_for_byte() {
    let golden = golden();
    let cases = golden["resize"].as_array().unwrap();
    assert!(cases.len() > 400);
    for case in cases {
        let [height, width, channels] = ["height", "width", "channels"].map(|key| number(case, key));
        let (to_height, to_width) = (number(case, "to_height"), number(case, "to_width"));
        let config = json!({
            "size": {"height": to_height, "width": to_width}, "resample": case["resample"], "backend": case["backend"],
            "do_center_crop": false, "do_rescale": false, "do_normalize": false,
        });
        let preprocess = Preprocess::from_config(&config.to_string()).unwrap();
        let data = picture(height, width, channels);
        let planes = preprocess.apply(ImageRef::Pixels { height, width, channels, data: &data }).unwrap();
        let area = to_height * to_width;
        let interleaved = (0..area).flat_map(|i| (0..channels).map(move |c| c * area + i)).map(|at| planes[at] as u8);
        assert_eq!(crc(interleaved), case["crc"].as_u64().unwrap(), "{case}");
    }
}

#[test]
fn preprocessing_equals_transformers() {
    let golden = golden();
    for case in golden["process"].as_array().unwrap() {
        let mut config = case["config"].clone();
        config["backend"] = case["backend"].clone();
        let preprocess = Preprocess::from_config(&config.to_string()).unwrap();
        let (height, width) = (number(case, "height"), number(case, "width"));
        let data = picture(height, width, 3);
        let values = preprocess.apply(ImageRef::Pixels { height, width, channels: 3, data: &data }).unwrap();
        let size = preprocess.size();
        assert_eq!(json!([3, size.0, size.1]), case["shape"], "{case}");
        let step = (values.len() / 4).max(1);
        for (value, expected) in values.iter().step_by(step).zip(case["first"].as_array().unwrap()) {
            assert!(
                (f64::from(*value) - expected.as_f64().unwrap()).abs() < 1e-6,
                "{value} instead of {expected}: {case}"
            );
        }
        assert_eq!(crc(values.iter().flat_map(|value| value.to_le_bytes())), case["crc"].as_u64().unwrap(), "{case}");
    }
}

#[test]
fn a_config_is_read_in_all_its_spellings_and_written_back() {
    let read = |config: Value| Preprocess::from_config(&config.to_string()).unwrap();
    assert_eq!(read(json!({})), Preprocess::clip(224));
    assert_eq!(
        read(json!({"size": 336, "crop_size": 336, "feature_extractor_type": "CLIPFeatureExtractor"})),
        Preprocess::clip(336)
    );
    assert_eq!(
        read(json!({"image_processor": {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}}})),
        Preprocess::clip(30)
    );
    assert_eq!(
        read(json!({"size": 384, "do_center_crop": false, "image_processor_type": "ViTImageProcessor"})).size(),
        (384, 384)
    );
    assert_eq!(
        read(json!({"image_processor_type": "CLIPImageProcessorFast"})),
        Preprocess::clip(224).with_reference(Reference::TransformersTorchvision)
    );
    for config in [
        json!({"size": {"height": 20, "width": 30}, "do_center_crop": false, "do_normalize": false, "resample": 1}),
        json!({"size": {"shortest_edge": 40}, "crop_size": 32, "backend": "torchvision", "image_mean": [0.1, 0.2, 0.3]}),
        json!({"do_resize": false, "crop_size": {"height": 3, "width": 4}, "do_rescale": false}),
    ] {
        let preprocess = read(config);
        assert_eq!(Preprocess::from_config(&preprocess.to_json()).unwrap(), preprocess);
    }
}

#[test]
fn every_preprocessing_is_written_and_read_back() {
    let cfg = |text: Value| PreprocessCfg::from_json(&text, "open_clip_config.json").unwrap();
    for preprocess in [
        Preprocess::openai(336),
        Preprocess::torchvision_classifier(),
        Preprocess::efficientnet_lite(224),
        Preprocess::open_clip(&PreprocessCfg::default()),
        Preprocess::open_clip(&cfg(
            json!({"size": [384, 384], "resize_mode": "squash", "mean": 0.5, "std": [0.5, 0.5, 0.5]}),
        )),
        Preprocess::open_clip(&cfg(
            json!({"size": 64, "resize_mode": "longest", "fill_color": 127, "interpolation": "bilinear"}),
        )),
        Preprocess::open_clip(&cfg(json!({"size": [30, 40], "mode": "RGB"}))),
        Preprocess::clip(28).with_rgb_conversion(RgbConversion::First),
    ] {
        assert_eq!(Preprocess::from_config(&preprocess.to_json()).unwrap(), preprocess);
    }
    assert_eq!(Preprocess::open_clip(&PreprocessCfg::default()), Preprocess::openai(224));
    assert_eq!(cfg(json!({"resize_mode": "squash"})).resize_mode, ResizeMode::Squash);
    let error = PreprocessCfg::from_json(&json!({"interpolation": "cubic"}), "open_clip_config.json").unwrap_err();
    assert_eq!(
        error.to_string(),
        "open_clip_config.json, preprocess_cfg: `interpolation` is \"cubic\", expected \"bicubic\" or \"bilinear\""
    );
}

#[test]
fn processors_have_their_own_defaults() {
    let read = |config: Value| Preprocess::from_config(&config.to_string());
    let siglip =
        read(json!({"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}})).unwrap();
    assert_eq!(siglip.size(), (384, 384));
    assert_eq!(siglip.rgb_conversion(), RgbConversion::OnWhite);
    let convnext =
        read(json!({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}})).unwrap();
    assert_eq!(convnext.size(), (224, 224));
    let error = read(json!({"image_processor_type": "Siglip2ImageProcessor"})).unwrap_err().to_string();
    assert!(error.contains("`image_processor_type` is \"Siglip2ImageProcessor\", expected CLIP"), "{error}");
}

#[test]
fn a_bad_config_says_what_was_expected() {
    let error = |config: Value| Preprocess::from_config(&config.to_string()).unwrap_err().to_string();
    assert_eq!(
        error(json!({"resample": 9})),
        "`resample` is 9, expected 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box) or 5 (hamming)"
    );
    assert!(
        error(json!({"size": {"longest_edge": 224}})).contains("`size` is {\"longest_edge\":224}, expected a number")
    );
    assert!(error(json!({"size": 0})).contains("`size` is 0"));
    assert!(error(json!({"image_std": [1, 0, 1]})).contains("`image_std` holds a 0"));
    assert!(error(json!({"do_resize": false, "do_center_crop": false})).contains("no common size"));
    assert!(error(json!([])).contains("expected an object"));
}

#[test]
fn grey_pixels_are_three_equal_channels() {
    let data = picture(31, 57, 1);
    let tripled: Vec<u8> = data.iter().flat_map(|value| [*value; 3]).collect();
    let preprocess = Preprocess::clip(28);
    let grey = preprocess.apply(ImageRef::Pixels { height: 31, width: 57, channels: 1, data: &data }).unwrap();
    let rgb = preprocess.apply(ImageRef::Pixels { height: 31, width: 57, channels: 3, data: &tripled }).unwrap();
    assert_eq!(grey, rgb);
}

#[test]
fn pictures_that_no_model_can_take_are_errors() {
    let preprocess = Preprocess::clip(224);
    let apply = |height, width, channels, data: &[u8]| {
        preprocess.apply(ImageRef::Pixels { height, width, channels, data }).unwrap_err().to_string()
    };
    assert!(apply(2, 2, 1, &[0; 3]).contains("3 bytes are not 2x2 pixels"));
    assert!(apply(0, 0, 3, &[]).contains("0 bytes"));
    assert!(apply(2, 2, 4, &[0; 16]).contains("1 or 3 channels"));
    // 65,000 pixels long and one wide would be resized to 224 by 14 million.
    assert!(apply(65_000, 1, 1, &[0; 65_000]).contains("would be resized to 224x14560000"));
}
