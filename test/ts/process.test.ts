/**
 * What can only be seen on a process of its own: it ends by itself, no rejection is unhandled, the
 * built package is found by its name.
 */
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = temporaryFolder()
const [path, data] = [tinyModel(folder), tinyText(folder)]

interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Runs a script in the repository's root, where Node finds the package by its own name. */
function node(args: string[], env: Record<string, string> = {}): Promise<Ended> {
  return new Promise((done) => {
    const child = spawn(process.execPath, args, { cwd: root, env: { ...process.env, ...env } })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (piece) => (stdout += piece))
    child.stderr.on('data', (piece) => (stderr += piece))
    child.on('close', (code, signal) => done({ code, signal, stdout, stderr }))
  })
}

const esm = (body: string, env?: Record<string, string>) => {
  const script = `import { Model, quantize, recipes } from 'halfstep'
const [path, data] = ${JSON.stringify([path, data])}
const long = recipes.silq({ train: { tokens: 1e8, sequenceLength: 32 } })
${body}`
  return node(['--input-type=module', '-e', script], env)
}

it('is found by its name from ESM and CommonJS, with the same surface', async () => {
  const names = 'console.log(Object.keys(await import("halfstep")).sort().join())'
  const imported = await esm(names)
  const required = await node(['-e', 'console.log(Object.keys(require("halfstep")).sort().join())'])
  expect(imported.stdout).toContain('Model')
  expect(required.stdout.trim().split(',')).toEqual(imported.stdout.trim().split(','))
  const script = join(folder, 'use.cjs')
  writeFileSync(
    script,
    `const { Model } = require(${JSON.stringify(join(root, 'ts/dist/index.cjs'))})
Model.load(${JSON.stringify(path)}).then((m) => console.log(m.inspect().layers))`,
  )
  expect((await node([script])).stdout.trim()).toBe('2')
})

it('ends when the script ends, a run going on or not', async () => {
  const ended = await esm(
    `const run = quantize(await Model.load(path), long, { data })
for await (const event of run) if (event.kind === 'step') break
console.log('left')`,
  )
  expect(ended).toMatchObject({ code: 0, signal: null, stdout: 'left\n', stderr: '' })
})

it('stays for a run that somebody awaits', async () => {
  const ended = await esm(
    `const short = recipes.silq({ train: { tokens: 512, sequenceLength: 32 } })
quantize(await Model.load(path), short, { data }).result.then((r) => console.log(r.report.steps))`,
  )
  expect(ended).toMatchObject({ code: 0, stdout: '4\n' })
})

it('has no unhandled rejection when nobody awaits a run that fails', async () => {
  const body = `process.on('unhandledRejection', () => process.exit(9))
    const run = quantize(await Model.load(path), recipes.rtn({ weights: 4.5 }))
    void run.result
    await new Promise((done) => setTimeout(done, 200))
    console.log('calm')`
  expect(await esm(body)).toMatchObject({ code: 0, stdout: 'calm\n', stderr: '' })
})

it('survives process.exit in the middle of a training', async () => {
  const ended = await esm(
    `const run = quantize(await Model.load(path), long, { data })
for await (const event of run) if (event.kind === 'step') process.exit(7)`,
  )
  expect(ended).toMatchObject({ code: 7, signal: null })
})

/**
 * Growth of resident memory over `cycles` loads, after `before` loads that fill the allocator's and
 * the collector's reserves.
 */
const growth = (before: number, cycles: number, use: string) => `
  const cycle = async (n) => {
    for (let i = 0; i < n; i++) { const model = await Model.load(path); ${use} }
    return process.memoryUsage.rss()
  }
  const start = await cycle(${before})
  console.log((await cycle(${cycles})) - start)`

it('gives back the memory of models that are disposed', async () => {
  expect(Number((await esm(growth(100, 200, 'model.dispose()'))).stdout)).toBeLessThan(8 << 20)
})

it('collects models that nobody disposes', async () => {
  // The collector looks after 64 MB of models that it was told of, and frees them in the
  // background: memory swings, but must stay far below the sum.
  const [cycles, bytesPerModel] = [2000, 360_000]
  expect(Number((await esm(growth(500, cycles, 'model.inspect()'))).stdout)).toBeLessThan(
    (cycles * bytesPerModel) / 4,
  )
})

it('says once that there is no addon, and why, when it must go on without', async () => {
  const body = 'await Model.load(path); await Model.load(path); console.log("loaded")'
  const ended = await esm(body, { HALFSTEP_BUILD: 'wasm' })
  expect(ended).toMatchObject({ code: 0, stdout: 'loaded\n' })
  expect(ended.stderr.match(/no native addon/g)).toHaveLength(1)
})
