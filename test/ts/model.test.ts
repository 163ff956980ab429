import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { HalfstepError, Model, quantize, recipes } from '../../ts/src/index.js'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const folder = temporaryFolder()
const [path, text] = [tinyModel(folder), tinyText(folder)]

describe('Model.load', () => {
  it('reads a Hugging Face folder and tells what is in it', async () => {
    const found = (await Model.load(path)).inspect()
    expect(found).toMatchObject({
      vocabSize: 256,
      hiddenSize: 64,
      layers: 2,
      heads: 2,
      kvHeads: 1,
      headDim: 32,
      tiedHead: true,
      target: null,
    })
    expect(found.parameters).toBeGreaterThan(80_000)
    expect(found.tensorTypes).toEqual({ F32: 20 })
  })

  it.each([
    ['absent.gguf', 'ERR_IO'],
    ['corpus.txt', 'ERR_FORMAT'],
  ])('refuses %s with %s, naming the file', async (name, code) => {
    const error = await Model.load(join(folder, name)).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(HalfstepError)
    expect(error).toMatchObject({ code })
    expect((error as Error).message).toContain(name)
  })

  it('refuses bytes that are no model, under the name given', async () => {
    const error = await Model.load(new Uint8Array([71, 71, 85, 70, 3, 0]), {
      name: 'short.gguf',
    }).catch((e: unknown) => e)
    expect(error).toMatchObject({ code: 'ERR_FORMAT', details: { file: 'short.gguf' } })
  })

  it.each([[undefined], [null], [7], [{}]])('refuses %s as a source', async (source) => {
    await expect(Model.load(source as unknown as string)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      details: { field: 'source' },
    })
  })

  it('takes a file: URL and fetches nothing', async () => {
    expect((await Model.load(pathToFileURL(path))).inspect().layers).toBe(2)
    await expect(Model.load(new URL('https://example.com/m.gguf'))).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('download'),
    })
  })

  it('ends the wait when its signal aborts', async () => {
    const reason = new Error('enough')
    const error = await Model.load(path, { signal: AbortSignal.abort(reason) }).catch(
      (e: unknown) => e,
    )
    expect(error).toMatchObject({ code: 'ERR_CANCELLED', cause: reason })
  })
})

describe('a model', () => {
  it('measures a text, the same whatever the number of threads', async () => {
    const model = await Model.load(path)
    const progress: number[] = []
    const one = await model.evaluate(
      { data: text, tokens: 256, sequenceLength: 64, threads: 1 },
      { onProgress: (done) => progress.push(done) },
    )
    const two = await model.evaluate({
      text: readFileSync(text, 'utf8'),
      tokens: 256,
      sequenceLength: 64,
      threads: 2,
    })
    expect(one.predictions).toBe(252)
    expect(one.perplexity).toBeCloseTo(Math.exp(one.meanNll), 6)
    expect({ ...two, tokensPerSecond: 0 }).toEqual({ ...one, tokensPerSecond: 0 })
    expect(one.kl).toBeNull()
    expect(progress.at(-1)).toBe(256)
  })

  it('is at KL 0 and full agreement with itself', async () => {
    const model = await Model.load(path)
    const record = await model.evaluate(
      { data: text, tokens: 128, sequenceLength: 64 },
      { against: model },
    )
    expect(record.kl).toBe(0)
    expect(record.top1Agreement).toBe(1)
  })

  it('continues several prompts at once with the texts each gives alone', async () => {
    const model = await Model.load(path)
    const options = { maxTokens: 9, temperature: 0.8, seed: 5 }
    const prompts = ['a', 'ab ab', 'b']
    const all = await model.generateAll(prompts, options)
    const alone = await Promise.all(
      prompts.map((prompt) => model.generate({ ...options, prompt }).result),
    )
    expect(all.map(({ text, tokens, promptTokens }) => ({ text, tokens, promptTokens }))).toEqual(
      alone.map(({ text, tokens, promptTokens }) => ({ text, tokens, promptTokens })),
    )
    expect(await model.generateAll([])).toEqual([])
    await expect(model.generateAll([''], options)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  })

  it('generates the same text for the same seed, piece by piece and whole', async () => {
    const model = await Model.load(path)
    const options = { prompt: 'the half ', maxTokens: 24, temperature: 1, seed: 3 }
    const stream = model.generate(options)
    let pieces = ''
    for await (const piece of stream) pieces += piece
    const whole = await stream.result
    expect(pieces).toBe(whole.text)
    expect(whole.tokens).toHaveLength(24)
    expect(whole.promptTokens).toBe(9)
    expect((await model.generate(options).result).tokens).toEqual(whole.tokens)
    expect((await model.generate({ ...options, seed: 4 }).result).tokens).not.toEqual(whole.tokens)
  })

  it('stops generating when the loop is left', async () => {
    const stream = (await Model.load(path)).generate({ prompt: 'a', maxTokens: 500 })
    for await (const _ of stream) break
    await expect(stream.result).rejects.toMatchObject({ code: 'ERR_CANCELLED' })
  })

  it('says which option is wrong', async () => {
    const model = await Model.load(path)
    await expect(
      model.evaluate({ data: text, sequenceLenght: 64 } as object),
    ).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      details: { field: 'sequenceLenght' },
    })
    await expect(model.evaluate({ data: text, sequenceLenght: 64 } as object)).rejects.toThrow(
      'did you mean sequenceLength?',
    )
    await expect(model.evaluate({ data: text, tokens: Number.NaN })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      details: { field: 'tokens' },
    })
    await expect(model.evaluate({ text: '' })).rejects.toMatchObject({ code: 'ERR_DATA' })
    await expect(model.evaluate({})).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    await expect(model.evaluate()).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    await expect(model.evaluate({ text: 'to be' })).rejects.toMatchObject({ code: 'ERR_DATA' })
    await expect(model.evaluate({ data: text, sequenceLength: 1 })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      details: { field: 'sequenceLength' },
    })
  })

  it('cannot be used after dispose, which can be called twice', async () => {
    const model = await Model.load(path)
    const running = model.evaluate({ data: text, tokens: 256, sequenceLength: 64 })
    model.dispose()
    model.dispose()
    expect((await running).predictions).toBe(252)
    expect(() => model.inspect()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
    await expect(model.save(join(folder, 'never.gguf'))).rejects.toMatchObject({
      code: 'ERR_DISPOSED',
    })
    expect(existsSync(join(folder, 'never.gguf'))).toBe(false)
  })
})

describe('Model.save', () => {
  it.each([
    ['gguf:q4_0', 'small.gguf'],
    ['gguf:q8_0', 'small8.gguf'],
    ['halfstep', 'small.safetensors'],
  ] as const)('writes %s, which reads back as the same model', async (target, name) => {
    const { model } = await quantize(await Model.load(path), recipes.rtn({ target })).result
    const file = join(folder, name)
    const saved = await model.save(file)
    expect(saved).toEqual({ path: file, bytes: statSync(file).size, parity: true })
    const again = await Model.load(file)
    expect(again.inspect().target).toBe(target)
    const config = { data: text, tokens: 128, sequenceLength: 64 }
    expect((await again.evaluate(config, { against: model })).kl).toBe(0)
    const fromBytes = await Model.load(await model.toBytes(), { name })
    expect((await fromBytes.evaluate(config)).meanNll).toBe((await model.evaluate(config)).meanNll)
  })

  it('leaves nothing where it cannot write', async () => {
    const model = await Model.load(path)
    const file = join(folder, 'no such folder', 'small.gguf')
    await expect(model.save(file)).rejects.toMatchObject({ code: 'ERR_IO' })
    expect(existsSync(file)).toBe(false)
  })
})
