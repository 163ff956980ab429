//! llama3's rotary scaling. GGUF keeps it only as factors per pair (f32); a model keeps the four
//! numbers they come from.
//!
//! A file of ours carries the four numbers too, and they must give the factors bit for bit. For
//! another file they are recovered: the factor is the largest one, the turns are llama3's published
//! choice (1 and 4), and the original context is that of a blended factor, or any that fits where
//! none is blended. The factors they give must equal the file's within the error of the f32
//! arithmetic that converters use; otherwise the factors themselves are the model's.

use super::metadata::{Metadata, error_at};
use super::{Container, GgmlType, caps, keys};
use crate::architecture::RopeScaling;
use crate::blocks;
use crate::error::{Error, Result};
use halfstep_kernels::ops::rope::{Llama3Scaling, RopeTable};
use std::f64::consts::PI;

/// Converters compute wave length, blend and factor in f32; the blend's difference of close numbers
/// costs up to about 2^7 of its 2^-24.
const CONVERTER_ERROR: f32 = 2e-5;
/// Original contexts that are tried first, most usual first.
const ORIGINAL_POSITIONS: [usize; 10] =
    [8192, 4096, 2048, 16384, 32768, 1024, 65536, 131072, 512, 262144];

/// Factors that divide the inverse rotary frequencies, one for each pair.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";
/// A factor that stops a pair from turning.
pub const STOPPED: f32 = 1e30;

/// Returns the scaling that the factors of the file express; None if it has none (or only ones).
pub fn read(container: &Container, head_dim: usize, theta: f64) -> Result<Option<RopeScaling>> {
    let metadata = &container.metadata;
    let own = own_parameters(metadata)?;
    let Some(info) = container.tensors.get(ROPE_FACTORS) else {
        return match own {
            Some(_) => Err(Error::MissingTensor {
                file: metadata.file.into(),
                tensor: ROPE_FACTORS.into(),
                offset: None,
            }),
            None => Ok(None),
        };
    };
    let expected = [head_dim / 2];
    if info.dimensions() != expected {
        return Err(Error::Shape {
            file: metadata.file.into(),
            tensor: ROPE_FACTORS.into(),
            expected: expected.into(),
            got: info.shape(),
            offset: None,
        });
    }
    if info.kind != GgmlType::F32 {
        return Err(error_at(
            metadata.file,
            info.described_at,
            format!("{ROPE_FACTORS} is {}, not F32", info.kind.name()),
        ));
    }
    let mut factors = vec![0.0; head_dim / 2];
    blocks::decode(GgmlType::F32, info.bytes(), &mut factors);
    if let Some(scaling) = own {
        let same = RopeTable::new(head_dim, theta, Some(scaling))
            .factors(theta)
            .iter()
            .zip(&factors)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        return if same {
            Ok(Some(RopeScaling::Llama3(scaling)))
        } else {
            Err(metadata.error(
                keys::OWN_ROPE_FACTOR,
                format!("and its companions do not give the factors of {ROPE_FACTORS}"),
            ))
        };
    }
    if factors.iter().all(|&f| f == 1.0) {
        return Ok(None);
    }
    if let Some(bad) = factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
        return Err(error_at(
            metadata.file,
            info.described_at,
            format!("{ROPE_FACTORS} holds {bad}, which is no factor"),
        ));
    }
    let turning = factors.iter().take_while(|&&f| f == 1.0).count();
    if factors[turning..].iter().all(|&f| f == STOPPED) {
        let share = turning as f64 / factors.len() as f64;
        return Ok(Some(RopeScaling::Proportional { share, factor: 1.0 }));
    }
    let llama3 = recover(&factors, head_dim, theta).map(RopeScaling::Llama3);
    Ok(Some(llama3.unwrap_or_else(|| RopeScaling::Factors(factors.into()))))
}

/// The four numbers under our own keys: all or none.
fn own_parameters(metadata: &Metadata) -> Result<Option<Llama3Scaling>> {
    let Some(factor) = metadata.float(keys::OWN_ROPE_FACTOR)? else { return Ok(None) };
    let float = |key| metadata.float(key).and_then(|v| metadata.required(key, v));
    let (low_freq_factor, high_freq_factor) =
        (float(keys::OWN_ROPE_LOW)?, float(keys::OWN_ROPE_HIGH)?);
    let original = metadata.integer(keys::OWN_ROPE_ORIGINAL, 1..=caps::POSITIONS)?;
    let original_max_position = metadata.required(keys::OWN_ROPE_ORIGINAL, original)? as usize;
    let sound = factor.is_finite()
        && factor >= 1.0
        && low_freq_factor > 0.0
        && high_freq_factor > low_freq_factor
        && high_freq_factor.is_finite();
    if !sound {
        return Err(
            metadata.error(keys::OWN_ROPE_FACTOR, "and its companions are no llama3 scaling")
        );
    }
    Ok(Some(Llama3Scaling { factor, low_freq_factor, high_freq_factor, original_max_position }))
}

fn recover(factors: &[f32], head_dim: usize, theta: f64) -> Option<Llama3Scaling> {
    let factor = factors.iter().copied().fold(0.0, f32::max);
    if !factor.is_finite() || factor <= 1.0 {
        return None;
    }
    let stored = originals(factors, head_dim, theta, factor);
    ORIGINAL_POSITIONS.into_iter().chain(stored).find_map(|original_max_position| {
        let scaling = Llama3Scaling {
            factor: factor.into(),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position,
        };
        let ours = RopeTable::new(head_dim, theta, Some(scaling)).factors(theta);
        let close = ours.iter().zip(factors).all(|(a, b)| (a - b).abs() <= CONVERTER_ERROR * a);
        close.then_some(scaling)
    })
}

/// Original contexts that can be computed from the factors.
fn originals(factors: &[f32], head_dim: usize, theta: f64, factor: f32) -> Vec<usize> {
    let wave = |i: usize| 2.0 * PI * theta.powf(2.0 * i as f64 / head_dim as f64);
    let (mut out, factor) = (vec![], f64::from(factor));
    for (i, f) in factors.iter().map(|&f| f64::from(f)).enumerate() {
        if 1.0 < f && f < factor {
            // Between a quarter of the original context and all of it: 1 / f lies between
            // 1 / factor and 1 as original / wave does between 1 and 4.
            let smooth = (1.0 / f - 1.0 / factor) / (1.0 - 1.0 / factor);
            out.push((wave(i) * (1.0 + 3.0 * smooth)).round());
        } else if f == factor {
            // Where no wave is blended, every context that is no longer than the first stretched
            // wave and four times as long as the last unstretched one is the same: a power of two,
            // if there is one.
            out.extend([wave(i).log2().floor().exp2(), wave(i).floor()]);
            break;
        }
    }
    let possible = |original: &f64| (1.0..=caps::POSITIONS as f64).contains(original);
    out.into_iter().filter(possible).map(|original| original as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors as converters compute them, in f32 throughout.
    fn converter_factors(head_dim: usize, theta: f32, factor: f32, original: f32) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|i| {
                let frequency = 1.0 / theta.powf(2.0 * i as f32 / head_dim as f32);
                let wave = 2.0 * std::f32::consts::PI / frequency;
                if wave < original / 4.0 {
                    1.0
                } else if wave > original / 1.0 {
                    factor
                } else {
                    let smooth = (original / wave - 1.0) / (4.0 - 1.0);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                }
            })
            .collect()
    }

    #[test]
    fn published_scalings_are_recovered_exactly() {
        for (head_dim, theta, factor, original) in [
            (16, 5e5, 8.0, 32),
            (64, 1e4, 8.0, 1000),
            (64, 5e5, 32.0, 8192),
            (128, 5e5, 8.0, 8192),
            (128, 1e6, 16.0, 4096),
            (64, 1e5, 4.0, 2048),
        ] {
            let factors = converter_factors(head_dim, theta as f32, factor, original as f32);
            let got = recover(&factors, head_dim, theta).expect("recovered");
            let want = Llama3Scaling {
                factor: factor.into(),
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position: original,
            };
            assert_eq!(got, want);
        }
    }

    #[test]
    fn other_factors_are_not_taken_for_llama3() {
        let mut factors = converter_factors(64, 5e5, 32.0, 8192.0);
        factors[3] = 1.5;
        assert_eq!(recover(&factors, 64, 5e5), None);
        assert_eq!(recover(&[f32::NAN; 32], 64, 5e5), None);
        assert_eq!(recover(&[f32::INFINITY; 32], 64, 5e5), None);
    }
}
