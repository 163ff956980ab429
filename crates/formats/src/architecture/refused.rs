//! Families that are known and not computed, with the one thing that is missing.

/// A family that is refused by name.
struct Refused {
    /// Its classes in `architectures` of a config.json.
    classes: &'static [&'static str],
    /// Its names in `model_type` of a config.json.
    model_types: &'static [&'static str],
    /// Its names in `general.architecture` of a GGUF file.
    gguf: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

const LATENT: &str = "latent attention is not computed here";
const MAMBA: &str = "Mamba-2 layers are not computed here";
const ENCODER: &str = "attention that sees later tokens is not computed here";

const ALL: &[Refused] = &[
    Refused {
        classes: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM"],
        model_types: &["deepseek_v2", "deepseek_v3", "deepseek_v32"],
        gguf: &["deepseek2", "deepseek32"],
        reason: LATENT,
    },
    Refused {
        classes: &["MiniCPM3ForCausalLM", "Glm4MoeLiteForCausalLM", "KimiK2ForCausalLM"],
        model_types: &["minicpm3", "glm4_moe_lite", "kimi_k2"],
        gguf: &["minicpm3"],
        reason: LATENT,
    },
    Refused {
        classes: &["Mistral4ForCausalLM"],
        model_types: &["mistral4"],
        gguf: &["mistral4"],
        reason: LATENT,
    },
    Refused {
        classes: &["Mamba2ForCausalLM", "NemotronHForCausalLM"],
        model_types: &["mamba2", "nemotron_h"],
        gguf: &["mamba2", "nemotron_h", "nemotron_h_moe"],
        reason: MAMBA,
    },
    Refused {
        classes: &["FalconH1ForCausalLM", "BambaForCausalLM", "Zamba2ForCausalLM"],
        model_types: &["falcon_h1", "bamba", "zamba2"],
        gguf: &["falcon-h1"],
        reason: MAMBA,
    },
    Refused {
        classes: &["GraniteMoeHybridForCausalLM"],
        model_types: &["granitemoehybrid"],
        gguf: &["granitehybrid"],
        reason: "Mamba-2 layers are not computed here; its dense models are read as GGUF files",
    },
    Refused {
        classes: &["MambaForCausalLM", "FalconMambaForCausalLM", "JambaForCausalLM"],
        model_types: &["mamba", "falcon_mamba", "jamba"],
        gguf: &["mamba", "jamba"],
        reason: "Mamba layers are not computed here",
    },
    Refused {
        classes: &["Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"],
        model_types: &["qwen3_5_moe_text", "qwen3_5_moe"],
        gguf: &["qwen35moe"],
        reason: "its stacks of experts are not read here; Qwen3.5 without experts is",
    },
    Refused {
        classes: &["KimiLinearForCausalLM"],
        model_types: &["kimi_linear"],
        gguf: &["kimi-linear"],
        reason: "delta rules with a decay for each channel are not computed here",
    },
    Refused {
        classes: &["Lfm2MoeForCausalLM"],
        model_types: &["lfm2_moe"],
        gguf: &["lfm2moe"],
        reason: "experts after dense first layers are not read here; LFM2 without experts is",
    },
    Refused {
        classes: &["Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"],
        model_types: &["gemma3n", "gemma3n_text"],
        gguf: &["gemma3n"],
        reason: "parallel streams of activations (AltUp) are not computed here",
    },
    Refused {
        classes: &["Llama4ForCausalLM", "Llama4ForConditionalGeneration"],
        model_types: &["llama4", "llama4_text"],
        gguf: &["llama4"],
        reason: "attention in chunks is not computed here",
    },
    Refused {
        classes: &["BitNetForCausalLM", "BitnetForCausalLM"],
        model_types: &["bitnet"],
        gguf: &["bitnet", "bitnet-b1.58", "bitnet-25"],
        reason: "its quantizers, without which it is another model, are not read here",
    },
    Refused {
        classes: &["ApertusForCausalLM"],
        model_types: &["apertus"],
        gguf: &["apertus"],
        reason: "the activation xIELU is not computed here",
    },
    Refused {
        classes: &["GPT2LMHeadModel", "OPTForCausalLM", "BloomForCausalLM", "MptForCausalLM"],
        model_types: &["gpt2", "opt", "bloom", "mpt"],
        gguf: &["gpt2", "bloom", "mpt"],
        reason: "positions other than rotary ones are not computed here",
    },
    Refused {
        classes: &["MixtralForCausalLM"],
        model_types: &["mixtral"],
        gguf: &[],
        reason: "experts with Mixtral's tensors are not read here; those of Qwen3 and GPT-OSS are",
    },
    Refused {
        classes: &["BertModel", "BertForMaskedLM", "ModernBertForMaskedLM", "ModernBertModel"],
        model_types: &["bert", "modernbert"],
        gguf: &["bert", "modern-bert", "nomic-bert"],
        reason: ENCODER,
    },
    Refused {
        classes: &["Gemma3TextModel"],
        model_types: &[],
        gguf: &["gemma-embedding"],
        reason: ENCODER,
    },
    Refused {
        classes: &["T5ForConditionalGeneration", "RWKV7ForCausalLM", "Rwkv7ForCausalLM"],
        model_types: &["t5", "rwkv7"],
        gguf: &["t5", "t5encoder", "rwkv6", "rwkv7", "arwkv7"],
        reason: "it is no decoder of attention layers",
    },
];

/// Why a family of a config.json is refused, by its class or `model_type`, if it is known.
pub fn in_config(name: &str) -> Option<&'static str> {
    let is = |one: &&Refused| one.classes.contains(&name) || one.model_types.contains(&name);
    ALL.iter().find(is).map(|one| one.reason)
}

/// Why an architecture of a GGUF file is refused, if it is known.
pub fn in_gguf(name: &str) -> Option<&'static str> {
    ALL.iter().find(|one| one.gguf.contains(&name)).map(|one| one.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::family;

    #[test]
    fn no_family_is_read_and_refused() {
        for family in family::all() {
            assert_eq!(in_config(family.class()), None, "{}", family.class());
            for name in family.text_model_types().iter().chain([&family.model_type()]) {
                assert_eq!(in_config(name), None, "{name}");
            }
            let gguf = family.gguf_architecture();
            assert_eq!(gguf.and_then(in_gguf), None, "{gguf:?}");
        }
    }

    #[test]
    fn no_name_is_refused_twice() {
        let all = |of: fn(&Refused) -> &'static [&'static str]| {
            let mut names: Vec<&str> = ALL.iter().flat_map(of).copied().collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
        };
        all(|one| one.classes);
        all(|one| one.model_types);
        all(|one| one.gguf);
    }
}
