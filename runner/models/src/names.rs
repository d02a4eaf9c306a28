//! How checkpoints call their tensors. The networks ask for a vision transformer's and a text tower's by Hugging Face's names and
//! for a modified ResNet's by OpenAI's; where a file has OpenAI's, as open_clip's have, a tensor is found in it by a view.

/// How a file calls its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// As the networks do.
    Canonical,
    /// As OpenAI's code and open_clip's.
    OpenAi {
        /// What stands before the names of the text tower: nothing, or `text.` where open_clip keeps it as a module.
        text: &'static str,
    },
}

/// Where a tensor of the network is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) view: View,
    /// A layer scale (`ls_1.gamma`) that multiplies the outputs, where the file has one.
    pub(crate) gain: Option<String>,
}

/// Which part of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Whole,
    /// One of the three parts of its rows: query, key, value.
    Third(usize),
    /// A matrix that is stored as its transpose.
    Transposed,
}

impl View {
    /// The shape that the stored tensor must have for a part of this shape.
    pub(crate) fn stored(self, shape: &[usize]) -> Vec<usize> {
        let mut stored = shape.to_vec();
        match (self, stored.as_mut_slice()) {
            (Self::Third(_), [rows, ..]) => *rows = rows.saturating_mul(3),
            (Self::Transposed, [_, _]) => stored.reverse(),
            _ => {}
        }
        stored
    }
}

impl Names {
    /// What a file's names are, from what it has.
    pub(crate) fn of(has: &dyn Fn(&str) -> bool) -> Self {
        match () {
            () if !has("visual.conv1.weight") || has("text_model.final_layer_norm.weight") => Self::Canonical,
            () if has("text.token_embedding.weight") => Self::OpenAi { text: "text." },
            () => Self::OpenAi { text: "" },
        }
    }

    /// Where a tensor of the network is in the file.
    pub(crate) fn locate(self, canonical: &str) -> Part {
        let whole = |name: String| Part { name, view: View::Whole, gain: None };
        let Self::OpenAi { text } = self else { return whole(canonical.to_owned()) };
        let turned = |name: String| Part { name, view: View::Transposed, gain: None };
        match canonical {
            "visual_projection.weight" => return turned("visual.proj".to_owned()),
            "text_projection.weight" => return turned(format!("{text}text_projection")),
            _ => {}
        }
        if let Some(rest) = canonical.strip_prefix("vision_model.encoder.layers.") {
            return block("visual.transformer.resblocks.", rest);
        }
        if let Some(rest) = canonical.strip_prefix("text_model.encoder.layers.") {
            return block(&format!("{text}transformer.resblocks."), rest);
        }
        let (module, kind) = canonical.rsplit_once('.').unwrap_or((canonical, ""));
        let found = match module {
            "vision_model.embeddings" => "visual.class_embedding".to_owned(),
            "vision_model.embeddings.position_embedding" => "visual.positional_embedding".to_owned(),
            "text_model.embeddings.position_embedding" => format!("{text}positional_embedding"),
            "vision_model.embeddings.patch_embedding" => format!("visual.conv1.{kind}"),
            "vision_model.pre_layrnorm" => format!("visual.ln_pre.{kind}"),
            "vision_model.post_layernorm" => format!("visual.ln_post.{kind}"),
            "text_model.embeddings.token_embedding" => format!("{text}token_embedding.{kind}"),
            "text_model.final_layer_norm" => format!("{text}ln_final.{kind}"),
            _ => canonical.to_owned(),
        };
        whole(found)
    }
}

/// A tensor of a block: `rest` is its number and its name in the block.
fn block(prefix: &str, rest: &str) -> Part {
    let (number, name) = rest.split_once('.').unwrap_or((rest, ""));
    let (module, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let part = |name: &str, view| Part { name: format!("{prefix}{number}.{name}"), view, gain: None };
    let scaled = |name: &str, gain: &str| Part {
        gain: Some(format!("{prefix}{number}.{gain}.gamma")),
        ..part(&format!("{name}.{kind}"), View::Whole)
    };
    let whole = |name: &str| part(&format!("{name}.{kind}"), View::Whole);
    let third = |i| part(&format!("attn.in_proj_{kind}"), View::Third(i));
    match module {
        "self_attn.q_proj" => third(0),
        "self_attn.k_proj" => third(1),
        "self_attn.v_proj" => third(2),
        "self_attn.out_proj" => scaled("attn.out_proj", "ls_1"),
        "mlp.fc1" => whole("mlp.c_fc"),
        "mlp.fc2" => scaled("mlp.c_proj", "ls_2"),
        "layer_norm1" => whole("ln_1"),
        "layer_norm2" => whole("ln_2"),
        _ => part(name, View::Whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_openais_are_found() {
        let names = Names::OpenAi { text: "" };
        let found = |canonical: &str| {
            let part = names.locate(canonical);
            (part.name, part.view)
        };
        let is = |name: &str, view| (name.to_owned(), view);
        assert_eq!(
            found("vision_model.encoder.layers.11.self_attn.k_proj.bias"),
            is("visual.transformer.resblocks.11.attn.in_proj_bias", View::Third(1))
        );
        assert_eq!(
            found("text_model.encoder.layers.0.mlp.fc1.weight"),
            is("transformer.resblocks.0.mlp.c_fc.weight", View::Whole)
        );
        assert_eq!(found("text_projection.weight"), is("text_projection", View::Transposed));
        assert_eq!(found("vision_model.embeddings.class_embedding"), is("visual.class_embedding", View::Whole));
        assert_eq!(found("visual.layer1.0.bn1.running_var"), is("visual.layer1.0.bn1.running_var", View::Whole));
        assert_eq!(found("logit_scale"), is("logit_scale", View::Whole));
        let custom = Names::OpenAi { text: "text." }.locate("text_model.final_layer_norm.bias");
        assert_eq!(custom.name, "text.ln_final.bias");
    }

    #[test]
    fn layer_scales_are_found_behind_both_maps_of_a_block() {
        let part = Names::OpenAi { text: "" }.locate("vision_model.encoder.layers.3.mlp.fc2.bias");
        assert_eq!(part.name, "visual.transformer.resblocks.3.mlp.c_proj.bias");
        assert_eq!(part.gain.as_deref(), Some("visual.transformer.resblocks.3.ls_2.gamma"));
    }
}
