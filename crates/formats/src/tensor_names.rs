//! Names of tensors in Hugging Face folders without what wrappers put around them: a compiled
//! model's `_orig_mod.`, and the place of the text model inside a multimodal one.

/// Where a tensor belongs.
#[derive(Debug, PartialEq)]
pub enum Place {
    /// To the text model, where it has this name.
    Text(String),
    /// To another part of the model, which is called so.
    Outside(String),
}

/// What `torch.compile` puts before the names of what it wraps.
const COMPILED: &str = "_orig_mod";

/// Where wrappers keep the text model, and what the text model by itself calls that.
const TEXT: &[(&str, &str)] = &[
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.model.", "model."),
    ("model.language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("model.text_model.", "model."),
];

/// Towers, encoders and projectors of other media, and heads for several tokens at once, which no
/// text is predicted with.
const OUTSIDE: &[&str] = &[
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "vision_embed_tokens",
    "vision_language_adapter",
    "visual",
    "embed_vision",
    "image_newline",
    "audio_tower",
    "audio_model",
    "audio_encoder",
    "embed_audio",
    "multi_modal_projector",
    "multimodal_projector",
    "mm_projector",
    "patch_merger",
    "connector",
    "mtp",
];

/// The place of the tensor that a folder calls `name`.
pub fn place(name: &str) -> Place {
    let parts: Vec<&str> = name.split('.').filter(|part| *part != COMPILED).collect();
    let first = if parts.first() == Some(&"model") { parts.get(1) } else { parts.first() };
    if let Some(part) = first.filter(|part| OUTSIDE.contains(part)) {
        return Place::Outside((*part).to_owned());
    }
    let name = parts.join(".");
    let text = TEXT.iter().find_map(|(wrapped, plain)| {
        name.strip_prefix(wrapped).map(|rest| format!("{plain}{rest}"))
    });
    Place::Text(text.unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_text_model_stay() {
        for name in [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.norm.weight",
            "lm_head.weight",
            "something.else",
            "",
        ] {
            assert_eq!(place(name), Place::Text(name.into()));
        }
    }

    #[test]
    fn wrappers_are_taken_off() {
        let q = "model.layers.1.self_attn.q_proj.weight";
        for name in [
            "_orig_mod.model.layers.1.self_attn.q_proj.weight",
            "model._orig_mod.layers.1.self_attn.q_proj.weight",
            "model.layers.1._orig_mod.self_attn.q_proj.weight",
            "model.language_model.layers.1.self_attn.q_proj.weight",
            "model.language_model.model.layers.1.self_attn.q_proj.weight",
            "language_model.model.layers.1.self_attn.q_proj.weight",
            "model.text_model.layers.1.self_attn.q_proj.weight",
            "_orig_mod.language_model.model.layers.1.self_attn.q_proj.weight",
        ] {
            assert_eq!(place(name), Place::Text(q.into()), "{name}");
        }
        for name in ["language_model.lm_head.weight", "_orig_mod.lm_head.weight"] {
            assert_eq!(place(name), Place::Text("lm_head.weight".into()), "{name}");
        }
    }

    #[test]
    fn towers_and_projectors_are_outside() {
        for (name, part) in [
            ("vision_tower.encoder.layers.0.q.weight", "vision_tower"),
            ("model.vision_tower.encoder.layers.0.q.weight", "vision_tower"),
            ("_orig_mod.model.visual.blocks.0.attn.qkv.weight", "visual"),
            ("multi_modal_projector.linear.weight", "multi_modal_projector"),
            ("model.embed_audio.embedding.weight", "embed_audio"),
            ("mtp.layers.0.mlp.gate_proj.weight", "mtp"),
        ] {
            assert_eq!(place(name), Place::Outside(part.into()), "{name}");
        }
        // A part of the text model may be called like a tower further in.
        let inside = "model.layers.0.visual.weight";
        assert_eq!(place(inside), Place::Text(inside.into()));
    }
}
