import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { gzipSync } from 'node:zlib'
import { expect, it } from 'vitest'
import * as native from '../../ts/src/index.js'
import * as wasm from '../../ts/src/wasm.js'
import { demo, root } from './demo.js'
import { scenario } from './scenario.mjs'

const { source, folder, path, bytes, text, expected } = await demo()
const { Model, quantize, recipes } = wasm

it('does in Node what the native build does, to the byte', async () => {
  expect(await scenario(wasm, bytes, text)).toEqual(expected)
  expect(expected.generation.tokens).toHaveLength(24)
  expect(expected.pieces.join('')).toBe(expected.generation.text)
  expect(expected.damaged.code).toBe('ERR_FORMAT')
  expect(expected.impossible.code).toBe('ERR_CONFIG')
  expect(expected.isTimed).toBe(true)
})

it('reads and writes files where there are some, by path or URL', async () => {
  const model = await Model.load(pathToFileURL(path))
  const { model: small } = await quantize(model, recipes.rtn()).result
  const written = join(folder, 'written.gguf')
  const report = await small.save(written)
  expect(report).toEqual({ path: written, bytes: readFileSync(written).length, parity: true })
  expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([])
  const data = join(folder, 'text.txt')
  writeFileSync(data, text)
  const [fromPath, fromText] = [
    await small.evaluate({ data, tokens: 64, sequenceLength: 32 }),
    await small.evaluate({ text, tokens: 64, sequenceLength: 32 }),
  ]
  expect({ ...fromPath, tokensPerSecond: 0 }).toEqual({ ...fromText, tokensPerSecond: 0 })
})

it('reads a Hugging Face folder', async () => {
  expect((await Model.load(source)).inspect()).toEqual((await native.Model.load(source)).inspect())
})

it.each<[string, () => Promise<unknown>, string]>([
  ['an absent file', () => Model.load(join(folder, 'absent.gguf')), 'ERR_IO'],
  ['a folder without a model', () => Model.load(folder), 'ERR_IO'],
  [
    'an absent text',
    async () => (await Model.load(path)).evaluate({ data: join(folder, 'absent.txt') }),
    'ERR_IO',
  ],
  [
    'a text and its path',
    async () => (await Model.load(path)).evaluate({ data: path, text }),
    'ERR_CONFIG',
  ],
  [
    'a text that is no UTF-8',
    async () => (await Model.load(path)).evaluate({ data: path }),
    'ERR_DATA',
  ],
  [
    'training',
    async () => quantize(await Model.load(path), recipes.silq(), { text }).result,
    'ERR_UNSUPPORTED',
  ],
  [
    'a folder that is not there',
    async () => (await Model.load(path)).save(join(folder, 'absent', 'x.gguf')),
    'ERR_IO',
  ],
  [
    'an ending that is no format',
    async () => (await Model.load(path)).save(join(folder, 'model.bin')),
    'ERR_CONFIG',
  ],
])('refuses %s', async (_, attempt, code) => {
  const error = await attempt().catch((e: unknown) => e)
  expect(error).toBeInstanceOf(wasm.HalfstepError)
  expect(error).toMatchObject({ code })
})

it('gives the event loop its turn between tokens and stops when asked', async () => {
  const model = await Model.load(bytes)
  const controller = new AbortController()
  let turns = 0
  const timer = setInterval(() => turns++, 0)
  const stream = model.generate({ prompt: 'a', maxTokens: 10_000 }, { signal: controller.signal })
  let pieces = 0
  const error = await (async () => {
    for await (const _ of stream) if (++pieces === 20) setTimeout(() => controller.abort(), 0)
  })().catch((e: unknown) => e)
  clearInterval(timer)
  expect(error).toMatchObject({ code: 'ERR_CANCELLED' })
  expect(turns).toBeGreaterThan(5)
})

it('says which model was disposed', async () => {
  const model = await Model.load(bytes)
  const running = model.evaluate({ text, tokens: 64, sequenceLength: 32 })
  model.dispose()
  expect((await running).predictions).toBe(62)
  expect(() => model.inspect()).toThrowError(expect.objectContaining({ code: 'ERR_DISPOSED' }))
})

it('is below a megabyte on the wire and holds no path of the machine that built it', () => {
  const module = readFileSync(join(root, 'ts/wasm/halfstep_bg.wasm'))
  expect(gzipSync(module, { level: 9 }).length).toBeLessThan(1_050_000)
  expect(module.includes(root)).toBe(false)
})
