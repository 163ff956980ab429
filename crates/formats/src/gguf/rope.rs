//! Rotary positions in GGUF: a base, the elements that turn, and a scaling by metadata or by
//! tensors of factors.

use super::entries::Entries;
use super::fields::Keys;
use super::rope_factors::{self, ROPE_FACTORS, STOPPED};
use super::{Container, GgmlType, caps, keys};
use crate::architecture::readers::RopeFactors;
use crate::architecture::{
    Architecture, Family, LongScaling, Rope, RopeScaling, YarnScaling, family,
};
use crate::blocks;
use crate::config;
use crate::error::{Error, Result};
use halfstep_kernels::ops::rope::RopeTable;
use std::sync::Arc;

const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";
/// Tensors of factors that a file may have.
pub const TENSORS: [&str; 3] = [ROPE_FACTORS, LONG, SHORT];
/// llama.cpp's default where a file gives no base.
const DEFAULT_BASE: f64 = 10_000.0;
/// YaRN's usual bounds in turns.
const BETA_FAST: f64 = 32.0;
const BETA_SLOW: f64 = 1.0;

/// The rotation of all layers, or of those without a sliding window.
pub fn read(
    container: &Container,
    keys: &Keys,
    family: &dyn Family,
    head_dim: usize,
) -> Result<Rope> {
    let theta = keys.positive(keys::ROPE_BASE, keys::OWN_ROPE_BASE)?.unwrap_or(DEFAULT_BASE);
    let turned = keys.size(keys::ROPE_DIMENSIONS, caps::WIDTH)?.unwrap_or(head_dim);
    if turned > head_dim || !turned.is_multiple_of(2) {
        let reason = format!("is {turned}, which are no pairs of heads of {head_dim} elements");
        return Err(keys.error(keys::ROPE_DIMENSIONS, reason));
    }
    let by_tensors = match long(container, keys, turned)? {
        Some(long) => Some(RopeScaling::Long(Arc::new(long))),
        None => rope_factors::read(container, turned, theta)?,
    };
    let scaling = match (by_tensors, by_metadata(keys, family)?) {
        (Some(_), Some(_)) => {
            return Err(keys.unsupported(
                "rope scaling".into(),
                "the metadata has one, and a tensor of factors is another; one of them is computed",
            ));
        }
        (by_tensors, by_metadata) => by_tensors.or(by_metadata),
    };
    let standard = Rope { scaling, ..Rope::plain(theta, turned) };
    let Some(own) = keys.metadata.string(keys::OWN_ROPE)? else { return Ok(standard) };
    let own = config::rope_from_json(keys.metadata.file, own, head_dim)?;
    if rounded(&own) == rounded(&standard) {
        return Ok(own);
    }
    let reason = "is not the rotation that the standard keys of the file describe";
    Err(keys.metadata.error(keys::OWN_ROPE, reason))
}

/// Linear scaling or YaRN.
fn by_metadata(keys: &Keys, family: &dyn Family) -> Result<Option<RopeScaling>> {
    // llama.cpp takes a factor without a type for a linear one.
    let kind = keys.metadata.string(&keys.of(keys::ROPE_SCALING_TYPE))?.unwrap_or("linear");
    let mut factor = 0.0;
    for key in [keys::ROPE_SCALING_FACTOR, keys::ROPE_SCALE_LINEAR] {
        if let Some(found) = keys.number(key)? {
            factor = found;
        }
    }
    let scaled = factor != 0.0 && factor != 1.0;
    if !factor.is_finite() || factor < 0.0 {
        let reason = format!("is {factor}, which is no factor");
        return Err(keys.error(keys::ROPE_SCALING_FACTOR, reason));
    }
    match kind {
        "none" => Ok(None),
        "linear" => Ok(scaled.then_some(RopeScaling::Linear { factor })),
        "yarn" => yarn(keys, family, factor).map(|yarn| Some(RopeScaling::Yarn(yarn))),
        // Without its tensors it changes nothing.
        "longrope" => Ok(None),
        other => Err(keys.unsupported(
            format!("rope scaling {other:?}"),
            "none, linear, yarn, longrope and llama3 scaling (rope_freqs.weight) are read",
        )),
    }
}

fn yarn(keys: &Keys, family: &dyn Family, factor: f64) -> Result<YarnScaling> {
    if factor <= 0.0 {
        let reason = "is missing, and the scaling is yarn".into();
        return Err(keys.error(keys::ROPE_SCALING_FACTOR, reason));
    }
    let number = |key: &str, usual: f64| {
        let own = format!("{}{key}", keys::OWN_FIELD);
        Ok(keys.positive(key, &own)?.unwrap_or(usual))
    };
    // Where the family's readers do not know a key, it is not heeded.
    let [beta_fast, beta_slow, multiplier] = match family.has_yarn_keys() {
        true => [
            number(keys::YARN_FAST, BETA_FAST)?,
            number(keys::YARN_SLOW, BETA_SLOW)?,
            keys.number(keys::YARN_LOG_MULTIPLIER)?.unwrap_or(0.0),
        ],
        false => [BETA_FAST, BETA_SLOW, 0.0],
    };
    let m = |k: f64| YarnScaling::magnitude(factor, k);
    let usual = if multiplier == 0.0 { m(1.0) } else { m(1.0) / m(multiplier) };
    Ok(YarnScaling {
        factor,
        original: original(keys)?,
        beta_fast,
        beta_slow,
        truncate: family.truncates_yarn(),
        magnitude: usual * number(keys::ROPE_MAGNITUDE, 1.0)?,
    })
}

/// The context length of the training.
fn original(keys: &Keys) -> Result<usize> {
    match keys.size(keys::ROPE_ORIGINAL, caps::POSITIONS)? {
        Some(original) => Ok(original),
        None => keys.required(keys::CONTEXT_LENGTH, caps::POSITIONS),
    }
}

fn long(container: &Container, keys: &Keys, turned: usize) -> Result<Option<LongScaling>> {
    let Some(long) = factors(container, LONG, turned / 2)? else { return Ok(None) };
    let missing = || Error::MissingTensor {
        file: keys.metadata.file.into(),
        tensor: SHORT.into(),
        offset: None,
    };
    let short = factors(container, SHORT, turned / 2)?.ok_or_else(missing)?;
    Ok(Some(LongScaling {
        short,
        long,
        original: original(keys)?,
        magnitude: keys.number(keys::ROPE_MAGNITUDE)?.unwrap_or(1.0),
    }))
}

/// The positive numbers of a tensor of factors, if there is one.
fn factors(container: &Container, name: &str, pairs: usize) -> Result<Option<Vec<f64>>> {
    let file = container.metadata.file;
    let Some(info) = container.tensors.get(name) else { return Ok(None) };
    if info.dimensions() != [pairs] {
        return Err(Error::Shape {
            file: file.into(),
            tensor: name.into(),
            expected: vec![pairs],
            got: info.shape(),
            offset: None,
        });
    }
    let wrong = |reason: String| super::metadata::error_at(file, info.described_at, reason);
    if info.kind != GgmlType::F32 {
        return Err(wrong(format!("{name} is {}, not F32", info.kind.name())));
    }
    let mut values = vec![0.0; pairs];
    blocks::decode(GgmlType::F32, info.bytes(), &mut values);
    match values.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        Some(bad) => Err(wrong(format!("{name} holds {bad}, which is no factor"))),
        None => Ok(Some(values.into_iter().map(f64::from).collect())),
    }
}

/// The tensors of factors of a model's rotation.
pub fn tensors_of(graph: &Architecture) -> Vec<(&'static str, Vec<f32>)> {
    let layers = || graph.attentions();
    let factors = layers().filter_map(|attention| attention.rope.as_ref()).map(tensors);
    let needed = family::of(graph).gguf_readers().factors == RopeFactors::Always;
    let ones = || {
        let full = layers().filter(|attention| needed && attention.window.is_none());
        let rope = full.filter_map(|attention| attention.rope.as_ref()).next();
        rope.map(|rope| vec![(ROPE_FACTORS, vec![1.0; rope.turned / 2])])
    };
    factors.into_iter().find(|factors| !factors.is_empty()).or_else(ones).unwrap_or_default()
}

/// The tensors of factors of a rotation.
fn tensors(rope: &Rope) -> Vec<(&'static str, Vec<f32>)> {
    let single = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
    match &rope.scaling {
        Some(RopeScaling::Llama3(scaling)) => {
            let table = RopeTable::new(rope.turned, rope.theta, Some(*scaling));
            vec![(ROPE_FACTORS, table.factors(rope.theta))]
        }
        Some(RopeScaling::Factors(factors)) => vec![(ROPE_FACTORS, factors.to_vec())],
        Some(RopeScaling::Proportional { share, .. }) => {
            let turning = turning(*share, rope.turned);
            let factor = |pair| if pair < turning { 1.0 } else { STOPPED };
            vec![(ROPE_FACTORS, (0..rope.turned / 2).map(factor).collect())]
        }
        Some(RopeScaling::Long(scaling)) => {
            vec![(LONG, single(&scaling.long)), (SHORT, single(&scaling.short))]
        }
        _ => vec![],
    }
}

/// Pairs that turn where a share of them does.
fn turning(share: f64, turned: usize) -> usize {
    (share * (turned / 2) as f64) as usize
}

/// The metadata of the rotation of heads of `head_dim` elements, base and elements that turn
/// included.
///
/// Errors: `Unsupported`, a scaling that GGUF has no words for.
pub fn write(
    rope: &Rope,
    head_dim: usize,
    family: &dyn Family,
    name: &str,
    entries: &mut Entries,
) -> Result<()> {
    let key = |key: &str| keys::of(name, key);
    entries.u32(&key(keys::ROPE_DIMENSIONS), rope.turned)?;
    entries.f32(&key(keys::ROPE_BASE), keys::OWN_ROPE_BASE, rope.theta);
    let string = |entries: &mut Entries, value: &str| {
        entries.string(&key(keys::ROPE_SCALING_TYPE), value, caps::STRING_BYTES)
    };
    let single = |entries: &mut Entries, k: &str, value: f64| {
        entries.f32(&key(k), &format!("{}{k}", keys::OWN_FIELD), value);
    };
    match &rope.scaling {
        None | Some(RopeScaling::Factors(_)) => return Ok(()),
        Some(RopeScaling::Llama3(scaling)) => {
            entries.f64(keys::OWN_ROPE_FACTOR, scaling.factor);
            entries.f64(keys::OWN_ROPE_LOW, scaling.low_freq_factor);
            entries.f64(keys::OWN_ROPE_HIGH, scaling.high_freq_factor);
            return entries.u32(keys::OWN_ROPE_ORIGINAL, scaling.original_max_position);
        }
        Some(RopeScaling::Proportional { share, factor }) if *factor == 1.0 => {
            let pairs = rope.turned / 2;
            if turning(*share, rope.turned) as f64 / pairs as f64 == *share {
                return Ok(());
            }
        }
        Some(RopeScaling::Linear { factor }) => {
            string(entries, "linear")?;
            single(entries, keys::ROPE_SCALING_FACTOR, *factor);
        }
        Some(RopeScaling::Yarn(yarn)) => {
            check_yarn(yarn, family)?;
            string(entries, "yarn")?;
            single(entries, keys::ROPE_SCALING_FACTOR, yarn.factor);
            entries.u32(&key(keys::ROPE_ORIGINAL), yarn.original)?;
            single(entries, keys::YARN_FAST, yarn.beta_fast);
            single(entries, keys::YARN_SLOW, yarn.beta_slow);
            let usual = YarnScaling::usual_magnitude(yarn.factor);
            if yarn.magnitude == 1.0 && family.has_yarn_keys() {
                single(entries, keys::YARN_LOG_MULTIPLIER, 1.0);
            } else if yarn.magnitude != usual {
                single(entries, keys::ROPE_MAGNITUDE, yarn.magnitude / usual);
            }
        }
        Some(RopeScaling::Long(long)) => {
            string(entries, "longrope")?;
            entries.u32(&key(keys::ROPE_ORIGINAL), long.original)?;
            single(entries, keys::ROPE_MAGNITUDE, long.magnitude);
        }
        Some(RopeScaling::Dynamic { .. } | RopeScaling::Proportional { .. }) => {
            return Err(Error::Unsupported {
                file: super::FORMAT.into(),
                name: "rope_scaling".into(),
                reason: "GGUF has no words for it; the halfstep format and Hugging Face folders do"
                    .into(),
                offset: None,
            });
        }
    }
    let exact = config::rope_to_json(rope, head_dim);
    entries.string(keys::OWN_ROPE, &exact, caps::STRING_BYTES)
}

/// Refuses numbers of YaRN that readers of the family's files would not take.
fn check_yarn(yarn: &YarnScaling, family: &dyn Family) -> Result<()> {
    let refuse = |name: &str, reason: String| {
        Err(Error::Unsupported {
            file: super::FORMAT.into(),
            name: name.into(),
            reason,
            offset: None,
        })
    };
    let betas = (yarn.beta_fast, yarn.beta_slow);
    if !family.has_yarn_keys() && betas != (BETA_FAST, BETA_SLOW) {
        let reason = format!(
            "{} and {}: readers of GGUF files of {} take {BETA_FAST} and {BETA_SLOW}",
            betas.0,
            betas.1,
            family.name()
        );
        return refuse("beta_fast and beta_slow", reason);
    }
    if yarn.truncate != family.truncates_yarn() {
        let reason = format!(
            "it is {}, and GGUF files of {} have no key for it and mean {}",
            yarn.truncate,
            family.name(),
            family.truncates_yarn()
        );
        return refuse("truncate", reason);
    }
    Ok(())
}

/// The rotation with the numbers that f32 holds, as a file has them under the standard keys.
fn rounded(rope: &Rope) -> Rope {
    let single = |x: f64| f64::from(x as f32);
    let all = |values: &[f64]| values.iter().map(|&value| single(value)).collect();
    let scaling = rope.scaling.clone().map(|scaling| match scaling {
        RopeScaling::Linear { factor } => RopeScaling::Linear { factor: single(factor) },
        RopeScaling::Yarn(yarn) => RopeScaling::Yarn(YarnScaling {
            factor: single(yarn.factor),
            beta_fast: single(yarn.beta_fast),
            beta_slow: single(yarn.beta_slow),
            // It comes of the rounded factor.
            magnitude: (yarn.magnitude * 1e5).round(),
            ..yarn
        }),
        RopeScaling::Long(long) => RopeScaling::Long(Arc::new(LongScaling {
            short: all(&long.short),
            long: all(&long.long),
            original: long.original,
            magnitude: single(long.magnitude),
        })),
        RopeScaling::Proportional { share, factor } => {
            let pairs = (rope.turned / 2) as f64;
            let share = turning(share, rope.turned) as f64 / pairs;
            RopeScaling::Proportional { share, factor }
        }
        other => other,
    });
    Rope { theta: single(rope.theta), scaling, ..rope.clone() }
}
