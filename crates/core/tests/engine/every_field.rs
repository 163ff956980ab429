//! Small graphs that have every field of an architecture between them.

use halfstep_formats::architecture::{
    Activation, Architecture, Convolution, Decay, DeltaRule, Dense, Experts, FeedForward,
    HeadOrder, Layer, Mixer, NormKind, NormPlaces, PerLayerInput, QkNorm, Rope, RopeScaling,
    Routing, Score, Sizes, Temper, YarnScaling,
};
use halfstep_kernels::ops::rope::RopePairs;

/// Ids of tokens are below.
pub(crate) const VOCAB: usize = 13;

/// Each graph, by the name of the fields that it exercises.
pub(crate) fn architectures() -> Vec<(&'static str, Architecture)> {
    vec![
        ("norms around, caps, windows", around()),
        ("norms after, no positions", after()),
        ("layer norms, parallel", parallel(true)),
        ("parallel with two norms", parallel(false)),
        ("sinks, clamped experts", sinks()),
        ("grouped experts, a shared one", shared_expert()),
        ("per-layer inputs, shared keys", per_layer()),
        ("sub norms, squared relu", sub_norms()),
        ("delta rules, gated attention", delta_rules()),
        ("convolutions", convolutions()),
    ]
}

fn plain(layers: usize) -> Architecture {
    let sizes = Sizes {
        vocab_size: VOCAB,
        hidden_size: 16,
        intermediate_size: 32,
        layers,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        norm_eps: 1e-5,
        rope_theta: 100.0,
        rope_scaling: None,
        tied_head: true,
        max_positions: 64,
    };
    sizes.decoder("llama")
}

fn dense(layer: &mut Layer) -> &mut Dense {
    match &mut layer.feed_forward {
        FeedForward::Dense(dense) => dense,
        FeedForward::Experts(experts) => &mut experts.expert,
    }
}

fn around() -> Architecture {
    let mut a = plain(2);
    (a.embed_scale, a.norm.offset, a.logit_softcap) = (2.5, 1.0, Some(1.5));
    for layer in &mut a.layers {
        layer.norms = NormPlaces::AROUND;
        layer.attention_mut().expect("attention").qk_norm = Some(QkNorm::Head);
        layer.attention_mut().expect("attention").scale = Some(0.7);
        layer.attention_mut().expect("attention").softcap = Some(0.9);
        dense(layer).activation = Activation::GeluTanh;
    }
    a.layers[0].attention_mut().expect("attention").window = Some(3);
    a
}

fn after() -> Architecture {
    let mut a = plain(2);
    (a.logit_scale, a.tied_head) = (0.4, false);
    for layer in &mut a.layers {
        layer.norms = NormPlaces::POST;
        layer.attention_mut().expect("attention").qk_norm = Some(QkNorm::Whole);
        layer.residual_scale = 0.6;
    }
    a.layers[1].attention_mut().expect("attention").rope = None;
    a
}

fn parallel(shared: bool) -> Architecture {
    let mut a = plain(2);
    (a.norm.kind, a.norm.bias) = (NormKind::Layer, true);
    for layer in &mut a.layers {
        layer.parallel = true;
        layer.norms.pre_feed_forward = !shared;
        layer.residual_scale = if shared { 1.0 } else { 0.8 };
        let attention = layer.attention_mut().expect("attention");
        attention.qk_norm = Some(QkNorm::PerHead);
        (attention.qkv_bias, attention.o_bias) = (true, true);
        attention.rope =
            Some(Rope { turned: 4, pairs: RopePairs::Interleaved, ..Rope::plain(50.0, 8) });
        let dense = dense(layer);
        (dense.gated, dense.bias, dense.activation) = (false, true, Activation::GeluTanh);
    }
    a
}

fn experts(expert: Dense, routing: Routing) -> Experts {
    Experts { count: 4, used: 2, expert, routing, shared: None, shared_gate: false }
}

fn sinks() -> Architecture {
    let mut a = plain(2);
    let expert = Dense {
        activation: Activation::Clamped { alpha: 1.7, limit: 0.8 },
        bias: true,
        ..Dense::swiglu(16)
    };
    let routing = Routing {
        score: Score::SoftmaxOfChosen,
        bias: true,
        choice_bias: false,
        groups: None,
        normalise: false,
        scale: 1.0,
    };
    for layer in &mut a.layers {
        layer.attention_mut().expect("attention").sinks = true;
        (
            layer.attention_mut().expect("attention").qkv_bias,
            layer.attention_mut().expect("attention").o_bias,
        ) = (true, true);
        layer.feed_forward = FeedForward::Experts(experts(expert, routing));
    }
    a.layers[0].attention_mut().expect("attention").window = Some(4);
    let scaling = RopeScaling::Yarn(YarnScaling {
        factor: 4.0,
        original: 16,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: false,
        magnitude: YarnScaling::usual_magnitude(4.0),
    });
    a.layers[1].attention_mut().expect("attention").rope =
        Some(Rope { scaling: Some(scaling), ..Rope::plain(100.0, 8) });
    a
}

fn shared_expert() -> Architecture {
    let mut a = plain(2);
    let routing = Routing {
        score: Score::Sigmoid,
        bias: false,
        choice_bias: true,
        groups: Some([2, 1]),
        normalise: true,
        scale: 1.8,
    };
    let shared = Some(Dense::swiglu(16));
    let first = Experts { shared, shared_gate: true, ..experts(Dense::swiglu(16), routing) };
    a.layers[0].feed_forward = FeedForward::Experts(first);
    let routing = Routing { score: Score::Softmax, choice_bias: false, groups: None, ..routing };
    let plain = Dense { gated: false, ..Dense::swiglu(16) };
    let second = Experts { shared: Some(plain), ..experts(plain, routing) };
    a.layers[1].feed_forward = FeedForward::Experts(second);
    a.layers[1].norms = NormPlaces::AROUND;
    a
}

fn per_layer() -> Architecture {
    let mut a = plain(4);
    a.per_layer_input = Some(PerLayerInput { width: 16 });
    a.embed_scale = 1.5;
    for layer in &mut a.layers {
        layer.norms = NormPlaces::AROUND;
        layer.output_scale = true;
        layer.attention_mut().expect("attention").v_norm = true;
        layer.attention_mut().expect("attention").qk_norm = Some(QkNorm::Head);
        layer.attention_mut().expect("attention").scale = Some(1.0);
        layer.attention_mut().expect("attention").temper = Some(Temper { beta: 0.3, length: 3 });
    }
    a.layers[2].attention_mut().expect("attention").kv_from = Some(1);
    a.layers[3].attention_mut().expect("attention").kv_from = Some(1);
    dense(&mut a.layers[3]).intermediate_size = 48;
    a
}

fn sub_norms() -> Architecture {
    let mut a = plain(2);
    for layer in &mut a.layers {
        layer.attention_mut().expect("attention").sub_norm = true;
        let dense = dense(layer);
        (dense.sub_norm, dense.activation) = (true, Activation::SquaredRelu);
    }
    dense(&mut a.layers[1]).gated = false;
    a
}

/// A delta rule whose widths groups of 16 divide.
pub(crate) fn delta_rule(order: HeadOrder, decay: Decay) -> Mixer {
    Mixer::DeltaRule(DeltaRule {
        key_heads: 2,
        value_heads: 4,
        key_dim: 4,
        value_dim: 8,
        kernel: 3,
        order,
        decay,
    })
}

fn delta_rules() -> Architecture {
    let mut a = plain(3);
    a.norm.offset = 1.0;
    a.layers[0].mixer = delta_rule(HeadOrder::Grouped, Decay::Logarithm);
    a.layers[1].mixer = delta_rule(HeadOrder::Tiled, Decay::Negative);
    a.layers[1].norms = NormPlaces::AROUND;
    let attention = a.layers[2].attention_mut().expect("attention");
    (attention.gate, attention.qk_norm) = (true, Some(QkNorm::Head));
    a
}

fn convolutions() -> Architecture {
    let mut a = plain(3);
    a.layers[0].mixer = Mixer::Convolution(Convolution { kernel: 3 });
    a.layers[2].mixer = Mixer::Convolution(Convolution { kernel: 2 });
    a.layers[2].residual_scale = 0.7;
    a
}
