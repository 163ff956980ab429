/**
 * A number that is printed means what it says: models that are compared have the same tokens, and how
 * a text was read is said with every figure and in the file.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { Model, quantize, recipes } from '../../ts/src/index.js'
import { gguf, safetensors } from '../cases/files.js'
import { LETTER } from '../cases/make.js'
import {
  CONFIG,
  ggufWeights,
  metadata,
  pieces,
  TOKENS,
  tokenizerJson,
  weights,
} from '../cases/model.js'
import { temporaryFolder } from './tiny-model.js'

const cli = fileURLToPath(new URL('../../ts/dist/cli.js', import.meta.url))
const folder = temporaryFolder()
const TEXT = "The gardener plants beans in spring. It's a new day. ".repeat(20)
const data = join(folder, 'text.txt')
writeFileSync(data, TEXT)
let pairs = 0
let figures = 0
afterAll(() =>
  console.log(`meaning: ${pairs} pairs of models, ${figures} figures with their rules`),
)

/** A folder of the model with the tokens. */
function folderOf(
  name: string,
  tokens: readonly string[] | null,
  rows = CONFIG.vocab_size,
): string {
  const path = join(folder, name)
  mkdirSync(path)
  const of = { ...CONFIG, vocab_size: rows }
  const all = weights(LETTER)
  for (const key of ['model.embed_tokens.weight', 'lm_head.weight']) {
    const { values } = all[key] ?? { values: new Float32Array() }
    const padded = new Float32Array(rows * CONFIG.hidden_size)
    padded.set(values)
    all[key] = { shape: [rows, CONFIG.hidden_size], values: padded }
  }
  writeFileSync(join(path, 'config.json'), JSON.stringify(of))
  writeFileSync(join(path, 'model.safetensors'), safetensors(all))
  if (tokens !== null)
    writeFileSync(join(path, 'tokenizer.json'), JSON.stringify(tokenizerJson(tokens)))
  return path
}

function fileOf(name: string, bytes: Uint8Array): string {
  writeFileSync(join(folder, name), bytes)
  return join(folder, name)
}

const swapped = [...TOKENS]
;[swapped[40], swapped[50]] = [TOKENS[50] ?? '', TOKENS[40] ?? '']
const plain = folderOf('plain', TOKENS)
const more = [...TOKENS, ...Array.from({ length: 20 }, (_, i) => `[PAD${300 + i}]`)]
const padding = { strings: more }
const types = { i32s: more.map((_, id) => (id < 3 ? 3 : id < 300 ? 1 : 5)) }
const wide = Object.fromEntries(
  Object.entries(ggufWeights(LETTER)).map(([name, { shape, values }]) => {
    if (name !== 'token_embd.weight' && name !== 'output.weight') return [name, { shape, values }]
    const padded = new Float32Array(320 * CONFIG.hidden_size)
    padded.set(values)
    return [name, { shape: [320, CONFIG.hidden_size], values: padded }]
  }),
)

const PAIRS: [string, string, string, RegExp | null][] = [
  ['itself', plain, plain, null],
  ['its GGUF', plain, fileOf('same.gguf', gguf(metadata(), ggufWeights(LETTER))), null],
  [
    'a GGUF with names for padding rows',
    folderOf('padded', TOKENS, 320),
    fileOf(
      'padded.gguf',
      gguf(
        { ...metadata(), 'tokenizer.ggml.tokens': padding, 'tokenizer.ggml.token_type': types },
        wide,
      ),
    ),
    null,
  ],
  [
    'permuted tokens',
    plain,
    folderOf('swapped', swapped),
    /id 40 is "." in swapped and "." in plain; only models with the same vocabulary/,
  ],
  [
    'another tokenizer',
    plain,
    fileOf('pieces.gguf', gguf(metadata(pieces()), ggufWeights(LETTER))),
    /id 0 is "<unk>" in pieces and "<\|endoftext\|>" in plain/,
  ],
  ['more rows', plain, folderOf('rows', TOKENS, 320), /its vocabulary has 320 tokens, that of the/],
  ['no tokenizer', plain, folderOf('mute', null), /mute has no tokenizer/],
]

describe('models are compared', () => {
  it.each(PAIRS)('with %s', async (_, one, other, refused) => {
    const [model, against] = [await Model.load(one), await Model.load(other)]
    const record = model.evaluate({ data, sequenceLength: 64 }, { against })
    const printed = spawnSync(
      process.execPath,
      [cli, 'eval', one, '--against', other, '--data', data, '--sequence-length', '64'],
      { encoding: 'utf8' },
    )
    if (refused === null) {
      expect((await record).kl).toBeGreaterThanOrEqual(0)
      expect([printed.status, printed.stdout.includes('KL, nats')]).toEqual([0, true])
    } else {
      const error = await record.catch((error: unknown) => error)
      expect(error).toMatchObject({ code: 'ERR_CONFIG', details: { field: 'against' } })
      expect((error as Error).message).toMatch(refused)
      expect(printed.status).toBe(1)
      expect(printed.stderr.replaceAll('\n', ' ')).toMatch(refused)
      expect(printed.stdout).not.toContain('KL, nats')
    }
    model.dispose()
    against.dispose()
    pairs++
  })
})

describe('how a text is read', () => {
  const CHAT = join(folder, 'chat.jsonl')
  const turn = { role: 'user', content: 'A new day <|im_end|>' }
  const answer = { role: 'assistant', content: 'begins.' }
  const line = JSON.stringify({ messages: [turn, answer] })
  writeFileSync(CHAT, Array.from({ length: 20 }, () => line).join('\n'))
  const TEMPLATE =
    '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}'

  it('is said with an evaluation, in text and JSON', async () => {
    const run = (...args: string[]) =>
      spawnSync(
        process.execPath,
        [cli, 'eval', plain, '--data', data, '--sequence-length', '64', ...args],
        { encoding: 'utf8' },
      ).stdout
    for (const [args, notes] of [
      [[], ['the tokenizer adds none (auto)', 'read as plain text (auto)', 'chat: none']],
      [['--special', 'on'], ['read as tokens (on)']],
      [['--windows', 'llama.cpp'], ['windows: 64 tokens, the last 31 of each scored (llama.cpp)']],
    ] as const) {
      for (const note of notes) expect(run(...args)).toContain(note)
      const { reading } = JSON.parse(run(...args, '--json'))
      expect(reading.notes.join('\n')).toContain(notes[0])
      expect(reading).toMatchObject({ beginToken: null, chat: false, answersOnly: false })
      figures++
    }
  })

  it('is said of conversations, with a warning of tokens that messages spell out', async () => {
    writeFileSync(join(plain, 'chat_template.jinja'), TEMPLATE)
    const model = await Model.load(plain)
    const read = async (special?: 'on') =>
      (await model.evaluate({ data: CHAT, sequenceLength: 64, ...(special && { special }) }))
        .reading
    const auto = await read()
    expect(auto).toMatchObject({ chat: true, special: true })
    expect(auto?.warnings.join()).toMatch(/messages spell out special tokens \(20, first <\|im_end/)
    expect((await read('on'))?.warnings).toEqual([])
    const windows = { data: CHAT, sequenceLength: 64, windows: 'llama.cpp' } as const
    await expect(model.evaluate(windows)).rejects.toThrow(/windows: must be sequences for conv/)
    model.dispose()
    figures += 2
  })

  it.each(['rtn', 'silq'] as const)('is said and stored by a run of %s', async (name) => {
    const model = await Model.load(plain)
    const train = { tokens: 256, sequenceLength: 32, batch: 2 }
    const recipe =
      name === 'rtn'
        ? recipes.rtn({ target: 'gguf:q8_0' })
        : recipes.silq({ target: 'gguf:q8_0', train })
    const options = { validation: data, ...(name === 'silq' ? { data: CHAT } : {}) }
    const { model: small, report } = await quantize(model, recipe, options).result
    for (const record of Object.values(report.evaluations)) {
      expect(record.reading?.notes).toHaveLength(3)
      figures++
    }
    const file = join(folder, `${name}.gguf`)
    await small.save(file)
    const again = await Model.load(file)
    const { provenance } = again.inspect()
    const [chat, special] = name === 'silq' ? ['on', 'on'] : ['off', 'off']
    expect(provenance).toMatchObject({ bos: 'off', special, chat })
    expect(provenance.validation).toMatch(/^begin token: none.*; special tokens: .*; chat: none/)
    expect(provenance.metrics).not.toContain('reading')
    for (const used of [model, small, again]) used.dispose()
  })
})
