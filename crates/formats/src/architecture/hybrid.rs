//! What families have in common of which some layers have a delta rule instead of attention.

use super::family::Family;
use super::fields::{self, Fields, Form, Key};
use super::graph::{Architecture, Dense, FeedForward, Layer};
use super::mixer::{DeltaRule, Mixer, QkNorm};
use crate::config::{MAX_HIDDEN, MAX_INTERMEDIATE};
use crate::error::Result;

/// What configs call the layers with a delta rule.
const LINEAR: &str = "linear_attention";
/// Every so many-th layer has attention, where no list names the layers.
const INTERVAL: Key =
    Key { config: &["full_attention_interval"], gguf: Some("full_attention_interval") };
/// Which layers have a delta rule, in GGUF.
const RECURRENT: Key = Key { config: &[], gguf: Some("attention.recurrent_layers") };
/// The key of configs that lists the kinds of layers, for errors.
const LAYER_TYPES: Key = Key { config: &["layer_types"], gguf: Some("attention.recurrent_layers") };
/// Whether what attention gives is gated. It always is.
const OUTPUT_GATE: Key = Key { config: &["attn_output_gate"], gguf: None };

const KERNEL: Key = Key { config: &["linear_conv_kernel_dim"], gguf: Some("ssm.conv_kernel") };
const KEY_DIM: Key = Key { config: &["linear_key_head_dim"], gguf: Some("ssm.state_size") };
const KEY_HEADS: Key = Key { config: &["linear_num_key_heads"], gguf: Some("ssm.group_count") };
const VALUE_HEADS: Key =
    Key { config: &["linear_num_value_heads"], gguf: Some("ssm.time_step_rank") };
const VALUE_DIM: Key = Key { config: &["linear_value_head_dim"], gguf: None };
/// Width of all value heads.
const VALUE_WIDTH: Key = Key { config: &[], gguf: Some("ssm.inner_size") };

/// The interval of layers with attention where no file says otherwise.
const USUAL_INTERVAL: usize = 4;
/// Most positions that a convolution may see.
pub(super) const MAX_KERNEL: usize = 256;

/// What absent keys of a config.json mean.
const DEFAULTS: [(&str, f64); 5] = [
    ("linear_conv_kernel_dim", 4.0),
    ("linear_key_head_dim", 128.0),
    ("linear_value_head_dim", 128.0),
    ("linear_num_key_heads", 16.0),
    ("linear_num_value_heads", 32.0),
];

/// Three layers with a delta rule, then one with attention, gated and with norms of heads; or as a
/// file says.
pub(super) fn describe(
    family: &dyn Family,
    io: &mut dyn Fields,
    graph: &mut Architecture,
) -> Result<()> {
    fields::each_attention(graph, |a| {
        a.qk_norm = Some(QkNorm::Head);
        a.gate = true;
    });
    if io.reads() {
        let mut gated = true;
        fields::flag(io, &OUTPUT_GATE, &mut gated)?;
        if !gated {
            let reason = "it is false, and attention without a gate is not computed here";
            return Err(io.refuse(&OUTPUT_GATE, reason.into()));
        }
    }
    let linear = linear_layers(io, graph)?;
    if !linear.contains(&true) {
        return Ok(());
    }
    let delta = delta_rule(family, io, graph)?;
    if io.reads() {
        for (layer, _) in graph.layers.iter_mut().zip(linear).filter(|(_, linear)| *linear) {
            layer.mixer = Mixer::DeltaRule(delta);
        }
    }
    Ok(())
}

/// The size of the expert that all tokens use.
pub(super) fn shared_expert(
    io: &mut dyn Fields,
    graph: &mut Architecture,
    key: &Key,
) -> Result<()> {
    let first = graph.layers.iter_mut().find_map(shared);
    let mut size = first.map_or(0, |shared| shared.intermediate_size);
    if io.form() == Form::Gguf && io.reads() {
        size = 0;
    }
    fields::size(io, key, &mut size)?;
    if size > MAX_INTERMEDIATE {
        return Err(io.refuse(key, format!("it is {size}, more than {MAX_INTERMEDIATE}")));
    }
    let all = graph.layers.iter_mut().filter_map(shared);
    all.for_each(|shared| shared.intermediate_size = size);
    Ok(())
}

fn shared(layer: &mut Layer) -> Option<&mut Dense> {
    match &mut layer.feed_forward {
        FeedForward::Experts(experts) => experts.shared.as_mut(),
        FeedForward::Dense(_) => None,
    }
}

/// Which layers have a delta rule.
fn linear_layers(io: &mut dyn Fields, graph: &Architecture) -> Result<Vec<bool>> {
    let layers = graph.layers.len();
    let all_but = |every: usize| -> Vec<bool> {
        (1..=layers).map(|layer| !layer.is_multiple_of(every)).collect()
    };
    let in_graph = || graph.layers.iter().map(|layer| layer.attention().is_none()).collect();
    let mut linear: Option<Vec<bool>> = (!io.reads()).then(in_graph);
    io.other_mixers(LINEAR, &mut linear)?;
    io.flags(&RECURRENT, &mut linear)?;
    let mut interval = Some(USUAL_INTERVAL);
    if !io.reads() {
        let regular = |every: &usize| linear.as_ref() == Some(&all_but(*every));
        interval = (1..=layers).find(regular);
    }
    if io.reads() || io.form() == Form::Gguf {
        io.size(&INTERVAL, &mut interval)?;
    }
    let linear = linear.unwrap_or_else(|| all_but(interval.unwrap_or(USUAL_INTERVAL)));
    match linear.contains(&false) {
        true => Ok(linear),
        false => Err(io.refuse(&LAYER_TYPES, "no layer has attention, and one must".into())),
    }
}

/// The delta rule of all layers that have one.
fn delta_rule(family: &dyn Family, io: &mut dyn Fields, graph: &Architecture) -> Result<DeltaRule> {
    let form = io.form();
    let default = |key: &Key| {
        let found = DEFAULTS.iter().find(|(name, _)| key.config.contains(name));
        // A GGUF file without a size is broken.
        found.filter(|_| form == Form::HuggingFace).map_or(0, |(_, size)| *size as usize)
    };
    let usual = DeltaRule {
        key_heads: default(&KEY_HEADS),
        value_heads: default(&VALUE_HEADS),
        key_dim: default(&KEY_DIM),
        value_dim: default(&VALUE_DIM),
        kernel: default(&KERNEL),
        order: family.head_order(form),
        decay: form.decay(),
    };
    let mut delta = graph.delta_rules().next().copied().unwrap_or(usual);
    fields::size(io, &KERNEL, &mut delta.kernel)?;
    fields::size(io, &KEY_DIM, &mut delta.key_dim)?;
    fields::size(io, &KEY_HEADS, &mut delta.key_heads)?;
    fields::size(io, &VALUE_HEADS, &mut delta.value_heads)?;
    if !delta.value_heads.is_multiple_of(delta.key_heads) {
        let reason = format!(
            "it is {}, which is no multiple of the {} key heads",
            delta.value_heads, delta.key_heads
        );
        return Err(io.refuse(&VALUE_HEADS, reason));
    }
    if delta.kernel > MAX_KERNEL {
        return Err(io.refuse(&KERNEL, format!("it is {}, more than {MAX_KERNEL}", delta.kernel)));
    }
    match form {
        Form::HuggingFace => fields::size(io, &VALUE_DIM, &mut delta.value_dim)?,
        Form::Gguf => value_width(io, &mut delta)?,
    }
    for (heads, width, key) in [
        (delta.key_heads, delta.key_dim, &KEY_HEADS),
        (delta.value_heads, delta.value_dim, &VALUE_HEADS),
    ] {
        if heads.checked_mul(width).is_none_or(|all| all > MAX_HIDDEN) {
            let reason = format!("{heads} heads of {width} are wider than {MAX_HIDDEN}");
            return Err(io.refuse(key, reason));
        }
    }
    Ok(delta)
}

/// The width of value heads in GGUF, which has that of all of them; its readers take heads of keys
/// and values for equally wide.
fn value_width(io: &mut dyn Fields, delta: &mut DeltaRule) -> Result<()> {
    let mut all = delta.value_heads.saturating_mul(delta.value_dim);
    fields::size(io, &VALUE_WIDTH, &mut all)?;
    if !all.is_multiple_of(delta.value_heads) {
        let reason = format!("it is {all}, no multiple of the {} value heads", delta.value_heads);
        return Err(io.refuse(&VALUE_WIDTH, reason));
    }
    delta.value_dim = all / delta.value_heads;
    if delta.value_dim != delta.key_dim && !io.reads() {
        let reason = format!(
            "it is {}, and readers of GGUF files take that of keys, {}; the halfstep format and \
             Hugging Face folders hold it",
            delta.value_dim, delta.key_dim
        );
        return Err(io.refuse(&VALUE_DIM, reason));
    }
    Ok(())
}
