//! Online block Hadamard (QuaRot, 2024, arXiv 2404.00456; QuIP#, arXiv 2402.04396): `W' = W R^T`, `x' =
//! R x`, R = (Id (x) H_n / sqrt n) diag(signs) orthogonal. The weight is quantized and trained in the
//! rotated channels; nothing turns it back.

use super::{Config, InputMap, Transform, TransformTraits};
use crate::Result;
use crate::autograd::parameter::Parameters;
use crate::device::Device;
use crate::quantizer::builder::Builder;
use halfstep_formats::LinearParts;
use halfstep_formats::architecture::{ActivationSite, Role, TensorSpec};
use halfstep_formats::linear_parts::{OnlineMap, Signs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use ts_rs::TS;

pub(super) const TRAITS: TransformTraits = TransformTraits { learns: false };

/// Blocks of input channels that a Hadamard matrix mixes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct BlockHadamardConfig {
    /// Channels of a block: a power of two that divides the columns of the weight.
    pub size: usize,
    /// Seed of the random signs. Linears that read the same input have the same signs.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub seed: u64,
}

impl Config for BlockHadamardConfig {
    fn check(&self, cols: usize) -> std::result::Result<(), (&'static str, String)> {
        if self.size.is_power_of_two() && cols.is_multiple_of(self.size) {
            return Ok(());
        }
        let most = 1usize << cols.trailing_zeros();
        let reason = format!(
            "must be a power of two that divides the {cols} columns: at most {most}, got {}",
            self.size
        );
        Err(("size", reason))
    }

    fn first(&self, spec: &TensorSpec) -> LinearParts {
        let (layer, usual) = (spec.layer.unwrap_or(0) as u64, ActivationSite::USUAL.len() as u64);
        let site = match spec.role {
            Role::Linear(linear) => linear.input().number(),
            _ => 0,
        };
        // Sites that few layers have come after those of all layers.
        let stream =
            if site < usual { layer * usual + site } else { (1 << 40) + (layer << 20) + site };
        let signs = Some(Signs { seed: self.seed, stream });
        LinearParts {
            online_map: Some(OnlineMap::BlockHadamard { size: self.size, signs }),
            ..LinearParts::default()
        }
    }

    fn register<D: Device>(
        &self,
        _builder: &mut Builder<D>,
        spec: &TensorSpec,
        parts: LinearParts,
    ) -> Result<Arc<dyn Transform<D>>> {
        Ok(Arc::new(BlockHadamard { parts, cols: spec.shape[1] }))
    }
}

/// The map of one linear.
#[derive(Debug)]
struct BlockHadamard {
    parts: LinearParts,
    cols: usize,
}

impl<D: Device> Transform<D> for BlockHadamard {
    fn input(&self, parameters: &Parameters<D>) -> Result<InputMap<D>> {
        InputMap::stored(&parameters.device, &self.parts, self.cols)
    }

    fn pack(&self, _parameters: &Parameters<D>) -> Result<LinearParts> {
        Ok(self.parts.clone())
    }
}
