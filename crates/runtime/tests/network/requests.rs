//! Generation and scoring as asked for, and what wrong requests get.

use crate::models::{
    self, architecture, float_model, linear_parts, network, quantization, quantized, tokens,
    untied, with_low_rank, with_static_scales, zoo,
};
use halfstep_formats::architecture::{
    Convolution, Decay, DeltaRule, Dense, Experts, FeedForward, HeadOrder, Mixer, Routing, Score,
};
use halfstep_formats::{Error as FormatError, TensorData};
use halfstep_kernels::{ActivationSpec, Pool, QuantSpec};
use halfstep_runtime::generate::Generator;
use halfstep_runtime::network::Logits;
use halfstep_runtime::sample::{SampleConfig, argmax};
use halfstep_runtime::{Arithmetic, Cache, Error, GenerateConfig, Network, evaluate, generate};

fn greedy(max_tokens: usize) -> GenerateConfig {
    GenerateConfig { max_tokens, ..Default::default() }
}

/// Field and text of an argument error.
fn argument<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, String) {
    match result {
        Err(Error::Argument { field, reason }) => (field, reason),
        other => panic!("expected an argument error, got {other:?}"),
    }
}

#[test]
fn greedy_tokens_are_those_of_whole_forwards() {
    for (name, model) in zoo() {
        let network = network(&model, 2);
        let mut sequence = tokens(6, model.architecture.vocab_size);
        let mut streamed = vec![];
        let got = generate(&network, &sequence, &greedy(8), &mut |id| {
            streamed.push(id);
            true
        })
        .unwrap();
        for _ in 0..8 {
            let mut cache = Cache::for_length(&network, 13);
            let logits = network.forward(&sequence, &mut cache, Logits::Last).unwrap();
            sequence.push(argmax(&logits).unwrap());
        }
        assert_eq!(got, sequence[6..], "{name}");
        assert_eq!(got, streamed, "{name}");
    }
}

#[test]
fn generation_ends_at_a_stop_token_at_the_callers_word_or_at_the_last_position() {
    let model = float_model(architecture());
    let (network, prompt) = (network(&model, 1), tokens(6, 173));
    let all = generate(&network, &prompt, &greedy(12), &mut |_| true).unwrap();
    let (at, &stop) = all.iter().enumerate().rev().find(|(i, id)| !all[..*i].contains(id)).unwrap();
    let config = GenerateConfig { stop: vec![stop], ..greedy(12) };
    assert_eq!(generate(&network, &prompt, &config, &mut |_| true).unwrap(), all[..at]);
    let mut count = 0;
    let cut = generate(&network, &prompt, &greedy(12), &mut |_| {
        count += 1;
        count < 3
    });
    assert_eq!(cut.unwrap(), all[..3]);
    assert!(generate(&network, &prompt, &greedy(0), &mut |_| true).unwrap().is_empty());
    let positions = model.architecture.max_positions;
    let to_the_end =
        generate(&network, &tokens(positions - 2, 173), &greedy(50), &mut |_| true).unwrap();
    assert_eq!(to_the_end.len(), 3); // two more positions are filled, the third token needs none
}

#[test]
fn generations_side_by_side_give_what_each_gives_alone() {
    let model = zoo().remove(2).1;
    let network = network(&model, 2);
    let sample = SampleConfig { temperature: 0.9, seed: 4, ..Default::default() };
    let config = GenerateConfig { max_tokens: 12, sample, stop: vec![3, 50] };
    let prompts: Vec<Vec<u32>> = (1..6).map(|i| tokens(3 * i - 2, 173)).collect();
    let mut all: Vec<Generator> =
        prompts.iter().map(|prompt| Generator::new(&network, prompt, &config).unwrap()).collect();
    while Generator::step_each(&network, &mut all).unwrap() {}
    for (generator, prompt) in all.iter().zip(&prompts) {
        assert_eq!(generator.tokens, generate(&network, prompt, &config, &mut |_| true).unwrap());
    }
    assert!(!Generator::step_each(&network, &mut []).unwrap());
}

#[test]
fn sampling_repeats_under_its_seed() {
    let model = float_model(architecture());
    let (network, prompt) = (network(&model, 2), tokens(5, 173));
    let run = |seed| {
        let sample = SampleConfig { temperature: 1.2, top_k: 40, top_p: 0.95, seed };
        generate(
            &network,
            &prompt,
            &GenerateConfig { max_tokens: 20, sample, stop: vec![] },
            &mut |_| true,
        )
        .unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn evaluation_equals_its_definition() {
    let (float, packed) = (float_model(untied()), zoo().remove(3).1);
    let (reference, model) = (network(&float, 2), network(&packed, 2));
    let (ids, sequence_length, vocab) = (tokens(101, 173), 33, 173);
    let mut seen = vec![];
    let got = evaluate(&model, Some(&reference), &ids, sequence_length, &mut |done, total| {
        seen.push((done, total));
        true
    })
    .unwrap();
    let (mut nll, mut kl, mut agree, mut count) = (0.0, 0.0, 0, 0);
    for piece in ids.chunks(sequence_length) {
        let logits = |n: &Network| n.forward(piece, &mut Cache::new(n), Logits::All).unwrap();
        let (ours, theirs) = (logits(&model), logits(&reference));
        for (t, &target) in piece.iter().enumerate().skip(1) {
            let row = |l: &[f32]| l[(t - 1) * vocab..t * vocab].to_vec();
            let log_softmax = |l: &[f32]| {
                let sum: f64 = l.iter().map(|&v| (v as f64).exp()).sum();
                l.iter().map(|&v| v as f64 - sum.ln()).collect::<Vec<f64>>()
            };
            let (q, p) = (log_softmax(&row(&ours)), log_softmax(&row(&theirs)));
            nll -= q[target as usize];
            kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            agree += (argmax(&row(&ours)) == argmax(&row(&theirs))) as usize;
            count += 1;
        }
    }
    // 101 = 3 * 33 + 2: the short sequence counts; one token fewer and it is dropped.
    assert_eq!((got.predictions, count), (97, 97));
    let close =
        |got: f64, want: f64| assert!((got - want).abs() <= 1e-9 * want.abs(), "{got} {want}");
    close(got.mean_nll, nll / count as f64);
    close(got.perplexity, (nll / count as f64).exp());
    close(got.kl.unwrap(), kl / count as f64);
    close(got.top1_agreement.unwrap(), agree as f64 / count as f64);
    assert!(got.tokens_per_second > 0.0);
    assert_eq!((seen.first(), seen.last()), (Some(&(0, 101)), Some(&(101, 101))));
    assert_eq!(
        evaluate(&model, None, &ids[..100], sequence_length, &mut |_, _| true).unwrap().predictions,
        96
    );
}

#[test]
fn a_model_does_not_differ_from_itself() {
    for (name, model) in zoo() {
        let network = network(&model, 2);
        let result =
            evaluate(&network, Some(&network), &tokens(40, 173), 20, &mut |_, _| true).unwrap();
        assert!(result.kl.unwrap().abs() < 1e-13, "{name}: {:?}", result.kl);
        assert_eq!(result.top1_agreement, Some(1.0));
        let alone = evaluate(&network, None, &tokens(40, 173), 20, &mut |_, _| true).unwrap();
        assert_eq!(
            (alone.kl, alone.top1_agreement, alone.mean_nll.to_bits()),
            (None, None, result.mean_nll.to_bits())
        );
    }
}

#[test]
fn evaluation_refuses_before_it_computes() {
    let model = float_model(architecture());
    let network = network(&model, 1);
    let mut never = |_, _| panic!("started");
    let mut run = |ids: &[u32], sequence_length| {
        argument(evaluate(&network, None, ids, sequence_length, &mut never))
    };
    assert_eq!(run(&[], 16).0, "data");
    assert_eq!(run(&[3], 16).0, "data");
    let (field, reason) = run(&tokens(15, 173), 16);
    assert!(field == "data" && reason.contains("15") && reason.contains("16"), "{reason}");
    assert_eq!(run(&tokens(50, 173), 1).0, "sequenceLength");
    assert_eq!(run(&tokens(500, 173), 401).0, "sequenceLength");
    assert_eq!(run(&[0, 173, 1], 3).0, "data");
    let other =
        models::float_model(halfstep_formats::Architecture { vocab_size: 170, ..architecture() });
    let other = models::network(&other, 1);
    assert_eq!(
        argument(evaluate(&network, Some(&other), &tokens(40, 173), 16, &mut |_, _| panic!(
            "started"
        )))
        .0,
        "against"
    );
}

#[test]
fn evaluation_can_be_cancelled() {
    let network = network(&float_model(architecture()), 1);
    let cancelled = evaluate(&network, None, &tokens(64, 173), 16, &mut |done, _| done < 32);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
}

#[test]
fn impossible_sequences_are_refused_and_leave_the_cache_alone() {
    let model = float_model(architecture());
    let network = network(&model, 1);
    let mut cache = Cache::new(&network);
    network.forward(&tokens(398, 173), &mut cache, Logits::None).unwrap();
    let (field, reason) = argument(network.forward(&[1, 2, 3], &mut cache, Logits::Last));
    assert!(field == "tokens" && reason.contains("400"), "{reason}");
    assert!(argument(network.forward(&[1, 173], &mut cache, Logits::Last)).1.contains("173"));
    argument(network.forward(&[], &mut cache, Logits::Last));
    assert_eq!(cache.len(), 398);
    network.forward(&[1, 2], &mut cache, Logits::Last).unwrap();
    let config = greedy(4);
    for prompt in [vec![], tokens(401, 173), vec![0, 200]] {
        assert_eq!(
            argument(generate(&network, &prompt, &config, &mut |_| panic!("started"))).0,
            "prompt"
        );
    }
    let config = GenerateConfig {
        sample: SampleConfig { temperature: -1.0, ..Default::default() },
        ..config
    };
    assert_eq!(
        argument(generate(&network, &[1], &config, &mut |_| panic!("started"))).0,
        "temperature"
    );
}

#[test]
fn models_that_cannot_run_say_what_is_wrong() {
    let new = |model: &halfstep_formats::Model, arithmetic| {
        Network::new(model, arithmetic, Pool::new(1)).map(|_| ())
    };
    let float = float_model(architecture());
    assert_eq!(argument(new(&float, Arithmetic::Integer)).0, "arithmetic");

    let name = "model.layers.1.mlp.up_proj.weight";
    let mut missing = float.clone();
    missing.tensors.remove(name);
    assert!(matches!(
        new(&missing, Arithmetic::Auto),
        Err(Error::Format(FormatError::MissingTensor { tensor, .. })) if tensor == name
    ));

    let mut shape = float.clone();
    shape.tensors.get_mut(name).unwrap().shape = vec![64, 160];
    assert!(matches!(
        new(&shape, Arithmetic::Auto),
        Err(Error::Format(FormatError::Shape { tensor, .. })) if tensor == name
    ));
    let mut short = float.clone();
    short.tensors.get_mut(name).unwrap().data = TensorData::F32(vec![0.0; 64 * 160 - 1]);
    assert!(matches!(new(&short, Arithmetic::Auto), Err(Error::Format(FormatError::Shape { .. }))));

    let mut factors = with_low_rank(float.clone(), 4);
    new(&factors, Arithmetic::Auto).unwrap();
    factors.low_rank.get_mut(name).unwrap().a.truncate(1);
    let refused = |model: &halfstep_formats::Model| match new(model, Arithmetic::Auto) {
        Err(Error::Format(FormatError::Unsupported { name, reason, .. })) => (name, reason),
        other => panic!("{other:?}"),
    };
    let (thing, reason) = refused(&factors);
    assert!(thing.contains(name) && reason.contains("factor A"), "{thing}: {reason}");
    let mut head = float.clone();
    head.low_rank.insert(
        "model.embed_tokens.weight".into(),
        factors.low_rank["model.layers.0.mlp.up_proj.weight"].clone(),
    );
    assert!(refused(&head).0.contains("model.embed_tokens.weight"));

    let float_sites = quantization(ActivationSpec::F32, ActivationSpec::F32);
    let mut parts = quantized(architecture(), QuantSpec::Q8_0, None, float_sites);
    parts.linear_parts.insert(name.into(), linear_parts(160, 64, 0b111_1111));
    new(&parts, Arithmetic::Auto).unwrap();
    parts.linear_parts.get_mut(name).unwrap().gather = Some(vec![64; 64]);
    let (thing, reason) = refused(&parts);
    assert!(thing == format!("{name}.gather") && reason.contains("not below 64"), "{reason}");
    let mut unpacked = float.clone();
    unpacked.linear_parts.insert(name.into(), linear_parts(160, 64, 1));
    assert!(refused(&unpacked).0.contains(name));

    let static_sites = quantization(ActivationSpec::of_site(8), ActivationSpec::of_site(8));
    let mut steps = with_static_scales(static_sites, architecture().layers.len());
    let step = "model.layers.2.k_cache.step";
    steps.static_scales.remove(step);
    let mut model = quantized(architecture(), QuantSpec::Q8_0, None, steps);
    assert!(matches!(
        new(&model, Arithmetic::Auto),
        Err(Error::Format(FormatError::MissingTensor { tensor, .. })) if tensor == step
    ));
    new(&model, Arithmetic::Float).unwrap();
    model.quantization.as_mut().unwrap().static_scales.insert(step.into(), 0.0);
    assert!(matches!(
        new(&model, Arithmetic::Auto),
        Err(Error::Format(FormatError::Unsupported { name, .. })) if name == step
    ));
    let q = model.quantization.as_mut().unwrap();
    (q.activation, q.cache) = (ActivationSpec::token(9), ActivationSpec::F16);
    assert!(matches!(
        new(&model, Arithmetic::Auto),
        Err(Error::Format(FormatError::Unsupported { name, .. })) if name.contains('9')
    ));
}

#[test]
fn graphs_without_a_meaning_are_refused_by_layer() {
    let refused = |change: fn(&mut halfstep_formats::Architecture)| {
        let mut graph = architecture();
        change(&mut graph);
        let mut model = float_model(architecture());
        model.architecture = graph;
        match Network::new(&model, Arithmetic::Auto, Pool::new(1)).map(|_| ()) {
            Err(Error::Format(FormatError::Unsupported { name, reason, .. })) => (name, reason),
            other => panic!("{other:?}"),
        }
    };
    let (layer, reason) =
        refused(|graph| graph.layers[1].attention_mut().expect("attention").kv_from = Some(1));
    assert!(layer == "layer 1" && reason.contains("of layer 1"), "{layer}: {reason}");
    let (layer, reason) = refused(|graph| {
        (
            graph.layers[2].attention_mut().expect("attention").kv_from,
            graph.layers[2].attention_mut().expect("attention").head_dim,
        ) = (Some(0), 16);
    });
    assert!(layer == "layer 2" && reason.contains("of layer 0"), "{layer}: {reason}");
    let (layer, reason) =
        refused(|graph| graph.layers[0].attention_mut().expect("attention").window = Some(0));
    assert!(layer == "layer 0" && reason.contains("window"), "{layer}: {reason}");
    let delta = DeltaRule {
        key_heads: 2,
        value_heads: 4,
        key_dim: 8,
        value_dim: 16,
        kernel: 4,
        order: HeadOrder::Grouped,
        decay: Decay::Logarithm,
    };
    for (mixer, what) in [
        (Mixer::Convolution(Convolution { kernel: 0 }), "sees no positions"),
        (Mixer::DeltaRule(DeltaRule { kernel: 0, ..delta }), "sees no positions"),
        (Mixer::DeltaRule(DeltaRule { value_heads: 3, ..delta }), "no multiple of 2"),
        (Mixer::DeltaRule(DeltaRule { key_heads: 0, ..delta }), "0 key heads of 8"),
        (Mixer::DeltaRule(DeltaRule { key_dim: 0, ..delta }), "2 key heads of 0"),
        (Mixer::DeltaRule(DeltaRule { value_dim: 0, ..delta }), "4 value heads of 0"),
        (Mixer::DeltaRule(DeltaRule { value_heads: 0, ..delta }), "0 value heads"),
        (Mixer::DeltaRule(DeltaRule { key_dim: 1 << 21, ..delta }), "2097152 by 16"),
        (Mixer::DeltaRule(DeltaRule { value_dim: usize::MAX / 2, ..delta }), "4 matrices"),
    ] {
        let mut model = float_model(architecture());
        model.architecture.layers[2].mixer = mixer.clone();
        let Err(error) = Network::new(&model, Arithmetic::Auto, Pool::new(1)) else {
            panic!("{mixer:?}")
        };
        let error = error.to_string();
        assert!(error.contains("layer 2") && error.contains(what), "{error}");
    }
    let mut model = float_model(architecture());
    model.architecture.layers[0].mixer = Mixer::DeltaRule(delta);
    model.architecture.layers[1].attention_mut().expect("attention").kv_from = Some(0);
    let Err(error) = Network::new(&model, Arithmetic::Auto, Pool::new(1)) else {
        panic!("keys and values of a layer without them")
    };
    assert!(error.to_string().contains("of layer 0"), "{error}");
    for (used, groups) in [(5, None), (0, None), (3, Some([2, 1])), (1, Some([3, 1]))] {
        let mut graph = architecture();
        let routing = Routing {
            score: Score::Softmax,
            bias: false,
            choice_bias: false,
            groups,
            normalise: false,
            scale: 1.0,
        };
        graph.layers[1].feed_forward = FeedForward::Experts(Experts {
            count: 4,
            used,
            expert: Dense::swiglu(48),
            routing,
            shared: None,
            shared_gate: false,
        });
        let model = float_model(graph);
        let Err(error) = Network::new(&model, Arithmetic::Auto, Pool::new(1)) else {
            panic!("{used} of {groups:?}")
        };
        assert!(error.to_string().contains("of 4 experts"), "{error}");
    }
}

#[test]
fn a_weight_that_is_no_number_is_an_error_with_its_place() {
    let mut model = float_model(architecture());
    let TensorData::F32(values) = &mut model.tensors.get_mut("model.norm.weight").unwrap().data
    else {
        unreachable!()
    };
    values[7] = f32::NAN;
    let network = network(&model, 1);
    let error = evaluate(&network, None, &tokens(40, 173), 20, &mut |_, _| true).unwrap_err();
    assert_eq!(error.code(), "ERR_NON_FINITE");
    assert!(matches!(error, Error::NonFinite { position: 1, .. }));
    assert!(matches!(
        generate(&network, &[1, 2], &greedy(3), &mut |_| true),
        Err(Error::NonFinite { .. })
    ));
}
