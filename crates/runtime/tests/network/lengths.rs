//! What depends on the length of a sequence: how much layers with a window keep, and rotations of
//! long sequences.

use crate::models::{
    self, architecture, float_model, grid, network, quantization, quantized, tokens,
};
use halfstep_formats::architecture::{LongScaling, Rope, RopeScaling};
use halfstep_formats::{Architecture, Model};
use halfstep_kernels::ActivationSpec as A;
use halfstep_kernels::{Granularity, Int};
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Cache, Error, GenerateConfig, Network, evaluate, generate};

const WINDOW: usize = 20;
/// Rows that are read together.
const PIECE: usize = 256;
const TOKENS: usize = 900;

/// Two layers with a window, one without.
fn windowed() -> Architecture {
    let mut windowed = Architecture { max_positions: 1000, ..architecture() };
    windowed.layers[0].attention_mut().expect("attention").window = Some(WINDOW);
    windowed.layers[2].attention_mut().expect("attention").window = Some(WINDOW);
    windowed
}

/// The same model with layers that add nothing but read all keys of the layers with a window, which
/// then forget none.
fn unbounded(model: &Model) -> Model {
    let mut architecture = model.architecture.clone();
    for source in [0, 2] {
        let mut reader = architecture.layers[1].clone();
        (reader.attention_mut().expect("attention").kv_from, reader.residual_scale) =
            (Some(source), 0.0);
        architecture.layers.push(reader);
    }
    let mut all = float_model(architecture);
    all.tensors.extend(model.tensors.clone());
    all.quantization = model.quantization.clone();
    all
}

/// Logits of all tokens in pieces of these lengths, and the most bytes of the cache.
fn fed(network: &Network, tokens: &[u32], lengths: &[usize]) -> (Vec<u32>, usize, Cache) {
    let mut cache = Cache::for_length(network, tokens.len());
    let (mut logits, mut most) = (vec![], 0);
    for &length in lengths.iter().cycle() {
        let new = &tokens[cache.len()..tokens.len().min(cache.len() + length)];
        if new.is_empty() {
            break;
        }
        logits.extend(network.forward(new, &mut cache, Logits::All).unwrap());
        most = most.max(cache.memory_bytes());
    }
    (logits.into_iter().map(f32::to_bits).collect(), most, cache)
}

#[test]
fn a_window_bounds_the_cache_and_changes_no_byte() {
    let channel = grid(Int::symmetric(8), Granularity::Channel);
    let packed = |cache| quantized(windowed(), channel, None, quantization(A::token(8), cache));
    for (model, element) in [(float_model(windowed()), 4), (packed(A::F16), 2), (packed(A::F32), 4)]
    {
        let (bounded, whole) = (network(&model, 2), network(&unbounded(&model), 2));
        let ids = tokens(TOKENS, model.architecture.vocab_size);
        let (want, all, _) = fed(&whole, &ids, &[TOKENS]);
        let row = 2 * 2 * 32 * element;
        assert_eq!(all, 3 * TOKENS * row);
        for lengths in [&[TOKENS][..], &[1], &[300, 1, 1, 17], &[256, 255]] {
            let (got, most, _) = fed(&bounded, &ids, lengths);
            assert!(got == want, "{lengths:?}");
            assert!(most <= (2 * (WINDOW - 1 + PIECE) + TOKENS) * row, "{lengths:?}: {most}");
        }
    }
}

#[test]
fn a_cache_is_cut_no_further_than_its_windows_reach() {
    let model = float_model(windowed());
    let network = network(&model, 1);
    let ids = tokens(TOKENS, model.architecture.vocab_size);
    let (_, _, mut cache) = fed(&network, &ids, &[1]);
    let bytes = cache.memory_bytes();
    let Err(Error::Argument { field, reason }) = cache.truncate(400) else { panic!("cut") };
    assert!(field == "len" && reason.contains("400") && reason.contains("window"), "{reason}");
    assert_eq!((cache.len(), cache.memory_bytes()), (TOKENS, bytes));
    // The least that it names is enough.
    let least = reason.split(' ').filter_map(|word| word.parse::<usize>().ok()).nth(1).unwrap();
    assert!(cache.truncate(least - 1).is_err());
    cache.truncate(least).unwrap();
    let again = network.forward(&ids[..30], &mut cache, Logits::All).unwrap();
    let (_, _, mut fresh) = fed(&network, &ids[..least], &[PIECE]);
    assert!(again == network.forward(&ids[..30], &mut fresh, Logits::All).unwrap());
    // And nothing at all is a new beginning.
    cache.truncate(0).unwrap();
    let begun = network.forward(&ids[..30], &mut cache, Logits::All).unwrap();
    assert!(begun == network.forward(&ids[..30], &mut Cache::new(&network), Logits::All).unwrap());
}

const ORIGINAL: usize = 20;

/// A rotation that is another one beyond [`ORIGINAL`] tokens.
fn stretching(scaling: RopeScaling) -> Model {
    let mut stretching = architecture();
    let rope = Rope { scaling: Some(scaling), ..Rope::plain(10_000.0, 32) };
    stretching
        .layers
        .iter_mut()
        .for_each(|l| l.attention_mut().expect("attention").rope = Some(rope.clone()));
    float_model(stretching)
}

fn long() -> Model {
    let factors = |last: f64| (0..16).map(|i| 1.0 + last * i as f64).collect();
    let (short, long) = (factors(0.01), factors(0.5));
    let long = LongScaling { short, long, original: ORIGINAL, magnitude: 1.1 };
    stretching(RopeScaling::Long(long.into()))
}

#[test]
fn a_cache_never_holds_keys_of_two_rotations() {
    let dynamic = RopeScaling::Dynamic { factor: 4.0, original: ORIGINAL };
    for model in [long(), stretching(dynamic)] {
        let network = network(&model, 2);
        let ids = tokens(40, model.architecture.vocab_size);
        let mut cache = Cache::new(&network);
        let short = network.forward(&ids[..15], &mut cache, Logits::Last).unwrap();
        let Err(Error::Argument { field, reason }) =
            network.forward(&ids[15..21], &mut cache, Logits::Last)
        else {
            panic!("two rotations")
        };
        assert!(field == "tokens" && reason.contains("20") && reason.contains("for_length"));
        assert_eq!(cache.len(), 15);
        network.forward(&ids[15..20], &mut cache, Logits::Last).unwrap();
        network.forward_each(&[1], &mut [&mut cache]).unwrap_err();
        // Said beforehand, or seen at once, it is the other one, in any pieces.
        let mut cache = Cache::for_length(&network, 40);
        let piece = network.forward(&ids[..15], &mut cache, Logits::Last).unwrap();
        assert!(piece != short);
        let rest = network.forward(&ids[15..], &mut cache, Logits::Last).unwrap();
        let whole = network.forward(&ids, &mut Cache::new(&network), Logits::Last).unwrap();
        assert!(rest == whole);
        // A cache that is emptied begins anew.
        let mut cache = Cache::new(&network);
        network.forward(&ids, &mut cache, Logits::None).unwrap();
        cache.truncate(0).unwrap();
        assert!(short == network.forward(&ids[..15], &mut cache, Logits::Last).unwrap());
    }
}

#[test]
fn generation_and_evaluation_know_how_long_a_sequence_is() {
    let model = long();
    let network = network(&model, 1);
    let ids = tokens(60, model.architecture.vocab_size);
    let config = GenerateConfig { max_tokens: 12, ..GenerateConfig::default() };
    assert_eq!(generate(&network, &ids[..15], &config, &mut |_| true).unwrap().len(), 12);
    // Short windows are those of the model as it is without the long factors.
    let mut plain = model.clone();
    for layer in &mut plain.architecture.layers {
        let Some(Rope { scaling: Some(RopeScaling::Long(long)), .. }) =
            &mut layer.attention_mut().expect("attention").rope
        else {
            unreachable!()
        };
        *long = LongScaling { long: long.short.clone(), ..LongScaling::clone(long) }.into();
    }
    let loss = |network: &Network, length| {
        evaluate(network, None, &ids, length, &mut |_, _| true).unwrap().mean_nll
    };
    let plain = models::network(&plain, 1);
    assert_eq!(loss(&network, ORIGINAL), loss(&plain, ORIGINAL));
    assert_ne!(loss(&network, 2 * ORIGINAL), loss(&plain, 2 * ORIGINAL));
}
