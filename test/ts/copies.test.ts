/**
 * Several copies of the package in one program, as `import` and `require` load them: what one made
 * the other takes, or says why not.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { PARTS, VERSION } from '../../ts/src/copies.js'
import type * as node from '../../ts/src/index.js'
import type * as web from '../../ts/src/wasm.js'
import { temporaryFolder, tinyModel } from './tiny-model.js'

const require = createRequire(import.meta.url)
const dist = (file: string) => new URL(`../../ts/dist/${file}`, import.meta.url)
const folder = temporaryFolder()
// Node's own import, not that of the test runner, which would load what lies beside once more.
writeFileSync(join(folder, 'import.cjs'), 'module.exports = (url) => import(url)')
const importIt = require(join(folder, 'import.cjs')) as (url: string) => Promise<unknown>
const load = (file: string) => importIt(dist(file).href)
const imported = (await load('index.js')) as typeof node
const required = require(dist('index.cjs').pathname) as typeof node
const importedWasm = (await load('wasm.js')) as typeof web
const requiredWasm = require(dist('wasm.cjs').pathname) as typeof web

const path = tinyModel(folder)
const words = { text: 'the half step rounds a weight to its grid. '.repeat(4), sequenceLength: 32 }

it('names the version that the package has', () => {
  const { version } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  )
  expect(VERSION).toBe(version)
})

it.each([
  ['imported and required', imported, required],
  ['required and imported', required, imported],
  ['imported and required WebAssembly', importedWasm, requiredWasm],
  ['required and imported WebAssembly', requiredWasm, importedWasm],
])('take the models of each other: %s', async (_, one, other) => {
  const model = await (one as typeof node).Model.load(path)
  const theirs = other as typeof node
  expect(one.Model).not.toBe(other.Model)
  expect(model).toBeInstanceOf(other.Model)
  const { model: small } = await theirs.quantize(
    model,
    theirs.recipes.rtn({ target: 'halfstep', weights: 3 }),
  ).result
  expect(small).toBeInstanceOf(one.Model)
  expect(small).toBeInstanceOf(other.Model)
  const reference = await theirs.Model.load(path)
  expect((await reference.evaluate(words, { against: model })).kl).toBe(0)
  expect((await small.evaluate(words, { against: reference })).kl).toBeGreaterThan(0)
  model.dispose()
  const disposed = { code: 'ERR_DISPOSED' }
  expect(() => theirs.quantize(model, theirs.recipes.rtn())).toThrow(
    expect.objectContaining(disposed),
  )
  await expect(reference.evaluate(words, { against: model })).rejects.toMatchObject(disposed)
})

it('have one class of errors', async () => {
  const error = await required.Model.load('absent.gguf').catch((error: unknown) => error)
  for (const { HalfstepError } of [imported, required, importedWasm, requiredWasm])
    expect(error).toBeInstanceOf(HalfstepError)
  expect(new Error('x')).not.toBeInstanceOf(imported.HalfstepError)
  expect({ code: 'ERR_IO' }).not.toBeInstanceOf(imported.HalfstepError)
  class Mine extends imported.HalfstepError {}
  expect(error).not.toBeInstanceOf(Mine)
  expect(new Mine('ERR_IO', 'mine')).toBeInstanceOf(Mine)
})

it('say so where they cannot work together', async () => {
  const [native, wasm] = [await imported.Model.load(path), await importedWasm.Model.load(path)]
  expect(native).not.toBeInstanceOf(importedWasm.Model)
  const mixed = { code: 'ERR_CONFIG', message: expect.stringContaining('WebAssembly') }
  await expect(
    native.evaluate(words, { against: wasm as unknown as node.Model }),
  ).rejects.toMatchObject(mixed)
  await expect(
    wasm.evaluate(words, { against: native as unknown as web.Model }),
  ).rejects.toMatchObject(mixed)
  // quantize takes either: the model brings its own build.
  const { model } = await imported.quantize(wasm as unknown as node.Model, imported.recipes.rtn())
    .result
  expect(model).toBeInstanceOf(importedWasm.Model)
  const old = { [PARTS]: () => ({ version: '0.0.1' }) } as unknown as node.Model
  await expect(native.evaluate(words, { against: old })).rejects.toThrow(
    `against: it was loaded by halfstep 0.0.1, and this is halfstep ${VERSION}`,
  )
})

it('keeps classes of the user apart', async () => {
  class Mine extends imported.Model {}
  const [mine, other] = [await Mine.load(path), await imported.Model.load(path)]
  expect([mine instanceof Mine, mine instanceof required.Model]).toEqual([true, true])
  expect(other).not.toBeInstanceOf(Mine)
})
