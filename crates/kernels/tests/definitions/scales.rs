//! Codecs of scales: what is stored comes back from its bytes, and is near to what was asked.

use halfstep_kernels::ScaleCodec;
use halfstep_kernels::quant::scale::nested::{InnerScale, Nested, OuterScale};
use halfstep_kernels::rng::Rng;
use proptest::prelude::*;

fn codecs() -> impl Strategy<Value = ScaleCodec> {
    let inner =
        prop_oneof![Just(InnerScale::Uint4), Just(InnerScale::Uint6), Just(InnerScale::E4M3)];
    let outer = prop_oneof![Just(OuterScale::F32), Just(OuterScale::F16)];
    let nested = (inner, outer, prop::option::of(1usize..9))
        .prop_map(|(inner, outer, scales)| ScaleCodec::Nested(Nested { inner, outer, scales }));
    prop_oneof![prop::sample::select(ScaleCodec::ALL), nested]
}

proptest! {
    #[test]
    fn stored_scales_come_back_from_their_bytes(
        codec in codecs(),
        rows in 1usize..4,
        per_row in 1usize..20,
        power in -14i32..4,
        seed in any::<u64>(),
    ) {
        let mut rng = Rng::new(seed, 0);
        let mut scale = || (rng.next_f64() as f32 - 0.3) * 2f32.powi(power);
        let mut scales: Vec<f32> = (0..rows * per_row).map(|_| scale()).collect();
        scales[0] = 0.0;
        let before = scales.clone();
        let outer = codec.store_all(&mut scales, per_row);
        let count = codec.outer(scales.len(), per_row).map_or(0, |(_, count)| count);
        prop_assert_eq!(outer.len(), count);
        let bytes = codec.encode(&scales, &outer, per_row).expect("as stored");
        prop_assert_eq!(bytes.len(), scales.len() * codec.bytes());
        prop_assert_eq!(&codec.decode(&bytes, &outer, per_row), &scales);
        if codec.has_zero() {
            prop_assert_eq!(scales[0], 0.0);
        }
        let largest = before.iter().fold(0.0f32, |most, s| most.max(s.abs()));
        let of_outer = outer.iter().fold(0.0f32, |most, s| most.max(s / 2.0));
        for (stored, scale) in scales.iter().zip(before) {
            // A power of two is rounded up to twice the scale at most; a nested one is off by
            // half a step of the largest of its run.
            let off = (stored.abs() - scale.abs()).abs();
            let allowed = if codec == ScaleCodec::E8M0 { scale.abs() } else { largest / 16.0 };
            prop_assert!(
                off <= allowed.max(codec.smallest()).max(of_outer) * 1.01,
                "{stored} {scale}"
            );
        }
    }

    #[test]
    fn storing_a_single_scale_twice_changes_nothing(
        codec in prop::sample::select(ScaleCodec::ALL),
        bits in any::<u32>(),
    ) {
        let stored = codec.store(f32::from_bits(bits));
        prop_assert!(codec.store(stored).to_bits() == stored.to_bits() || stored.is_nan());
    }
}

#[test]
fn every_byte_of_a_small_scale_is_one_that_is_stored() {
    for codec in [ScaleCodec::E8M0, ScaleCodec::E4M3] {
        for byte in 0..=u8::MAX {
            let scale = codec.decode(&[byte], &[], 1)[0];
            // -0 of E4M3 and NaN are no scales that are made.
            if scale.is_nan() || (scale == 0.0 && scale.is_sign_negative()) {
                continue;
            }
            assert_eq!(codec.encode(&[scale], &[], 1), Ok(vec![byte]), "{codec:?} {scale}");
        }
    }
}

#[test]
fn a_scale_that_was_not_stored_has_no_bytes() {
    assert_eq!(ScaleCodec::F16.encode(&[1.0, 0.1], &[], 2), Err(1));
    assert_eq!(ScaleCodec::E8M0.encode(&[3.0], &[], 1), Err(0));
    let codec = Nested { inner: InnerScale::Uint6, outer: OuterScale::F16, scales: Some(2) };
    assert_eq!(ScaleCodec::Nested(codec).encode(&[2.0, 0.7], &[0.5], 2), Err(1));
}
