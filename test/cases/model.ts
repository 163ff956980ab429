/**
 * A decoder of one layer with 300 tokens that always says one of them, as a Hugging Face folder and
 * as GGUF: all embeddings are alike, the layer adds nothing, and the head has one row.
 */
import type { Metadata, Tensors, Value } from './files.js'

export const [HIDDEN, WIDTH, VOCABULARY] = [64, 96, 300]

export const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: HIDDEN,
  intermediate_size: WIDTH,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_act: 'silu',
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  vocab_size: VOCABULARY,
  tie_word_embeddings: false,
  torch_dtype: 'float32',
}

/** The characters that stand for the bytes in byte-level BPE. */
const BYTES = (() => {
  const plain = (b: number) => (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(plain(b) ? b : next++))
})()
export const MERGES =
  `h e|e r|a n|i n|l l|t he|Ġ s|Ġ the|T he|b e|i ll|m ill|n e|t s|u n|v e|Ġ c|Ġ d
Ġ p|Ġ r|Ġ w|Ġ be|Ġ mill|' s|' ll|' ve|G r|I t|K Ã|N u|a c|a f|a r|a s|a t|a u|a y|a Ã|b er|d e|e e`
    .replace('\n', '|')
    .split('|')
export const SPECIALS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
export const TOKENS = [...SPECIALS, ...BYTES, ...MERGES.map((merge) => merge.replace(' ', ''))]

/** A tokenizer.json of these tokens, of which `specials` are special. */
export function tokenizerJson(tokens: readonly string[] = TOKENS, specials = [0, 1, 2]): object {
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false }
  return {
    version: '1.0',
    added_tokens: specials.map((id) => ({ id, content: tokens[id], ...plain, special: true })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Digits', individual_digits: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: MERGES,
    },
  }
}

/** Weights by their names in a Hugging Face folder; the model says `says`. */
export function weights(says: number): Tensors {
  let state = 7
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32 - 0.5
  }
  const of = (shape: number[], value: (i: number) => number) => ({
    shape,
    values: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => value(i)),
  })
  const [some, none, one] = [() => random(), () => 0, () => 1]
  const layer = 'model.layers.0.'
  return {
    'model.embed_tokens.weight': of([VOCABULARY, HIDDEN], () => 1 + random() / 100),
    [`${layer}input_layernorm.weight`]: of([HIDDEN], one),
    [`${layer}post_attention_layernorm.weight`]: of([HIDDEN], one),
    [`${layer}self_attn.q_proj.weight`]: of([64, HIDDEN], some),
    [`${layer}self_attn.k_proj.weight`]: of([32, HIDDEN], some),
    [`${layer}self_attn.v_proj.weight`]: of([32, HIDDEN], some),
    [`${layer}self_attn.o_proj.weight`]: of([HIDDEN, 64], none),
    [`${layer}mlp.gate_proj.weight`]: of([WIDTH, HIDDEN], some),
    [`${layer}mlp.up_proj.weight`]: of([WIDTH, HIDDEN], some),
    [`${layer}mlp.down_proj.weight`]: of([HIDDEN, WIDTH], none),
    'model.norm.weight': of([HIDDEN], one),
    'lm_head.weight': of([VOCABULARY, HIDDEN], (i) => {
      const row = Math.floor(i / HIDDEN)
      return row === says ? 0.2 : random() / 100
    }),
  }
}

const NAMES: [RegExp, string][] = [
  [/^model\.embed_tokens/, 'token_embd'],
  [/^model\.norm/, 'output_norm'],
  [/^lm_head/, 'output'],
  [/^model\.layers\.0\./, 'blk.0.'],
  [/input_layernorm/, 'attn_norm'],
  [/post_attention_layernorm/, 'ffn_norm'],
  [/self_attn\.([qkv])_proj/, 'attn_$1'],
  [/self_attn\.o_proj/, 'attn_output'],
  [/mlp\.(\w+)_proj/, 'ffn_$1'],
]

/** The same by their names in GGUF, rows of queries and keys in the order that it has. */
export function ggufWeights(says: number): Tensors {
  const out: Tensors = {}
  for (const [name, { shape, values }] of Object.entries(weights(says))) {
    const own = NAMES.reduce((text, [from, to]) => text.replace(from, to), name)
    const heads = { 'blk.0.attn_q.weight': 4, 'blk.0.attn_k.weight': 2 }[own]
    out[own] = { shape, values: heads === undefined ? values : interleaved(values, heads) }
  }
  return out
}

/** Rows of each head from halves to pairs. */
function interleaved(values: Float32Array, heads: number): Float32Array {
  const out = new Float32Array(values.length)
  const size = values.length / HIDDEN / heads
  for (let row = 0; row < heads * size; row++) {
    const [head, r] = [Math.floor(row / size), row % size]
    const from = head * size + (r % 2) * (size / 2) + Math.floor(r / 2)
    out.set(values.subarray(from * HIDDEN, (from + 1) * HIDDEN), row * HIDDEN)
  }
  return out
}

/** Metadata of the GGUF file; `changes` replace or, as null, take away entries. */
export function metadata(changes: Record<string, Value | null> = {}, tokens = TOKENS): Metadata {
  const all: Record<string, Value | null> = {
    'general.architecture': { string: 'llama' },
    'llama.block_count': { u32: 1 },
    'llama.context_length': { u32: 256 },
    'llama.embedding_length': { u32: HIDDEN },
    'llama.feed_forward_length': { u32: WIDTH },
    'llama.attention.head_count': { u32: 4 },
    'llama.attention.head_count_kv': { u32: 2 },
    'llama.attention.layer_norm_rms_epsilon': { f32: 1e-5 },
    'llama.rope.freq_base': { f32: 10000 },
    'llama.rope.dimension_count': { u32: 16 },
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: 'smollm' },
    'tokenizer.ggml.tokens': { strings: tokens },
    'tokenizer.ggml.token_type': { i32s: tokens.map((_, id) => (id < 3 ? 3 : 1)) },
    'tokenizer.ggml.merges': { strings: MERGES },
    'tokenizer.ggml.eos_token_id': { u32: 0 },
    ...changes,
  }
  return Object.fromEntries(Object.entries(all).flatMap(([k, v]) => (v === null ? [] : [[k, v]])))
}

/** The entries of a tokenizer of SentencePiece with byte tokens. */
export function pieces(): Record<string, Value | null> {
  const bytes = Array.from({ length: 256 }, (_, b) => {
    const hex = b.toString(16).toUpperCase().padStart(2, '0')
    return `<0x${hex}>`
  })
  const texts = [
    '▁',
    'a',
    'd',
    'e',
    'w',
    'n',
    'y',
    'ew',
    '▁n',
    '▁new',
    '▁day',
    'ay',
    '▁d',
    't',
    'h',
  ]
  const more = [
    'he',
    '▁t',
    '▁the',
    'i',
    's',
    'is',
    '▁is',
    'r',
    'o',
    'l',
    'or',
    '▁w',
    'A',
    '▁A',
    '.',
  ]
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...texts, ...more]
  while (tokens.length < VOCABULARY) tokens.push(`▁x${tokens.length}`)
  const type = (token: string, id: number) => [2, 3, 3][id] ?? (token.startsWith('<0x') ? 6 : 1)
  return {
    'tokenizer.ggml.model': { string: 'llama' },
    'tokenizer.ggml.pre': { string: 'default' },
    'tokenizer.ggml.tokens': { strings: tokens },
    'tokenizer.ggml.token_type': { i32s: tokens.map(type) },
    'tokenizer.ggml.scores': {
      f32s: tokens.map((token, id) => (id < 259 ? 0 : -id + token.length)),
    },
    'tokenizer.ggml.merges': null,
    'tokenizer.ggml.bos_token_id': { u32: 1 },
    'tokenizer.ggml.eos_token_id': { u32: 2 },
    'tokenizer.ggml.add_bos_token': { bool: true },
  }
}
