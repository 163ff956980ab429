// llama.cpp on what we write of the inputs that users have met: it stops where we stop, splits texts
// as we do, and its perplexity by the rule of its own tool is ours.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { getLlama, type Llama, LlamaLogLevel, type Token } from 'node-llama-cpp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Model, quantize, recipes } from '../../ts/src/index.js'
import { cases } from '../cases/right.js'
import { temporaryFolder } from '../ts/tiny-model.js'
import { clientLogits } from './client.js'

const root = join(import.meta.dirname, '../..')
const folder = temporaryFolder()
const { inputs } = cases(folder)
const loaded = inputs.filter(({ refused }) => refused === undefined)
const SAMPLE =
  "The gardener's beans: 12, 345. It's a new day. Gr\u00fc\u00dfe, na\u00efve caf\u00e9.\n\n"

let llama: Llama
let stops = 0
let tokenized = 0
beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error })
})
afterAll(async () => {
  await llama?.dispose()
  console.log(`client: ${stops} end tokens stop it, ${tokenized} tokenizers split as ours`)
})

describe('the client', () => {
  it.each(loaded)(
    'knows the end tokens and the ids of $name',
    { timeout: 120_000 },
    async (input) => {
      const model = await Model.load(input.path)
      const { model: rounded } = await quantize(model, recipes.rtn({ target: 'gguf:q8_0' })).result
      const [float, small] = [join(folder, 'float.gguf'), join(folder, 'small.gguf')]
      await model.save(float)
      await rounded.save(small)
      const { vocabSize, endTokens: ends } = model.inspect()
      const ours = await model.tokenize(SAMPLE)
      model.dispose()
      rounded.dispose()
      for (const file of [float, small]) {
        const made = await Model.load(file)
        const { endTokens } = made.inspect()
        made.dispose()
        const client = await llama.loadModel({ modelPath: file, vocabOnly: true })
        const all = Array.from({ length: vocabSize }, (_, id) => id)
        const theirs = all.filter((id) => client.isEogToken(id as Token))
        // The space that these tokenizers put before a text is trimmed for others.
        const option = input.name.includes('spm') ? undefined : 'trimLeadingSpace'
        const ids = Array.from(client.tokenize(SAMPLE, false, option))
        await client.dispose()
        expect(theirs).toEqual(endTokens)
        expect(theirs).toEqual(expect.arrayContaining(ends))
        expect(ids).toEqual(ours)
        stops += endTokens.length
      }
      tokenized++
    },
  )
})

describe('perplexity by the windows of llama.cpp', () => {
  /** The rule of tools/perplexity, written once more from its source. */
  async function byTheTool(
    file: string,
    model: Model,
    text: string,
    length: number,
    windows: number,
  ) {
    const begin = await model.tokenize('', { special: true })
    const ids = [...begin, ...(await model.tokenize(text.replace(/\n$/, '')))]
    const chunks = Array.from({ length: windows }, (_, i) => {
      const chunk = ids.slice(i * length, (i + 1) * length)
      return begin.length > 0 ? [...begin, ...chunk.slice(1)] : chunk
    })
    const vocabulary = model.inspect().vocabSize
    const logits = await clientLogits(llama, file, chunks, vocabulary)
    let [nll, count] = [0, 0]
    const first = Math.floor(length / 2)
    chunks.forEach((chunk, c) => {
      for (let i = first; i < length - 1; i++) {
        const row = logits[c]?.subarray(i * vocabulary, (i + 1) * vocabulary) ?? new Float32Array()
        const largest = row.reduce((a, b) => Math.max(a, b))
        const sum = row.reduce((all, logit) => all + Math.exp(logit - largest), 0)
        nll += Math.log(sum) + largest - (row[chunk[i + 1] ?? -1] ?? Number.NaN)
        count++
      }
    })
    return { perplexity: Math.exp(nll / count), count }
  }

  const FOLDERS = { 'without a begin token': 'assets/demo', 'with one': 'test/golden/arch/llama' }
  it.each(Object.entries(FOLDERS))('%s', { timeout: 300_000 }, async (name, path) => {
    const source = await Model.load(join(root, path))
    const model = await source.dequantize()
    const file = join(folder, `${name}.gguf`)
    await model.save(file)
    const data = join(root, 'assets/demo-eval.txt')
    const [sequenceLength, windows] = [Math.min(64, model.inspect().maxPositions), 4]
    const ours = await model.evaluate({
      data,
      sequenceLength,
      windows: 'llama.cpp',
      tokens: windows * sequenceLength,
    })
    const text = readFileSync(data, 'utf8')
    const theirs = await byTheTool(file, model, text, sequenceLength, windows)
    console.log(
      `${name}: perplexity ${ours.perplexity.toFixed(4)}, by the client ${theirs.perplexity.toFixed(4)}`,
    )
    expect(ours.predictions).toBe(theirs.count)
    expect(ours.reading).toMatchObject({ windows: 'llama.cpp' })
    expect((ours.reading?.beginToken ?? null) !== null).toBe(name === 'with one')
    expect(Math.abs(ours.perplexity / theirs.perplexity - 1)).toBeLessThan(1e-3)
    // It is another number than that of whole windows.
    const whole = await model.evaluate({ data, sequenceLength, tokens: windows * sequenceLength })
    expect(Math.abs(whole.perplexity / theirs.perplexity - 1)).toBeGreaterThan(1e-3)
    source.dispose()
    model.dispose()
  })
})
