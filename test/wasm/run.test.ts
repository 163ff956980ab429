import { expect, it } from 'vitest'
import { HalfstepError } from '../../ts/src/errors.js'
import { type Glue, WasmRun, type WasmTask } from '../../ts/src/wasm-run.js'

/** A task of so many steps, each with one message; `steps` may throw. */
function task(steps: (() => void)[]): WasmTask {
  let [done, read, cancelled] = [0, 0, false]
  const step = () => {
    if (!cancelled && done < steps.length) steps[done++]?.()
    return cancelled || done === steps.length
  }
  const message = () => (read < done ? `message ${read++}` : undefined)
  const outcome = () =>
    JSON.stringify(cancelled ? { error: { code: 'ERR_CANCELLED' } } : { ok: done })
  return {
    step,
    message,
    outcome,
    takeModel: () => undefined,
    takeBytes: () => undefined,
    cancel: () => (cancelled = true),
  } as unknown as WasmTask
}

const glue = (panic?: string) => ({ takePanic: () => panic }) as unknown as Glue
const nothing = () => {}
const trap = () => {
  throw new WebAssembly.RuntimeError('unreachable')
}

it('answers readers in order, those that wait and those that come late, then null', async () => {
  const run = new WasmRun(glue(), () => task([nothing, nothing, nothing]))
  const early = [run.next(), run.next()]
  expect(JSON.parse(await run.result())).toEqual({ ok: 3 })
  expect(await Promise.all(early)).toEqual(['message 0', 'message 1'])
  expect(await run.next()).toBe('message 2')
  expect(await Promise.all([run.next(), run.next()])).toEqual([null, null])
})

it('cancels before its first step', async () => {
  const run = new WasmRun(glue(), () => task([nothing]))
  run.cancel()
  expect(JSON.parse(await run.result()).error.code).toBe('ERR_CANCELLED')
})

it.each([
  ['a panic', trap, 'index 7', { code: 'ERR_INTERNAL', details: { reason: 'index 7' } }],
  ['a failed allocation', trap, undefined, { code: 'ERR_MEMORY' }],
  [
    'a stack that is full',
    () => {
      throw new RangeError('Maximum call stack size exceeded')
    },
    undefined,
    { code: 'ERR_INTERNAL' },
  ],
])('makes an outcome of %s and leaves the task alone', async (_, step, panic, error) => {
  const run = new WasmRun(glue(panic), () => task([nothing, step]))
  const waiting = [run.next(), run.next()]
  expect(JSON.parse(await run.result()).error).toMatchObject(error)
  expect(await Promise.all(waiting)).toEqual(['message 0', null])
  expect(await run.next()).toBeNull()
  expect(run.takeModel()).toBeNull()
})

it('keeps the fields of an error that comes before or after the work', async () => {
  const error = new HalfstepError('ERR_IO', 'model.gguf: not there', { path: 'model.gguf' })
  const fails = () => Promise.reject(error)
  const data = { code: 'ERR_IO', message: 'model.gguf: not there', details: { path: 'model.gguf' } }
  expect(JSON.parse(await new WasmRun(glue(), fails).result())).toEqual({ error: data })
  expect(JSON.parse(await new WasmRun(glue(), () => task([nothing]), fails).result())).toEqual({
    error: data,
  })
})
