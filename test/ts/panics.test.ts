/**
 * A panic in every function and method that the addon exports, on the thread of its task and on a
 * worker of that: the caller gets an error with a code, the process goes on, and the next call is
 * right. The addon of this test is built with the feature `panics` and stands in a copy of the
 * package.
 */
import { spawn } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
// @ts-expect-error It has no types.
import { panicAddon } from '../../scripts/prepare.mjs'
import { temporaryFolder, tinyModel } from './tiny-model.js'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** What is called, in words of the package where it has some. Each returns what is to be right. */
const SCRIPT = `
import { createRequire } from 'node:module'
const [addonPath, path, config, data] = process.argv.slice(2)
const addon = createRequire(import.meta.url)(addonPath)
const { Model, quantize, plan, inspect, resolve, recipes, HalfstepError } = await import('./ts/dist/index.js')
const model = await Model.load(path)
const file = await model.toBytes()
const rtn = recipes.rtn()
const words = { text: 'the half step '.repeat(20), sequenceLength: 16, threads: 2 }
const bytes = async (model) => Buffer.from(await model.toBytes()).toString('base64').length
const perplexity = async () => (await model.evaluate(words)).perplexity
const controller = new AbortController()
/** Called without the package around it. */
const bare = async (task) => {
  const outcome = JSON.parse(await task.result())
  if (outcome.error) throw new HalfstepError(outcome.error.code, outcome.error.message)
  return Object.keys(outcome.ok).join()
}
const calls = {
  load: async () => (await Model.load(path)).inspect().parameters,
  loadBytes: async () => (await Model.load(file)).inspect().parameters,
  inspect: async () => (await inspect(path)).parameters,
  inspectBytes: async () => (await inspect(file)).parameters,
  quantize: async () => bytes((await quantize(model, rtn, { threads: 2 }).result).model),
  plan: async () => (await plan(model, rtn)).recipe,
  planConfig: async () => (await plan(config, rtn)).recipe,
  evaluate: perplexity,
  generate: async () => (await model.generate({ prompt: 'ab', maxTokens: 5 }).result).text,
  generateAll: async () => (await model.generateAll(['ab'], { maxTokens: 5 }))[0].text,
  tokenize: async () => String(await model.tokenize('abc')),
  logits: async () => String((await model.logits([97, 98])).slice(0, 9)),
  dequantize: async () => (await model.dequantize()).inspect().parameters,
  save: async () => (await model.save(data)).bytes,
  toBytes: () => bytes(model),
  resolve: async () => (await resolve(rtn)).id,
  bench: () => bare(addon.bench(JSON.stringify({ only: 'no such bench', answers: true }))),
  doctor: () => JSON.parse(addon.doctor()).threads,
  'NativeModel.inspect': () => model.inspect().parameters,
  'NativeModel.dispose': async () => {
    const other = await Model.load(path)
    other.dispose()
    return perplexity()
  },
  // Nobody is there to be told.
  'NativeModel.finalize': async () => {
    await (async () => void (await Model.load(path)).inspect())()
    for (let i = 0; i < 20; i++) {
      gc()
      await new Promise((done) => setTimeout(done, 5))
    }
    return perplexity()
  },
  'NativeTask.next': async () => {
    let text = ''
    for await (const piece of model.generate({ prompt: 'ab', maxTokens: 5 })) text += piece
    return text
  },
  'NativeTask.result': async () => String(await model.tokenize('abc')),
  'NativeTask.takeModel': async () => (await model.dequantize()).inspect().parameters,
  'NativeTask.takeBytes': () => bytes(model),
  'NativeTask.isOver': async () => {
    const { signal } = controller
    for (let i = 0; i < 3; i++) model.generate({ prompt: 'ab', maxTokens: 1 }, { signal })
    return (await model.generate({ prompt: 'ab', maxTokens: 5 }, { signal }).result).text
  },
  // By a signal, whose listener must not throw; the promise says it.
  'NativeTask.cancel': async () => {
    const controller = new AbortController()
    const stream = model.generate({ prompt: 'ab', maxTokens: 40 }, { signal: controller.signal })
    controller.abort()
    const error = await stream.result.catch((error) => error)
    if (error.code === 'ERR_CANCELLED') return error.code
    throw error
  },
}
const exported = Object.entries(addon).flatMap(([name, value]) => {
  if (!/^[A-Z]/.test(name)) return [name]
  const methods = Object.getOwnPropertyNames(value.prototype).filter((of) => of !== 'constructor')
  return methods.map((of) => name + '.' + of)
}).filter((name) => name !== 'panicAt')
const SYNCHRONOUS = ['resolve', 'doctor']
const problems = exported.filter((name) => !calls[name]).map((name) => name + ' has no case')
process.on('uncaughtException', (error) => problems.push('uncaught: ' + error))
process.on('unhandledRejection', (error) => problems.push('unhandled: ' + error))
let count = 0
for (const [name, call] of Object.entries(calls)) {
  const ofTask = exported.includes(name) && !name.includes('.') && !SYNCHRONOUS.includes(name)
  const right = await call()
  for (const place of ofTask ? ['', ':thread', ':worker'] : ['']) {
    const at = name + place
    addon.panicAt(at)
    const error = await (async () => call())().then(() => undefined, (error) => error)
    const left = addon.panicAt(null)
    if (left !== null) problems.push(at + ' was not reached')
    const typed = error instanceof HalfstepError && error.code === 'ERR_INTERNAL'
    // What is called without the package has the text of the panic.
    const told = typed || (['bench', 'doctor'].includes(at) && error?.code === 'GenericFailure')
    if (name === 'NativeModel.finalize' ? error !== undefined : !told || !error.message.includes(at))
      problems.push(at + ' gave ' + error)
    const after = await call()
    if (after !== right) problems.push(at + ': the next call gave ' + after + ', not ' + right)
    count++
  }
}
console.log(JSON.stringify({ exported: exported.length, count, problems }))
`

it('is an error with a code, and the next call is right', { timeout: 900_000 }, async () => {
  const built: string = await panicAddon()
  const folder = temporaryFolder()
  const path = tinyModel(folder)
  mkdirSync(join(folder, 'ts/native'), { recursive: true })
  cpSync(join(root, 'ts/dist'), join(folder, 'ts/dist'), { recursive: true })
  // The copy has the name of the addon that it stands for.
  const [name] = readdirSync(join(root, 'ts/native')).filter((file) => file.endsWith('.node'))
  const addon = join(folder, 'ts/native', name as string)
  copyFileSync(built, addon)
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'panics.js'), SCRIPT)
  const { code, signal, said, output } = await new Promise<Record<string, unknown>>((done) => {
    const words = [
      ...['--expose-gc', join(folder, 'panics.js'), addon, path],
      ...[join(path, 'config.json'), join(folder, 'saved.gguf')],
    ]
    // With it panics would be written to stderr.
    const { RUST_BACKTRACE: _, ...env } = process.env
    const child = spawn(process.execPath, words, { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let [output, said] = ['', '']
    child.stdout.on('data', (piece) => {
      output += piece
    })
    child.stderr.on('data', (piece) => {
      said += piece
    })
    child.on('close', (code, signal) => done({ code, signal, said, output }))
  })
  expect({ code, signal, said }).toEqual({ code: 0, signal: null, said: '' })
  const { exported, count, problems } = JSON.parse(output as string)
  console.log(`panics: ${count} in ${exported} functions and methods, their threads and workers`)
  expect(problems).toEqual([])
  expect(exported).toBeGreaterThanOrEqual(26)
  expect(count).toBeGreaterThanOrEqual(exported + 2 * 16)
})
