/**
 * A Llama-shaped model of random weights and 256 byte tokens in a folder of its own: small enough
 * that a whole training run takes about a second.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'

const SHAPE = {
  vocab: 256,
  hidden: 64,
  intermediate: 128,
  layers: 2,
  heads: 2,
  kvHeads: 1,
  headDim: 32,
}

/** A folder that is removed when the tests of the file are done. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'halfstep-test-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Numbers from -1 to 1, the same every time. */
function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  }
}

/** The model as a Hugging Face folder of its own below `parent`, where outputs may not lie. */
export function tinyModel(parent: string): string {
  const folder = join(parent, 'model')
  mkdirSync(folder)
  const { vocab, hidden, intermediate, layers, heads, kvHeads, headDim } = SHAPE
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
    hidden_act: 'silu',
    max_position_embeddings: 512,
  }
  const tensors: Record<string, number[]> = {
    'model.embed_tokens.weight': [vocab, hidden],
    'model.norm.weight': [hidden],
  }
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}.`
    tensors[`${at}input_layernorm.weight`] = [hidden]
    tensors[`${at}post_attention_layernorm.weight`] = [hidden]
    tensors[`${at}self_attn.q_proj.weight`] = [heads * headDim, hidden]
    tensors[`${at}self_attn.k_proj.weight`] = [kvHeads * headDim, hidden]
    tensors[`${at}self_attn.v_proj.weight`] = [kvHeads * headDim, hidden]
    tensors[`${at}self_attn.o_proj.weight`] = [hidden, heads * headDim]
    tensors[`${at}mlp.gate_proj.weight`] = [intermediate, hidden]
    tensors[`${at}mlp.up_proj.weight`] = [intermediate, hidden]
    tensors[`${at}mlp.down_proj.weight`] = [hidden, intermediate]
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  writeFileSync(join(folder, 'model.safetensors'), safetensors(tensors))
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(byteTokenizer()))
  return folder
}

/** Sentences of a small vocabulary, as a file; enough for windows of some dozens of tokens. */
export function tinyText(folder: string, name = 'corpus.txt', seed = 7): string {
  const words =
    'the half step rounds a weight to its grid and learns where each line of it should lie'.split(
      ' ',
    )
  const next = random(seed)
  const sentence = () =>
    Array.from({ length: 8 }, () => words[Math.floor(((next() + 1) / 2) * words.length)]).join(' ')
  const path = join(folder, name)
  writeFileSync(path, Array.from({ length: 200 }, () => `${sentence()}.\n`).join(''))
  return path
}

function safetensors(shapes: Record<string, number[]>): Uint8Array {
  const header: Record<string, unknown> = {}
  const next = random(1)
  const values: Float32Array[] = []
  let offset = 0
  for (const [name, shape] of Object.entries(shapes)) {
    const count = shape.reduce((a, b) => a * b, 1)
    const isNorm = shape.length === 1
    // The embedding is also the head: large enough for answers that differ from one another.
    const size = name.includes('embed') ? 0.4 : 2 / Math.sqrt(shape[1] ?? 1)
    values.push(
      Float32Array.from({ length: count }, () => (isNorm ? 1 + 0.1 * next() : size * next())),
    )
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + count * 4] }
    offset += count * 4
  }
  const json = JSON.stringify(header)
  const head = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(head.length))
  return Buffer.concat([length, head, ...values.map((v) => Buffer.from(v.buffer))])
}

/**
 * One token per byte, in the byte-level alphabet of GPT-2: printable bytes are themselves, the
 * others follow from 256 on.
 */
function byteTokenizer(): object {
  const printable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255)
  let others = 0
  const vocab = Object.fromEntries(
    Array.from({ length: 256 }, (_, byte) => [
      String.fromCodePoint(printable(byte) ? byte : 256 + others++),
      byte,
    ]),
  )
  const byteLevel = {
    type: 'ByteLevel',
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: true,
  }
  return {
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab, merges: [] },
  }
}
