//! The weights that training starts from.

use runner_contract::Random;

use crate::clip::{ClipConfig, TowerConfig, VisionConfig};

/// A tensor's initial values, by its name in the checkpoint: a function of seed and name alone.
///
/// As `CLIPPreTrainedModel._init_weights` of transformers: normal, narrower on the maps that add to the residual stream,
/// the more blocks there are; biases 0, norms 1.
pub(super) fn values(config: &ClipConfig, seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let normal = |deviation: f64| {
        let mut random = Random::new(seed, "clip weights", name);
        (0..count).map(|_| (random.normal() * deviation) as f32).collect()
    };
    let tower = match &config.vision {
        VisionConfig::Vit(vit) if name.starts_with("vis") => &vit.tower,
        _ => &config.text.tower,
    };
    match deviation(tower, name) {
        Some(deviation) => normal(deviation),
        None if name == "logit_scale" => vec![config.logit_scale_init],
        None if name.ends_with(".bias") => vec![0.0; count],
        None => vec![1.0; count],
    }
}

/// The standard deviation of a tensor's values, where they are random.
fn deviation(tower: &TowerConfig, name: &str) -> Option<f64> {
    let by_width = (tower.width as f64).powf(-0.5);
    let by_depth = by_width * (2.0 * tower.layers as f64).powf(-0.5);
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let last = stem.rsplit('.').next().unwrap_or(stem);
    match last {
        _ if name.ends_with(".bias") => None,
        "class_embedding" | "out_proj" | "visual_projection" | "text_projection" => Some(by_width),
        "q_proj" | "k_proj" | "v_proj" | "fc2" => Some(by_depth),
        "fc1" => Some((2.0 * tower.width as f64).powf(-0.5)),
        "patch_embedding" | "position_embedding" | "token_embedding" => Some(0.02),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_deviation_and_depend_on_seed_and_name() {
        let config = ClipConfig::parse("config.json", "{}").unwrap();
        let name = "text_model.encoder.layers.0.mlp.fc1.weight";
        let fc1 = values(&config, 0, name, &[64, 512]);
        let square = fc1.iter().map(|value| f64::from(value * value)).sum::<f64>() / fc1.len() as f64;
        assert!((square.sqrt() - 1024f64.powf(-0.5)).abs() < 1e-3, "{square}");
        assert_eq!(fc1, values(&config, 0, name, &[64, 512]));
        assert_ne!(fc1, values(&config, 1, name, &[64, 512]));
        assert_eq!(values(&config, 0, "vision_model.pre_layrnorm.weight", &[2]), [1.0, 1.0]);
        assert_eq!(values(&config, 0, "vision_model.pre_layrnorm.bias", &[2]), [0.0, 0.0]);
        assert_eq!(values(&config, 0, "logit_scale", &[]), [2.6592]);
    }
}
