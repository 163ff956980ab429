/**
 * What only shows after many times, or beside work: nothing is left behind, nobody waits long. Each
 * test is a process of its own with the built package. HALFSTEP_ENDURANCE=1 is the long form, with
 * bounds on times that a machine with other work cannot keep.
 */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = temporaryFolder()
const [path, data] = [tinyModel(folder), tinyText(folder)]
const LONG = process.env.HALFSTEP_ENDURANCE === '1'
const minutes = (n: number) => ({ timeout: n * 60_000 })

/** Runs a script that prints one line of JSON and nothing else; its code must be 0. */
async function measured(body: string, words: string[] = []): Promise<Record<string, number>> {
  const script = `import { Model, plan, quantize, recipes } from 'halfstep'
const [path, data, folder] = ${JSON.stringify([path, data, folder])}
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
${body}`
  const child = spawn(process.execPath, [...words, '--input-type=module', '-e', script], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [out, error] = ['', '']
  child.stdout.on('data', (piece) => {
    out += piece
  })
  child.stderr.on('data', (piece) => {
    error += piece
  })
  const [code, signal] = await new Promise<unknown[]>((done) => {
    child.on('close', (...ended) => done(ended))
  })
  expect({ code, signal, error }).toEqual({ code: 0, signal: null, error: '' })
  console.log(`endurance: ${out.trim()}`)
  return JSON.parse(out)
}

it('leaves no listener of 10,000 generations on one signal', minutes(10), async () => {
  const { listeners, most, growth } = await measured(`
import { getEventListeners } from 'node:events'
const model = await Model.load(path)
const { signal } = new AbortController()
const count = () => getEventListeners(signal, 'abort').length
let [most, before] = [0, 0]
for (let i = 0; i < 10000; i++) {
  const stream = model.generate({ prompt: 'a', maxTokens: 500, threads: 1 }, { signal })
  most = Math.max(most, count())
  for await (const _ of stream) break
  if (i === 999) before = process.memoryUsage.rss()
}
// Neither do those that nobody reads, nor many at a time.
const all = Array.from({ length: 40 }, () => model.generate({ prompt: 'a', maxTokens: 2 }, { signal }))
most = Math.max(most, count())
await Promise.all(all.slice(20).map((stream) => stream.result))
for await (const _ of model.generate({ prompt: 'a', maxTokens: 60 }, { signal })) {}
console.log(JSON.stringify({ generations: 10000, listeners: count(), most, growth: process.memoryUsage.rss() - before }))`)
  expect([listeners, most]).toEqual([0, 1])
  expect(growth).toBeLessThan(32 << 20)
})

it('gives back what it used: make, use, dispose', minutes(20), async () => {
  const cycles = LONG ? 1000 : 200
  const { growth } = await measured(
    `
const recipe = recipes.rtn({ target: 'halfstep' })
const words = { text: 'the half step '.repeat(20), sequenceLength: 16, threads: 2 }
const cycle = async (n) => {
  for (let i = 0; i < n; i++) {
    const model = await Model.load(path)
    const { model: small } = await quantize(model, recipe, { threads: 2 }).result
    const file = await small.toBytes()
    const again = await Model.load(file)
    await again.generate({ prompt: 'ab', maxTokens: 4, threads: 2 }).result
    await again.evaluate(words, { against: model })
    await again.logits([97, 98])
    await (await again.dequantize()).dispose()
    for (const used of [model, small, again]) used.dispose()
  }
  // Buffers of the files above wait for the collector, which a quiet script does not call.
  for (let i = 0; i < 5; i++) { gc(); await sleep(10) }
  return process.memoryUsage.rss()
}
const before = await cycle(100)
const growth = (await cycle(${cycles})) - before
const handles = process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap')
console.log(JSON.stringify({ cycles: ${cycles}, growth, handles: handles.length }))`,
    ['--expose-gc'],
  )
  expect(growth).toBeLessThan(8 << 20)
})

it('holds few events for who does not read, and the ones that count', minutes(5), async () => {
  const found = await measured(`
const steps = 1500
const recipe = recipes.silq({ train: { tokens: 32 * steps, sequenceLength: 32, batch: 1, learningRate: 1e-4 } })
const run = quantize(await Model.load(path), recipe, { data, runFolder: folder + '/slow', checkpointEvery: 100, threads: 1 })
await run.result
const events = []
for await (const event of run) events.push(event)
const of = (kind) => events.filter((event) => event.kind === kind)
const numbers = of('step').map(({ step }) => step)
console.log(JSON.stringify({
  steps,
  events: events.length,
  checkpoints: of('checkpoint').length,
  last: numbers.at(-1),
  inOrder: Number(numbers.every((step, i) => i === 0 || step > numbers[i - 1])),
}))`)
  expect(found).toMatchObject({ last: found.steps, inOrder: 1 })
  expect(found.events).toBeLessThanOrEqual(1024)
  expect(found.checkpoints).toBeGreaterThanOrEqual(15)
})

it('survives workers that are terminated as they train', minutes(30), async () => {
  const rounds = LONG ? 50 : 2
  const { workers, threads } = await measured(`
import { readdirSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
const code = \`import('halfstep').then(async ({ Model, quantize, recipes }) => {
  const { parentPort, workerData } = require('node:worker_threads')
  const long = recipes.silq({ train: { tokens: 1e8, sequenceLength: 32 } })
  const run = quantize(await Model.load(workerData.path), long, { data: workerData.data, threads: 2 })
  for await (const event of run) if (event.kind === 'step') parentPort.postMessage(1)
})\`
const threads = () => process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0
let workers = 0
const before = threads()
for (let round = 0; round < ${rounds}; round++) {
  await Promise.all(Array.from({ length: 20 }, async () => {
    const worker = new Worker(code, { eval: true, execArgv: [], workerData: { path, data } })
    await new Promise((done, fail) => worker.once('message', done).once('error', fail))
    await worker.terminate()
    workers++
  }))
}
// The trainings end, within a micro-step each, though nobody is left to cancel them.
for (let i = 0; i < 600 && threads() > before + 8; i++) await sleep(50)
console.log(JSON.stringify({ rounds: ${rounds}, workers, threads: threads() - before }))
process.exit(0)`)
  expect(workers).toBe(20 * rounds)
  expect(threads).toBeLessThanOrEqual(8)
})

it('stops within a micro-step of the abort, every time', minutes(20), async () => {
  const { stopped, late, resumable } = await measured(`
import { setTimeout as wait } from 'node:timers/promises'
const model = await Model.load(path)
// Micro-steps of one sequence, four of them a step, each long enough for JavaScript to keep up.
const train = { tokens: 1e8, sequenceLength: 256, batch: 4, microBatch: 1, learningRate: 1e-4 }
const runs = 100
let [stopped, late, resumable] = [0, 0, 0]
for (let i = 0; i < runs; i++) {
  const controller = new AbortController()
  const { signal } = controller
  const runFolder = folder + '/abort-' + i
  const run = quantize(model, recipes.silq({ train }), { data, threads: 2, signal, runFolder: i % 10 ? undefined : runFolder })
  let after = 0
  const failure = await (async () => {
    for await (const { kind } of run) {
      if (kind !== 'step') continue
      if (signal.aborted) after++
      // At any moment of the step under way.
      else setTimeout(() => controller.abort(), i % 10)
    }
  })().catch((error) => error)
  if (failure.code === 'ERR_CANCELLED') stopped++
  // The update of the step whose last micro-step was under way.
  if (after > 1) late++
  if (failure.details?.resume) resumable++
}
console.log(JSON.stringify({ runs, stopped, late, resumable }))`)
  expect({ stopped, late, resumable }).toEqual({ stopped: 100, late: 0, resumable: 10 })
})

it('leaves the event loop free as it trains, loads and saves', minutes(5), async () => {
  const seconds = LONG ? 20 : 4
  const found = await measured(`
import { monitorEventLoopDelay } from 'node:perf_hooks'
const measure = async (during) => {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  await during()
  histogram.disable()
  // What a timer of a millisecond is late by anyway is not taken off.
  const ms = (nanoseconds) => Math.round(nanoseconds / 1e4) / 100
  return [ms(histogram.percentile(50)), ms(histogram.percentile(99)), ms(histogram.max)]
}
const model = await Model.load(path)
const [idle50, idle99, idleMost] = await measure(() => sleep(${seconds * 500}))
const train = { tokens: 1e8, sequenceLength: 64, batch: 4, learningRate: 1e-4 }
const run = quantize(model, recipes.silq({ train }), { data, runFolder: folder + '/loop', checkpointEvery: 50 })
for await (const event of run) if (event.kind === 'step') break
const [p50, p99, most] = await measure(async () => {
  for (const end = Date.now() + ${seconds * 1000}; Date.now() < end; ) {
    const other = await Model.load(path)
    await other.save(folder + '/loop.gguf')
    other.dispose()
    await sleep(100)
  }
})
run.cancel()
console.log(JSON.stringify({ seconds: ${seconds}, idle50, idle99, idleMost, p50, p99, most }))
await run.result.catch(() => {})`)
  if (LONG) {
    expect(found.p99).toBeLessThanOrEqual(10)
    expect(found.most).toBeLessThanOrEqual(50)
  } else {
    // A loop that waited for the work would be late by whole steps and files.
    expect(found.p50).toBeLessThan(100)
  }
})
