//! Numbers of a graph that would leave nothing to compute with: refused with its header, before a
//! weight is read, and again before a network is built from a model that came of no file.

use super::{Architecture, Attention, DeltaRule, Experts, Layer, Mixer};
use crate::error::{Error, Result};

/// Most numbers that the state of a layer may have. Those of published models have a hundredth; a
/// few small tensors can ask for more than any memory.
const STATE: usize = 1 << 26;

impl Architecture {
    /// Refuses numbers that would leave nothing to compute with; errors name `file` and the layer.
    pub fn check_numbers(&self, file: &str) -> Result<()> {
        for (i, layer) in self.layers.iter().enumerate() {
            let mixer = match &layer.mixer {
                Mixer::Attention(attention) => check_attention(attention, &self.layers[..i]),
                Mixer::DeltaRule(delta) => check_delta_rule(delta),
                Mixer::Convolution(convolution) if convolution.kernel == 0 => Err(NO_KERNEL.into()),
                Mixer::Convolution(_) => Ok(()),
            };
            let chosen = match layer.feed_forward.experts() {
                Some(experts) if !can_choose(experts) => {
                    Err(format!("each token uses {} of {} experts", experts.used, experts.count))
                }
                _ => Ok(()),
            };
            if let Err(reason) = mixer.and(chosen) {
                let (file, name) = (file.to_owned(), format!("layer {i}"));
                return Err(Error::Unsupported { file, name, reason, offset: None });
            }
        }
        Ok(())
    }
}

const NO_KERNEL: &str = "its convolution sees no positions: the kernel must be 1 or more";

type Checked = std::result::Result<(), String>;

/// After these layers.
fn check_attention(attention: &Attention, before: &[Layer]) -> Checked {
    let fits = |source: &Attention| {
        source.kv_from.is_none()
            && (source.kv_heads, source.head_dim) == (attention.kv_heads, attention.head_dim)
    };
    match attention.kv_from {
        Some(source) if !before.get(source).and_then(Layer::attention).is_some_and(fits) => {
            Err(format!("it reads keys and values of layer {source}, which has none that fit"))
        }
        _ if attention.window == Some(0) => Err("its window has no positions".into()),
        _ => Ok(()),
    }
}

fn check_delta_rule(delta: &DeltaRule) -> Checked {
    let DeltaRule { key_heads, value_heads, key_dim, value_dim, kernel, .. } = *delta;
    if kernel == 0 {
        return Err(NO_KERNEL.into());
    }
    if [key_heads, value_heads, key_dim, value_dim].contains(&0) {
        return Err(format!(
            "its delta rule has nothing to remember: {key_heads} key heads of {key_dim}, \
             {value_heads} value heads of {value_dim}"
        ));
    }
    if !value_heads.is_multiple_of(key_heads) {
        return Err(format!(
            "its {value_heads} value heads are no multiple of {key_heads} key heads"
        ));
    }
    let memory = value_heads.checked_mul(key_dim).and_then(|n| n.checked_mul(value_dim));
    match memory {
        Some(memory) if memory <= STATE => Ok(()),
        _ => Err(format!(
            "the state of its delta rule, {value_heads} matrices of {key_dim} by {value_dim}, has \
             more than {STATE} numbers"
        )),
    }
}

/// Whether as many experts as a token uses are left to choose from.
fn can_choose(experts: &Experts) -> bool {
    let Some([groups, kept]) = experts.routing.groups else {
        return (1..=experts.count).contains(&experts.used);
    };
    groups > 0
        && experts.count.is_multiple_of(groups)
        && kept <= groups
        && (1..=kept * (experts.count / groups)).contains(&experts.used)
}
