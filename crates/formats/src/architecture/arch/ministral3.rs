//! Ministral 3 and the text part of Mistral Small 3.1 and later: YaRN, and queries that grow with
//! their position.

use crate::architecture::fields::{Fields, TEMPER};
use crate::architecture::{Architecture, Family, RopeScaling, Temper};
use crate::error::Result;
use serde_json::{Value, json};

pub struct Ministral3;

impl Family for Ministral3 {
    fn name(&self) -> &'static str {
        "mistral3"
    }

    fn class(&self) -> &'static str {
        "Ministral3ForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "ministral3"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let first = graph.attentions().next().cloned();
        let mut beta = first.as_ref().and_then(|a| a.temper).map(|temper| temper.beta);
        io.number(&TEMPER, &mut beta)?;
        let Some(beta) = beta.filter(|&beta| beta != 0.0) else { return Ok(()) };
        let scaling = first.and_then(|a| a.rope?.scaling);
        let Some(RopeScaling::Yarn(yarn)) = scaling else {
            return Err(io.refuse(&TEMPER, "needs a rope of type yarn".into()));
        };
        let temper = Some(Temper { beta, length: yarn.original });
        graph.attentions_mut().for_each(|a| a.temper = temper);
        Ok(())
    }

    fn rope_parameters(&self) -> Value {
        json!({
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 16.0,
            "original_max_position_embeddings": 16_384,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale_all_dim": 1.0,
            "mscale": 1.0,
            "llama_4_scaling_beta": 0.1,
        })
    }

    fn has_yarn_keys(&self) -> bool {
        true
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("max_position_embeddings", 262_144.0),
            ("num_key_value_heads", 8.0),
            ("head_dim", 128.0),
            ("rms_norm_eps", 1e-5),
        ]
    }

    fn interleaves_rows(&self) -> bool {
        true
    }
}
