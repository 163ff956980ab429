// Tiny models as folders of their own, and for one that no GGUF file holds, the nearest that one
// does.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** What is read of a config.json here. */
export interface Config {
  model_type: string
  hidden_size: number
  num_attention_heads: number
  num_hidden_layers: number
  head_dim?: number
  layer_types?: string[]
  query_pre_attn_scalar?: number
  sliding_window?: number | null
  use_qk_norm?: boolean
  max_position_embeddings: number
}

/** Rows of the safetensors header. */
interface Described {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

type Tensors = Map<string, { dtype: string; shape: number[]; bytes: Uint8Array }>

const CONFIG = 'config.json'
const WEIGHTS = 'model.safetensors'
const OTHERS = ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json']

export function configOf(folder: string): Config {
  return JSON.parse(readFileSync(join(folder, CONFIG), 'utf8'))
}

/**
 * Fields of a config.json that readers of GGUF files do not heed, by what llama.cpp computes for
 * the family: a file of such a model must be refused by one of these names.
 */
export function unheeded(config: Config): string[] {
  const { model_type: type, num_hidden_layers: layers, sliding_window: window } = config
  const width = config.hidden_size / config.num_attention_heads
  const fields: [string, boolean][] = [
    [
      'sliding_window',
      type === 'exaone4'
        ? Boolean(window) !== (layers === 64)
        : Boolean(window) &&
          (type === 'mistral' ||
            (type === 'phi3' && Number(window) < config.max_position_embeddings)),
    ],
    ['use_qk_norm', type === 'cohere' && Boolean(config.use_qk_norm) !== layers >= 64],
    [
      'head_dim',
      ['cohere', 'cohere2', 'exaone4', 'nemotron', 'olmo2', 'olmo3', 'qwen2', 'stablelm'].includes(
        type,
      ) && (config.head_dim ?? width) !== width,
    ],
    [
      'query_pre_attn_scalar',
      type.startsWith('gemma') &&
        config.query_pre_attn_scalar !== undefined &&
        config.query_pre_attn_scalar !== config.head_dim,
    ],
  ]
  return fields.filter(([, other]) => other).map(([name]) => name)
}

/**
 * Copies a model without its golden numbers. The copy's name goes into GGUF files, and llama.cpp
 * asks one that is called after Phi-3 for the tokens of Phi-3.
 */
export function copyModel(from: string, to: string): void {
  mkdirSync(to, { recursive: true })
  for (const file of [CONFIG, WEIGHTS, ...OTHERS]) copyFileSync(join(from, file), join(to, file))
}

/** Changes a model in place into the nearest one without what a field says. */
export function without(folder: string, field: string): void {
  const config = configOf(folder)
  const tensors = readTensors(join(folder, WEIGHTS))
  if (field === 'sliding_window') {
    config.sliding_window = null
    config.layer_types = config.layer_types?.map(() => 'full_attention')
  } else if (field === 'use_qk_norm') {
    config.use_qk_norm = false
    for (const name of tensors.keys()) if (/\.[qk]_norm\./.test(name)) tensors.delete(name)
  } else if (field === 'query_pre_attn_scalar') {
    config.query_pre_attn_scalar = config.head_dim
  } else if (field === 'head_dim') {
    const width = config.hidden_size / config.num_attention_heads
    narrow(tensors, config.head_dim ?? width, width)
    config.head_dim = width
  } else throw new Error(`no nearest model without ${field}`)
  writeFileSync(join(folder, CONFIG), JSON.stringify(config))
  writeTensors(join(folder, WEIGHTS), tensors)
}

/** Cuts the end of each head off: rows of queries, keys and values, columns of the output. */
function narrow(tensors: Tensors, from: number, to: number): void {
  for (const [name, { dtype, shape, bytes }] of tensors) {
    const element = bytes.length / shape.reduce((product, size) => product * size, 1)
    const columns = shape[1] ?? 1
    const isOutput = /\.o_proj\.weight$/.test(name)
    if (!isOutput && !/\.[qkv]_proj\./.test(name)) continue
    const head = element * (isOutput ? from : from * columns)
    const kept = element * (isOutput ? to : to * columns)
    const out = new Uint8Array((bytes.length / head) * kept)
    for (let i = 0; i * head < bytes.length; i++)
      out.set(bytes.subarray(i * head, i * head + kept), i * kept)
    const [rows = 0] = shape
    const cut = (size: number) => (size / from) * to
    tensors.set(name, {
      dtype,
      shape: isOutput ? [rows, cut(columns)] : [cut(rows), ...shape.slice(1)],
      bytes: out,
    })
  }
}

function readTensors(path: string): Tensors {
  const file = readFileSync(path)
  const start = 8 + Number(file.readBigUInt64LE(0))
  const header: Record<string, Described> = JSON.parse(file.toString('utf8', 8, start))
  const tensors: Tensors = new Map()
  for (const [name, { dtype, shape, data_offsets: [from, to] = [0, 0] }] of Object.entries(header))
    if (name !== '__metadata__')
      tensors.set(name, { dtype, shape, bytes: file.subarray(start + from, start + to) })
  return tensors
}

function writeTensors(path: string, tensors: Tensors): void {
  const header: Record<string, Described> = {}
  let offset = 0
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] }
    offset += bytes.length
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  writeFileSync(path, Buffer.concat([length, json, ...[...tensors.values()].map((t) => t.bytes)]))
}
