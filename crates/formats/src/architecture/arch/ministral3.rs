//! Ministral 3 and the text part of Mistral Small 3.1 and later: YaRN, and queries that grow with
//! their position.

use crate::architecture::fields::{Fields, TEMPER};
use crate::architecture::{Architecture, Family, RopeScaling, Temper};
use crate::error::Result;

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
        let first = graph.layers.first().map(|layer| layer.attention.clone());
        let mut beta = first.as_ref().and_then(|a| a.temper).map(|temper| temper.beta);
        io.number(&TEMPER, &mut beta)?;
        let Some(beta) = beta.filter(|&beta| beta != 0.0) else { return Ok(()) };
        let scaling = first.and_then(|a| a.rope?.scaling);
        let Some(RopeScaling::Yarn(yarn)) = scaling else {
            return Err(io.refuse(&TEMPER, "needs a rope of type yarn".into()));
        };
        let temper = Some(Temper { beta, length: yarn.original });
        graph.layers.iter_mut().for_each(|layer| layer.attention.temper = temper);
        Ok(())
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("max_position_embeddings", 262_144.0), ("num_key_value_heads", 8.0)]
    }

    fn interleaves_rows(&self) -> bool {
        true
    }
}
