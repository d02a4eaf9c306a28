//! Pictures, and what a config says is done to them.

use runner_contract::ImageRef;
use runner_data::{Limits, Preprocess, PreprocessCfg, Reference, RgbConversion, decode};

/// Small, so that most of the time goes into decoders.
const LIMITS: Limits = Limits { pixels: 1 << 20, side: 1 << 14 };

/// The first byte chooses the preprocessing.
pub fn image(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_last() else { return };
    if let Ok(pixels) = decode(bytes, "fuzzed", &LIMITS) {
        assert_eq!(pixels.data.len(), pixels.height * pixels.width * pixels.channels);
        assert!(pixels.height as u64 * pixels.width as u64 <= LIMITS.pixels);
    }
    let rgb = [RgbConversion::First, RgbConversion::OnWhite, RgbConversion::Last][usize::from(choice % 3)];
    let reference = [Reference::TransformersPil, Reference::TransformersTorchvision, Reference::TorchvisionPil]
        [usize::from(choice / 3 % 3)];
    let preprocess = Preprocess::clip(24).with_rgb_conversion(rgb).with_reference(reference).with_limits(LIMITS);
    if let Ok(values) = preprocess.apply(ImageRef::Encoded { bytes, path: "fuzzed" }) {
        assert_eq!(values.len(), 3 * 24 * 24);
        assert!(values.iter().all(|value| value.is_finite()));
    }
}

/// What is read is written and read back the same.
pub fn preprocess(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(value) = serde_json::from_str(text)
        && let Ok(cfg) = PreprocessCfg::from_json(&value, "fuzzed")
    {
        let _ = round_trip(&Preprocess::open_clip(&cfg));
    }
    let Ok(preprocess) = Preprocess::from_config(text) else { return };
    let preprocess = round_trip(&preprocess).with_limits(LIMITS);
    let (height, width) = preprocess.size();
    if height * width <= 1 << 16 {
        let data = [7; 5 * 9 * 3];
        let _ = preprocess.apply(ImageRef::Pixels { height: 5, width: 9, channels: 3, data: &data });
    }
}

fn round_trip(preprocess: &Preprocess) -> Preprocess {
    let again = Preprocess::from_config(&preprocess.to_json()).expect("what was written can be read");
    assert_eq!(again, *preprocess);
    again
}
