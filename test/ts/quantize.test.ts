import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { type Event, Model, quantize, recipes } from '../../ts/src/index.js'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const folder = temporaryFolder()
const [path, data, validation] = [
  tinyModel(folder),
  tinyText(folder),
  tinyText(folder, 'validation.txt', 8),
]
const train = { tokens: 1024, sequenceLength: 32, batch: 4, learningRate: 1e-3 }
/** Long enough to be stopped in the middle on any machine. */
const LONG = { ...train, tokens: 10_000_000 }

describe('quantize', () => {
  it('runs the example of the guide', async () => {
    const signal = new AbortController().signal
    const losses: number[] = []

    const model = await Model.load(path)
    const run = quantize(
      model,
      recipes.silq({ weights: 4, activations: 8, cache: 8, target: 'gguf:q4_0', train }),
      { data, signal },
    )
    for await (const event of run)
      if (event.kind === 'step') losses.push(event.loss, event.tokensPerSecond)
    const { model: small, report } = await run.result
    await small.save(join(folder, 'example.gguf'))

    expect(losses).toHaveLength(2 * report.steps)
    expect(report).toMatchObject({
      recipe: 'silq',
      target: 'gguf:q4_0',
      steps: 8,
      tokens: 1024,
      bitsPerWeight: 4.5,
    })
    expect((await Model.load(join(folder, 'example.gguf'))).inspect().target).toBe('gguf:q4_0')
  })

  it('wins back some of what rounding to 3 bit loses', async () => {
    const model = await Model.load(path)
    const sites = { target: 'halfstep', weights: 3, activations: 8, cache: 8 } as const
    const measure = async (small: Model) =>
      (
        await small.evaluate(
          { data: validation, tokens: 1024, sequenceLength: 32 },
          { against: model },
        )
      ).kl ?? Number.NaN
    const rounded = await measure((await quantize(model, recipes.rtn(sites)).result).model)
    const trained = await measure(
      (
        await quantize(
          model,
          recipes.silq({ ...sites, train: { ...train, tokens: 16_384, learningRate: 3e-3 } }),
          { data },
        ).result
      ).model,
    )
    expect(trained).toBeLessThan(rounded)
  })

  it('gives the same model for the same seed and another number of threads', async () => {
    const model = await Model.load(path)
    const bytes = async (threads: number, seed: number) => {
      const recipe = recipes.silq({ target: 'gguf:q4_0', train: { ...train, seed } })
      return Buffer.from(
        await (await quantize(model, recipe, { data, threads }).result).model.toBytes(),
      ).toString('base64')
    }
    const once = await bytes(1, 5)
    expect(await bytes(2, 5)).toBe(once)
    expect(await bytes(2, 6)).not.toBe(once)
  })

  it('measures the validation text before and after, in events and report', async () => {
    const model = await Model.load(path)
    const run = quantize(model, recipes.silq({ train }), {
      data,
      validation,
      validationTokens: 256,
    })
    const events: Event[] = []
    for await (const event of run) events.push(event)
    const { report } = await run.result
    const subjects = events.flatMap((event) => (event.kind === 'eval' ? [event.subject] : []))
    expect(new Set(subjects)).toEqual(new Set(['fp', 'rtn', 'result']))
    expect(Object.keys(report.evaluations).sort()).toEqual(['fp', 'result', 'rtn'])
    expect(events.some((event) => event.kind === 'phase' && event.name === 'train')).toBe(true)
  })

  it.each([
    [recipes.rtn({ weights: 4.5 }), 'ERR_CONFIG', 'weights'],
    [recipes.rtn({ target: 'gguf:q4_0', weights: 3 }), 'ERR_TARGET', 'halfstep'],
    [recipes.rtn({ wieghts: 4 } as object), 'ERR_CONFIG', 'did you mean weights?'],
    [recipes.silq({ train: { learningRate: -1 } }), 'ERR_CONFIG', 'learningRate'],
    [
      recipes.silq({ train: { tokens: 1.5 } }),
      'ERR_CONFIG',
      'train.tokens: must be a whole number, 0 or more, got floating point 1.5',
    ],
    [
      recipes.silq({ observer: 'bset' } as object),
      'ERR_CONFIG',
      'observer: bset is not known; did you mean best?',
    ],
    [recipes.rtn({ target: 'halfstep', groupSize: 48 }), 'ERR_CONFIG', '48'],
    [recipes.silq(), 'ERR_CONFIG', 'data'],
  ])('refuses %j with %s before any work', async (recipe, code, words) => {
    const model = await Model.load(path)
    const run = quantize(model, recipe)
    await expect(run.result).rejects.toMatchObject({ code })
    await expect(run.result).rejects.toThrow(words)
  })

  it('refuses a text that is shorter than a window', async () => {
    const model = await Model.load(path)
    await expect(
      quantize(model, recipes.silq({ train }), { text: 'too short' }).result,
    ).rejects.toMatchObject({ code: 'ERR_DATA' })
  })
})

describe('a run', () => {
  it('goes on when nobody listens, and keeps the events', async () => {
    const recipe = recipes.silq({ train: { ...train, tokens: 128 * 60 } })
    const run = quantize(await Model.load(path), recipe, {
      data,
      validation,
      validationTokens: 64,
      runFolder: join(folder, 'alone'),
      checkpointEvery: 20,
    })
    const { report } = await run.result
    const events: Event[] = []
    for await (const event of run) events.push(event)
    const count = (kind: Event['kind']) => events.filter((event) => event.kind === kind).length
    expect(report.steps).toBe(60)
    expect([count('step'), count('eval')]).toEqual([60, 3])
    expect(count('checkpoint')).toBeGreaterThanOrEqual(2)
  })

  it('stops when its signal aborts, saves, and goes on to the very same model', async () => {
    const model = await Model.load(path)
    const recipe = recipes.silq({ train: { ...train, tokens: 8192 } })
    const whole = await (await quantize(model, recipe, { data }).result).model.toBytes()
    const [controller, runFolder] = [new AbortController(), join(folder, 'stopped')]
    const run = quantize(model, recipe, { data, runFolder, signal: controller.signal })
    const failure = await (async () => {
      for await (const event of run)
        if (event.kind === 'step' && event.step === 3) controller.abort(new Error('pause'))
    })().catch((error: unknown) => error)
    expect(failure).toMatchObject({
      code: 'ERR_CANCELLED',
      cause: expect.objectContaining({ message: 'pause' }),
    })
    expect(existsSync((failure as { details: { resume: string } }).details.resume)).toBe(true)
    const resumed = await quantize(model, recipe, { data, runFolder, resume: true }).result
    expect(Buffer.compare(await resumed.model.toBytes(), whole)).toBe(0)
  })

  it('stops on cancel, before its end', async () => {
    const run = quantize(await Model.load(path), recipes.silq({ train: LONG }), { data })
    for await (const event of run) if (event.kind === 'step') break
    run.cancel()
    await expect(run.result).rejects.toMatchObject({ code: 'ERR_CANCELLED' })
  })

  it('answers many next() calls at once, in order', async () => {
    const run = quantize(await Model.load(path), recipes.silq({ train }), { data })
    const iterator = run[Symbol.asyncIterator]()
    const results = await Promise.all(Array.from({ length: 16 }, () => iterator.next()))
    const steps = results.flatMap(({ value }) => (value?.kind === 'step' ? [value.step] : []))
    expect(steps).toEqual([...steps].sort((a, b) => a - b))
    run.cancel()
    await run.result.catch(() => {})
  })

  it('leaves the event loop free', async () => {
    const run = quantize(await Model.load(path), recipes.silq({ train: LONG }), { data })
    for await (const event of run) if (event.kind === 'step') break
    // Fifty turns of the loop go by while the run is under way: it is still there to be cancelled.
    for (let i = 0; i < 50; i++) await sleep(2)
    run.cancel()
    await expect(run.result).rejects.toMatchObject({ code: 'ERR_CANCELLED' })
  })

  it('is cancelled by await using', async () => {
    const model = await Model.load(path)
    let result: Promise<unknown>
    {
      await using run = quantize(model, recipes.silq({ train: LONG }), { data })
      result = run.result
    }
    await expect(result).rejects.toMatchObject({ code: 'ERR_CANCELLED' })
  })
})
