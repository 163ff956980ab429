//! The same bytes however a sequence is fed and however many threads work: the promise that
//! perplexity does not move with the batch.
mod models;

use halfstep_formats::Model;
use halfstep_kernels::dispatch::{available, force};
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Cache, Error, Network};
use models::{network, tokens, zoo};

/// Logits of all `tokens`, fed in pieces of the given lengths.
fn fed(network: &Network, tokens: &[u32], lengths: impl IntoIterator<Item = usize>) -> Vec<u32> {
    let mut cache = Cache::for_length(network, tokens.len());
    let (mut logits, mut from) = (vec![], 0);
    for length in lengths {
        logits.extend(
            network.forward(&tokens[from..from + length], &mut cache, Logits::All).unwrap(),
        );
        from += length;
    }
    assert_eq!((from, cache.len()), (tokens.len(), tokens.len()));
    logits.into_iter().map(f32::to_bits).collect()
}

#[test]
fn prefill_equals_decode_in_every_byte() {
    for (name, model) in zoo() {
        let network = network(&model, 2);
        let tokens = tokens(43, model.architecture.vocab_size);
        let whole = fed(&network, &tokens, [43]);
        assert!(whole == fed(&network, &tokens, [1; 43]), "{name}: one by one");
        assert!(whole == fed(&network, &tokens, [7, 1, 33, 2]), "{name}: in pieces");
    }
}

/// Several sequences of different lengths, one token each: the bytes each gets alone.
#[test]
fn sequences_decoded_together_equal_each_alone() {
    for (name, model) in zoo() {
        let network = network(&model, 2);
        let (vocab, tokens) =
            (model.architecture.vocab_size, tokens(60, model.architecture.vocab_size));
        for count in [1, 2, 5, 13] {
            let start = |i: usize| {
                let mut cache = Cache::for_length(&network, 60);
                network.forward(&tokens[i..3 * i + 1], &mut cache, Logits::None).unwrap();
                cache
            };
            let mut together: Vec<Cache> = (0..count).map(start).collect();
            let mut alone: Vec<Cache> = (0..count).map(start).collect();
            for step in 0..3 {
                let next: Vec<u32> = (0..count).map(|i| tokens[7 * step + i]).collect();
                let got = network
                    .forward_each(&next, &mut together.iter_mut().collect::<Vec<_>>())
                    .unwrap();
                for (i, (cache, got)) in alone.iter_mut().zip(got.chunks(vocab)).enumerate() {
                    assert!(
                        got == network.forward(&next[i..=i], cache, Logits::Last).unwrap(),
                        "{name}: {i} of {count}"
                    );
                }
            }
        }
        assert!(
            network.forward_each(&[1], &mut []).is_err()
                && network.forward_each(&[vocab as u32], &mut [&mut Cache::new(&network)]).is_err()
        );
    }
}

#[test]
fn long_prefills_are_cut_without_a_trace() {
    for (name, model) in zoo().into_iter().skip(1).step_by(3) {
        let network = network(&model, 2);
        let tokens = tokens(300, model.architecture.vocab_size);
        assert!(fed(&network, &tokens, [300]) == fed(&network, &tokens, [1; 300]), "{name}");
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    for (name, model) in zoo() {
        let tokens = tokens(37, model.architecture.vocab_size);
        let one = fed(&network(&model, 1), &tokens, [36, 1]);
        for threads in [2, 3] {
            assert!(
                one == fed(&network(&model, threads), &tokens, [36, 1]),
                "{name}: {threads} threads"
            );
        }
    }
}

#[test]
fn instruction_sets_do_not_change_a_byte() {
    for (name, model) in zoo() {
        let (network, tokens) = (network(&model, 1), tokens(37, model.architecture.vocab_size));
        let mut levels = available().into_iter().map(|level| {
            force(level);
            fed(&network, &tokens, [36, 1])
        });
        let weakest = levels.next().unwrap();
        assert!(levels.all(|logits| logits == weakest), "{name}");
    }
}

#[test]
fn a_truncated_cache_goes_on_as_if_the_rest_had_never_been() {
    for (name, model) in zoo() {
        let network = network(&model, 1);
        let tokens = tokens(20, model.architecture.vocab_size);
        let mut cache = Cache::for_length(&network, 20);
        network.forward(&tokens[..15], &mut cache, Logits::None).unwrap();
        if !has_attention_only(&model) {
            continue;
        }
        cache.truncate(8).unwrap();
        assert_eq!(cache.len(), 8);
        let again = network.forward(&tokens[15..], &mut cache, Logits::All).unwrap();
        let mut fresh = Cache::for_length(&network, 20);
        network.forward(&tokens[..8], &mut fresh, Logits::None).unwrap();
        assert!(
            again == network.forward(&tokens[15..], &mut fresh, Logits::All).unwrap(),
            "{name}"
        );
    }
}

fn has_attention_only(model: &Model) -> bool {
    model.architecture.layers.iter().all(|layer| layer.attention().is_some())
}

/// No token can be taken out of a state: the way back is a clone, or the beginning.
#[test]
fn a_cache_with_states_goes_back_by_a_clone_or_to_the_beginning() {
    let with_states = zoo().into_iter().filter(|(_, model)| !has_attention_only(model));
    let mut count = 0;
    for (name, model) in with_states {
        let network = network(&model, 1);
        let tokens = tokens(20, model.architecture.vocab_size);
        let mut cache = Cache::for_length(&network, 20);
        network.forward(&tokens[..8], &mut cache, Logits::None).unwrap();
        let mut kept = cache.clone();
        network.forward(&tokens[8..15], &mut cache, Logits::None).unwrap();
        let bytes = cache.memory_bytes();
        let Err(Error::Argument { field, reason }) = cache.truncate(8) else { panic!("{name}") };
        assert!(field == "len" && reason.contains("clone"), "{name}: {reason}");
        assert_eq!((cache.len(), cache.memory_bytes()), (15, bytes), "{name}");
        cache.truncate(15).unwrap();
        let went_on = network.forward(&tokens[15..], &mut cache, Logits::All).unwrap();
        let mut whole = Cache::for_length(&network, 20);
        let all = network.forward(&tokens, &mut whole, Logits::All).unwrap();
        let vocab = model.architecture.vocab_size;
        assert!(went_on == all[15 * vocab..], "{name}");
        let again = network.forward(&tokens[8..], &mut kept, Logits::All).unwrap();
        assert!(again == all[8 * vocab..], "{name}");
        cache.truncate(0).unwrap();
        let begun = network.forward(&tokens, &mut cache, Logits::All).unwrap();
        assert!(begun == all, "{name}");
        count += 1;
    }
    assert!(count > 5, "{count} models with states");
}

#[test]
fn the_requested_rows_are_returned() {
    for (name, model) in zoo() {
        let network = network(&model, 1);
        let (vocab, tokens) =
            (model.architecture.vocab_size, tokens(9, model.architecture.vocab_size));
        let all = network.forward(&tokens, &mut Cache::new(&network), Logits::All).unwrap();
        let last = network.forward(&tokens, &mut Cache::new(&network), Logits::Last).unwrap();
        assert_eq!(all.len(), 9 * vocab);
        assert!(last == all[8 * vocab..], "{name}");
        assert!(
            network.forward(&tokens, &mut Cache::new(&network), Logits::None).unwrap().is_empty()
        );
        let features = network.features(&tokens, &mut Cache::new(&network)).unwrap();
        let mut logits = vec![0.0; 3 * vocab];
        network.head(
            &features[4 * model.architecture.hidden_size..7 * model.architecture.hidden_size],
            &mut logits,
        );
        assert!(logits == all[4 * vocab..7 * vocab], "{name}");
    }
}

#[test]
fn the_observer_sees_every_layer_and_row() {
    let (_, model) = zoo().remove(0);
    let network = network(&model, 2);
    let tokens = tokens(300, model.architecture.vocab_size);
    let (mut seen, d) =
        (vec![vec![]; model.architecture.layers.len()], model.architecture.hidden_size);
    network
        .forward_with(&tokens, &mut Cache::new(&network), Logits::None, &mut |layer, rows| {
            seen[layer].extend_from_slice(rows)
        })
        .unwrap();
    assert!(seen.iter().all(|rows| rows.len() == 300 * d));
    let mut one_by_one = vec![];
    let mut cache = Cache::new(&network);
    for token in tokens {
        network
            .forward_with(&[token], &mut cache, Logits::None, &mut |layer, rows| {
                if layer == 1 {
                    one_by_one.extend_from_slice(rows);
                }
            })
            .unwrap();
    }
    assert!(one_by_one == seen[1]);
}
