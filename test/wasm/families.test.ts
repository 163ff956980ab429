import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import * as native from '../../ts/src/index.js'
import * as wasm from '../../ts/src/wasm.js'
import { demo, root } from './demo.js'
import { scenario } from './scenario.mjs'

const { bytes, text } = await demo()
/** One scale for each row: heads and layers of the tiny models have no whole blocks. */
const GRID = { target: 'halfstep', weights: 4, groupSize: 0, cache: 8 } as const
const families = join(root, 'test/golden/arch/gguf')

it.each(readdirSync(families))(
  'does with %s what the native build does, to the byte',
  async (file) => {
    const tiny = new Uint8Array(readFileSync(join(families, file)))
    const [ours, theirs] = [
      await scenario(wasm, tiny, text, GRID),
      await scenario(native, tiny, text, GRID),
    ]
    expect(ours).toEqual(theirs)
    expect(ours.generation.tokens.length).toBeGreaterThan(0)
    expect(ours.evaluation.kl).toBeGreaterThan(0)
  },
)

it('stores and runs rotated weights as the native build does', async () => {
  const changes = { 'rules[0].quantizer.transform': { kind: 'blockHadamard', size: 64 } }
  const made = async ({ Model, quantize, recipes, resolve }: typeof native | typeof wasm) => {
    const model = await Model.load(bytes)
    const recipe = await resolve(
      recipes.rtn({ target: 'halfstep', weights: 3, groupSize: 64 }),
      changes,
    )
    const { model: rounded } = await quantize(model, recipe).result
    const small = await Model.load(await rounded.toBytes(), { name: 'small.safetensors' })
    const { kl } = await small.evaluate(
      { text, tokens: 128, sequenceLength: 64 },
      { against: model },
    )
    return { kl, inspection: small.inspect() }
  }
  const ours = await made(wasm)
  expect(ours).toEqual(await made(native))
  expect(JSON.stringify(ours.inspection)).toContain('block Hadamard of 64')
})
