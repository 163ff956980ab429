/**
 * Inputs that users of such tools have met, each named by the number of its kind: `makeInputs`
 * writes them into a folder. Nothing of it is stored, so that all of them together cost no bytes.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gguf, safetensors, type Tensors, type Value } from './files.js'
import {
  CONFIG,
  ggufWeights,
  MERGES,
  metadata,
  pieces,
  TOKENS,
  tokenizerJson,
  weights,
} from './model.js'

type Content = string | Uint8Array | object | null
type Files = Record<string, Content>

const KEY = 'tokenizer.ggml.'
const MARK = Buffer.from('\ufeff')
/** What the models say that should not stop: an ordinary letter. */
export const LETTER = TOKENS.indexOf('a')

const LFS = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 139834\n`
const SIDE = { eos_token: '<|endoftext|>', tokenizer_class: 'PreTrainedTokenizerFast' }

/** The files of a sound folder whose model says `says`, with changes; null takes a file away. */
function folderOf(changes: Files = {}, says = LETTER): Files {
  return {
    'config.json': CONFIG,
    'tokenizer.json': tokenizerJson(),
    'tokenizer_config.json': SIDE,
    'model.safetensors': safetensors(weights(says)),
    ...changes,
  }
}

/** Tokens with other names for the first three. */
const named = (...names: string[]) => [...names, ...TOKENS.slice(names.length)]

function without(tensors: Tensors, ...names: string[]): Tensors {
  return Object.fromEntries(Object.entries(tensors).filter(([name]) => !names.includes(name)))
}

function ggufOf(changes: Record<string, Value | null> = {}, tokens = TOKENS, says = LETTER) {
  return gguf(metadata(changes, tokens), ggufWeights(says))
}

/** Byte types in place of floats, as other quantizers write them. */
function withBytes(): Uint8Array {
  const name = 'model.layers.0.self_attn.q_proj.weight'
  const file = Buffer.from(safetensors(weights(LETTER)))
  const length = Number(file.readBigUInt64LE())
  const header = JSON.parse(file.subarray(8, 8 + length).toString())
  const data = file.subarray(8 + length)
  const [begin, end] = header[name].data_offsets
  const size = (end - begin) / 4
  let at = 0
  const parts: Uint8Array[] = []
  for (const [key, entry] of Object.entries<{ dtype: string; data_offsets: number[] }>(header)) {
    const [from = 0, to = 0] = entry.data_offsets
    const bytes = key === name ? data.subarray(from, from + size) : data.subarray(from, to)
    if (key === name) entry.dtype = 'I8'
    entry.data_offsets = [at, at + bytes.length]
    at += bytes.length
    parts.push(bytes)
  }
  const json = Buffer.from(JSON.stringify(header))
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([prefix, json, ...parts])
}

/** The two files of a split model. */
function split(): [Uint8Array, Uint8Array] {
  const all = Object.entries(ggufWeights(LETTER))
  const count: Record<string, Value> = {
    'split.count': { u32: 2 },
    'split.tensors.count': { i32: all.length },
  }
  const first = Object.fromEntries(all.slice(0, 5))
  const rest = Object.fromEntries(all.slice(5))
  return [
    gguf({ ...metadata(), 'split.no': { u32: 0 }, ...count }, first),
    gguf({ 'split.no': { u32: 1 }, ...count }, rest),
  ]
}

function utf16(text: string, big = false): Uint8Array {
  const bytes = Buffer.from(`\ufeff${text}`, 'utf16le')
  return big ? bytes.swap16() : bytes
}

const vocab = Object.fromEntries(TOKENS.map((token, id) => [token, id]))
const merges = `#version: 0.2\n${MERGES.join('\n')}\n`
const slow = (changes: Files = {}) =>
  folderOf({
    'tokenizer.json': null,
    'tokenizer_config.json': { ...SIDE, tokenizer_class: 'GPT2Tokenizer' },
    'vocab.json': vocab,
    'merges.txt': merges,
    ...changes,
  })
const tied = (changes: Files = {}) =>
  folderOf({ 'config.json': { ...CONFIG, tie_word_embeddings: true }, ...changes })
const noWeights = (changes: Files) => folderOf({ 'model.safetensors': null, ...changes })

/** Every input: a folder of files, or a file. */
function inputs(): Record<string, Files | Uint8Array> {
  const over = named('<|endoftext|>', '<|begin|>', '<|over|>')
  const four = named('<one>', '<two>', '<three>', '<four>')
  const list = { 'generation_config.json': { eos_token_id: [0, 2] } }
  const [first, second] = split()
  const special = tokenizerJson(TOKENS, [0, 1, 2, 299])
  return {
    plain: folderOf(),
    '01_eos_list': folderOf(list, 2),
    '01_eos_list_eos': folderOf(list, 0),
    '01_eos_list_config': folderOf({ 'config.json': { ...CONFIG, eos_token_id: [0, 2] } }, 2),
    '01_eos_wrapped': folderOf(
      { 'config.json': { ...CONFIG, text_config: { ...CONFIG, eos_token_id: [0, LETTER] } } },
      LETTER,
    ),
    '01_eos_special_map': folderOf(
      { 'tokenizer_config.json': null, 'special_tokens_map.json': { eos_token: '<|im_end|>' } },
      2,
    ),
    '01_eos_four_unusual': folderOf(
      {
        'tokenizer.json': tokenizerJson(four, [0, 1, 2, 3]),
        'tokenizer_config.json': { eos_token: '<one>' },
        'generation_config.json': { eos_token_id: [0, 1, 2, 3] },
      },
      3,
    ),
    '01_eot.gguf': ggufOf({ [`${KEY}eot_token_id`]: { u32: 2 } }, TOKENS, 2),
    '01_eot_named.gguf': ggufOf(
      { [`${KEY}eot_token_id`]: { u32: 2 }, [`${KEY}fim_pre_token_id`]: { u32: 1 } },
      over,
      2,
    ),
    '01_eom_alone.gguf': ggufOf({ [`${KEY}eom_token_id`]: { i32: 2 } }, over, 2),
    '01_eot_is_eos.gguf': ggufOf(
      { [`${KEY}eot_token_id`]: { u32: 0 } },
      named('<|fin|>', '<|begin|>', '<|over|>'),
      0,
    ),
    '01_fim_pad.gguf': ggufOf({ [`${KEY}fim_pad_token_id`]: { u32: 2 } }, over, 2),
    '02_pad_minus1.gguf': ggufOf({ [`${KEY}padding_token_id`]: { i32: -1 } }),
    '02_pad_u32.gguf': ggufOf({ [`${KEY}padding_token_id`]: { u32: 2 ** 32 - 1 } }),
    '02_bos_minus1.gguf': ggufOf({ [`${KEY}bos_token_id`]: { i64: -1 } }),
    '02_pad_config_minus1': folderOf({ 'config.json': { ...CONFIG, pad_token_id: -1 } }),
    '02_bos_config_minus1': folderOf({ 'config.json': { ...CONFIG, bos_token_id: -1 } }),
    '02_pad_generation': folderOf({ 'generation_config.json': { pad_token_id: -1 } }),
    '02_eos_minus1': folderOf({
      'config.json': { ...CONFIG, eos_token_id: -1 },
      'tokenizer_config.json': null,
    }),
    '03_slow_files': slow(),
    '03_slow_crlf': slow({ 'merges.txt': merges.replaceAll('\n', '\r\n') }),
    '03_slow_marks': slow({
      'merges.txt': `\ufeff${merges}`,
      'vocab.json': `\ufeff${JSON.stringify(vocab)}`,
    }),
    '03_slow_no_version': slow({ 'merges.txt': MERGES.join('\n') }),
    '03_slow_class_of_config': slow({
      'config.json': { ...CONFIG, tokenizer_class: 'GPT2Tokenizer' },
      'tokenizer_config.json': null,
    }),
    '03_refused_half': slow({ 'merges.txt': null }),
    '03_refused_class': slow({ 'tokenizer_config.json': SIDE }),
    '04_spm.gguf': gguf(metadata(pieces()), ggufWeights(LETTER)),
    '11_split-00001-of-00002.gguf': first,
    '11_split-00002-of-00002.gguf': second,
    '13_untied_no_head': folderOf({
      'model.safetensors': safetensors(without(weights(LETTER), 'lm_head.weight')),
    }),
    '13_tied_head_only': tied({
      'model.safetensors': safetensors(without(weights(LETTER), 'model.embed_tokens.weight')),
    }),
    '13_tied_table_only': tied({
      'model.safetensors': safetensors(without(weights(LETTER), 'lm_head.weight')),
    }),
    '13_tied.gguf': gguf(metadata(), without(ggufWeights(LETTER), 'output.weight')),
    '13_untied_no_table.gguf': gguf(metadata(), without(ggufWeights(LETTER), 'token_embd.weight')),
    '15_lfs_pointer': folderOf({ 'model.safetensors': LFS }),
    '15_lfs_tokenizer': folderOf({ 'tokenizer.json': LFS }),
    '15_lfs_config': folderOf({ 'config.json': LFS }),
    '15_lfs.gguf': Buffer.from(LFS),
    '15_page.gguf': Buffer.from('<!DOCTYPE html>\n<html><body>Sign in</body></html>\n'),
    '15_bin_only': noWeights({ 'pytorch_model.bin': Buffer.from('PK\x03\x04') }),
    '15_bin_shards': noWeights({ 'pytorch_model-00001-of-00002.bin': Buffer.from('PK\x03\x04') }),
    '15_lora': {
      'adapter_config.json': { peft_type: 'LORA', r: 4 },
      'adapter_model.safetensors': '',
    },
    '15_lora_by_name': { 'adapter_model.safetensors': '' },
    '15_lora.gguf': gguf(
      {
        'general.architecture': { string: 'llama' },
        'general.type': { string: 'adapter' },
        'adapter.type': { string: 'lora' },
      },
      {},
    ),
    '16_int8': folderOf({ 'model.safetensors': withBytes() }),
    '22_bom': folderOf(
      Object.fromEntries(
        Object.entries(folderOf()).flatMap(([name, content]) =>
          name.endsWith('.json') ? [[name, `\ufeff${JSON.stringify(content)}`]] : [],
        ),
      ),
    ),
    '22_bom_template': folderOf({
      'chat_template.jinja': '\ufeff{% for m in messages %}{{ m.content }}{% endfor %}',
    }),
    '22_mistral': folderOf({
      'config.json': {
        ...CONFIG,
        architectures: ['MistralForCausalLM'],
        model_type: 'mistral',
        sliding_window: null,
      },
    }),
    '22_refused_utf16': folderOf({ 'config.json': utf16(JSON.stringify(CONFIG)) }),
    '22_refused_utf16_be': folderOf({
      'tokenizer.json': utf16(JSON.stringify(tokenizerJson()), true),
    }),
    '22_refused_latin1': folderOf({
      'chat_template.jinja': Buffer.from('caf\xe9 {{ x }}', 'latin1'),
    }),
    '25_kv_array.gguf': ggufOf({ 'llama.attention.head_count_kv': { u32s: [2] } }),
    '25_heads_array.gguf': ggufOf({ 'llama.attention.head_count': { i32s: [4] } }),
    '25_width_array.gguf': ggufOf({ 'llama.feed_forward_length': { i32s: [96] } }),
    '25_trailing.gguf': Buffer.concat([ggufOf(), Buffer.alloc(4096, 7)]),
    '26_special_of_merge': folderOf({ 'tokenizer.json': special }),
  }
}

const bytesOf = (content: Exclude<Content, null>) =>
  typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content)

/** Writes all inputs into `folder`. */
export function makeInputs(folder: string): void {
  for (const [name, input] of Object.entries(inputs())) {
    const path = join(folder, name)
    if (input instanceof Uint8Array) {
      writeFileSync(path, input)
      continue
    }
    mkdirSync(path)
    for (const [file, content] of Object.entries(input))
      if (content !== null) writeFileSync(join(path, file), bytesOf(content))
  }
}

const SAYING =
  "The gardener plants beans in spring. Numbers: 12, 345, 6789. It's what we've done; they'll see. "
const OTHER = 'Gr\u00fc\u00dfe aus K\u00f6ln, na\u00efve caf\u00e9. '
/** What every text of `makeTexts` says that is read. */
export const DOCUMENTS = Array.from({ length: 8 }, (_, i) => (i % 2 ? OTHER : SAYING))

/** Writes texts into `folder`: those that are read say the same. */
export function makeTexts(folder: string): void {
  const objects = DOCUMENTS.map((text) => ({ text }))
  const lines = objects.map((object) => JSON.stringify(object)).join('\n')
  const plain = DOCUMENTS.join('\n\n')
  const prompts = DOCUMENTS.map((prompt) => JSON.stringify({ prompt })).join('\n')
  const texts: Record<string, string | Uint8Array> = {
    'plain.txt': plain,
    'bom.txt': Buffer.concat([MARK, Buffer.from(plain)]),
    'lines.jsonl': lines,
    'bom.jsonl': Buffer.concat([MARK, Buffer.from(lines)]),
    'crlf.jsonl': lines.replaceAll('\n', '\r\n'),
    'lines.ndjson': lines,
    'lines.json': lines,
    'array.json': JSON.stringify(objects, null, 1),
    'array.jsonl': JSON.stringify(objects),
    'strings.json': JSON.stringify(DOCUMENTS),
    'refused_array.txt': JSON.stringify(objects),
    'refused_strings.txt': JSON.stringify(DOCUMENTS),
    'refused_lines.txt': lines,
    'refused_prompts.txt': prompts,
    'refused_prompts.jsonl': prompts,
    'refused_plain.jsonl': plain,
    'refused_utf16.txt': utf16(plain),
    'refused_utf16_be.jsonl': utf16(lines, true),
    'refused_utf16_unmarked.txt': utf16(plain).subarray(2),
    'refused_latin1.txt': Buffer.from(plain, 'latin1'),
    'refused_gzip.txt': Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]),
    'refused_parquet.txt': Buffer.from('PAR1 and so on'),
    'refused_pdf.txt': Buffer.from('%PDF-1.7\n'),
    'refused_page.txt': '<!doctype html><html><body>Sign in</body></html>',
    'refused_lfs.txt': LFS,
    'chat.txt': DOCUMENTS.map((text) => `<|im_start|>user\n${text}<|im_end|>\n`).join(''),
  }
  for (const [name, content] of Object.entries(texts)) writeFileSync(join(folder, name), content)
}
