//! LFM2: short convolutions in most layers, attention with norms of heads in the others.

use crate::architecture::fields::{self, Fields, Form, Key};
use crate::architecture::hybrid::MAX_KERNEL;
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Convolution, Family, FeedForward, Layer, Mixer, QkNorm};
use crate::config::MAX_INTERMEDIATE;
use crate::error::Result;

pub struct Lfm2;

/// What configs call layers with a convolution.
const CONVOLUTION: &str = "conv";
const LAYER_TYPES: Key = Key { config: &["layer_types"], gguf: Some("attention.head_count_kv") };
/// Numbers of the layers with attention, where no list names the kind of each layer.
const ATTENTION_LAYERS: Key = Key { config: &["full_attn_idxs"], gguf: None };
/// Positions that a convolution sees.
const KERNEL: Key = Key { config: &["conv_L_cache"], gguf: Some("shortconv.l_cache") };
/// Whether convolutions and their linears have biases.
const BIAS: Key = Key { config: &["conv_bias"], gguf: None };
/// Another name of the intermediate size, which counts if it is there.
const WIDTH: Key = Key { config: &["block_ff_dim"], gguf: None };
/// Whether the intermediate size is not the real one yet.
const ADJUST: Key = Key { config: &["block_auto_adjust_ff_dim"], gguf: None };
/// What two thirds of it are multiplied by.
const MULTIPLIER: Key = Key { config: &["block_ffn_dim_multiplier"], gguf: None };
/// What the product is rounded up to a multiple of.
const MULTIPLE: Key = Key { config: &["block_multiple_of"], gguf: None };
/// Another name of `tie_word_embeddings`, which counts if it is there.
const TIED: Key = Key { config: &["tie_embedding"], gguf: None };

impl Family for Lfm2 {
    fn name(&self) -> &'static str {
        "lfm2"
    }

    fn class(&self) -> &'static str {
        "Lfm2ForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::each_attention(graph, |a| a.qk_norm = Some(QkNorm::Head));
        let convolved = self.convolved(io, graph)?;
        let in_graph = graph.layers.iter().find_map(|layer| match layer.mixer {
            Mixer::Convolution(Convolution { kernel }) => Some(kernel),
            _ => None,
        });
        let usual = if io.form() == Form::Gguf { 0 } else { 3 };
        let mut kernel = in_graph.unwrap_or(usual);
        if convolved.contains(&true) {
            fields::size(io, &KERNEL, &mut kernel)?;
        }
        if kernel > MAX_KERNEL {
            return Err(io.refuse(&KERNEL, format!("it is {kernel}, more than {MAX_KERNEL}")));
        }
        if io.reads() {
            for (layer, _) in graph.layers.iter_mut().zip(convolved).filter(|(_, is)| *is) {
                layer.mixer = Mixer::Convolution(Convolution { kernel });
            }
        }
        let mut bias = false;
        fields::flag(io, &BIAS, &mut bias)?;
        if bias {
            let reason = "it is true, and convolutions with biases are not computed here";
            return Err(io.refuse(&BIAS, reason.into()));
        }
        if io.reads() {
            fields::flag(io, &TIED, &mut graph.tied_head)?;
        }
        self.width(io, graph)
    }

    fn norm_eps_key(&self) -> &'static str {
        "norm_eps"
    }

    fn tied_head(&self) -> bool {
        true
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("vocab_size", 65_536.0),
            ("hidden_size", 2560.0),
            ("intermediate_size", 12_288.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("num_key_value_heads", 8.0),
            ("max_position_embeddings", 128_000.0),
            ("norm_eps", 1e-5),
            ("rope_theta", 1_000_000.0),
        ]
    }

    fn counts_heads_by_layer(&self) -> bool {
        true
    }

    fn gguf_readers(&self) -> Readers {
        Readers { head_width: false, ..Readers::PLAIN }
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("norm", "embedding_norm"),
            ("input_layernorm", "operator_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.q_norm", "self_attn.q_layernorm"),
            ("self_attn.k_norm", "self_attn.k_layernorm"),
            ("self_attn.o_proj", "self_attn.out_proj"),
            ("mlp.gate_proj", "feed_forward.w1"),
            ("mlp.up_proj", "feed_forward.w3"),
            ("mlp.down_proj", "feed_forward.w2"),
        ]
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("norm", "token_embd_norm")]
    }

    fn settled_keys(&self) -> &'static [&'static str] {
        &["qk_norm", "use_qk_norm", "qk_layernorm"]
    }
}

impl Lfm2 {
    /// Which layers have a convolution.
    fn convolved(&self, io: &mut dyn Fields, graph: &Architecture) -> Result<Vec<bool>> {
        let layers = graph.layers.len();
        let in_graph = || graph.layers.iter().map(|layer| layer.attention().is_none()).collect();
        let mut convolved: Option<Vec<bool>> = (!io.reads()).then(in_graph);
        io.other_mixers(CONVOLUTION, &mut convolved)?;
        if io.reads() {
            let mut numbers = None;
            io.numbers(&ATTENTION_LAYERS, &mut numbers)?;
            if let Some(numbers) = numbers {
                if let Some(beyond) = numbers.iter().find(|&&number| number >= layers) {
                    let reason = format!("it names layer {beyond} of {layers}");
                    return Err(io.refuse(&ATTENTION_LAYERS, reason));
                }
                let listed: Vec<bool> = (0..layers).map(|l| !numbers.contains(&l)).collect();
                if convolved.as_ref().is_some_and(|convolved| *convolved != listed) {
                    let reason = "it names other layers than layer_types".into();
                    return Err(io.refuse(&ATTENTION_LAYERS, reason));
                }
                convolved = Some(listed);
            }
        }
        let heads = |layer: &Layer| layer.attention().map_or(0, |a| a.kv_heads);
        let mut heads = (!io.reads()).then(|| graph.layers.iter().map(heads).collect());
        io.kv_heads(&mut heads)?;
        if let (true, Some(heads)) = (io.reads(), heads) {
            convolved = Some(heads.into_iter().map(|heads| heads == 0).collect());
        }
        let convolved = convolved.unwrap_or(vec![false; layers]);
        match convolved.contains(&false) {
            true => Ok(convolved),
            false => Err(io.refuse(&LAYER_TYPES, "no layer has attention, and one must".into())),
        }
    }

    /// The real intermediate size, which configs are written with; published ones give another.
    fn width(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let mut adjust = io.reads();
        fields::flag(io, &ADJUST, &mut adjust)?;
        if !io.reads() || io.form() == Form::Gguf {
            return Ok(());
        }
        let mut width = Some(graph.sizes().intermediate_size);
        io.size(&WIDTH, &mut width)?;
        let mut width = width.unwrap_or(graph.sizes().intermediate_size);
        let (mut multiplier, mut multiple) = (Some(1.0), 256);
        io.number(&MULTIPLIER, &mut multiplier)?;
        fields::size(io, &MULTIPLE, &mut multiple)?;
        if adjust {
            width = (2.0 * width as f64 / 3.0) as usize;
            width = multiplier.map_or(width, |by| (by * width as f64) as usize);
            width = width.div_ceil(multiple).saturating_mul(multiple);
        }
        if width == 0 || width > MAX_INTERMEDIATE {
            let reason = format!("it gives {width} outputs, where 1 to {MAX_INTERMEDIATE} can be");
            return Err(io.refuse(&WIDTH, reason));
        }
        for layer in &mut graph.layers {
            if let FeedForward::Dense(dense) = &mut layer.feed_forward {
                dense.intermediate_size = width;
            }
        }
        Ok(())
    }
}
