// A real client on every family: llama.cpp, by node-llama-cpp's prebuilt binary, loads what we write
// of tiny models and answers as we do. The models are those of HALFSTEP_GOLDEN_ARCH, of
// golden/arch in the shared folder, or the few of test/golden/arch.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getLlama, type Llama, LlamaLogLevel } from 'node-llama-cpp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { HalfstepError, Model, quantize, recipes } from '../../ts/src/index.js'
import { clientLogits, compare, expectSameTokens, ourLogits } from './client.js'
import { configOf, copyModel, unheeded, without } from './held.js'

const shared = join(
  process.env.HALFSTEP_SHARED ?? join(import.meta.dirname, '../../../shared'),
  'golden/arch',
)
const few = join(import.meta.dirname, '../golden/arch')
const goldens = process.env.HALFSTEP_GOLDEN_ARCH ?? (existsSync(shared) ? shared : few)
const families = existsSync(goldens)
  ? readdirSync(goldens).filter((name) => existsSync(join(goldens, name, 'config.json')))
  : []

const TEXT =
  'Hello the world, said the king; 12345 men and the rest of them ran on in the open. '.repeat(3)
/** Longer than every window and original context of the models, shorter than their context. */
const WINDOW = 128

/**
 * Mean KL that two correct runtimes may differ by. The client keeps keys and values in f16, and with
 * rounded weights it rounds activations to 8 bits by blocks, each of which a last bit may flip.
 */
const KINDS = [
  { kind: 'f32', noise: 1e-4 },
  { kind: 'gguf:q8_0', noise: 2e-3 },
  { kind: 'gguf:q4_0', noise: 2e-3 },
] as const

let llama: Llama
let temporary: string
beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error })
  temporary = mkdtempSync(join(tmpdir(), 'halfstep-families-'))
})
afterAll(async () => {
  rmSync(temporary, { recursive: true, force: true })
  // After a load that failed it waits for ever.
  await Promise.race([llama?.dispose(), new Promise((done) => setTimeout(done, 5000).unref())])
})

/** What was made, or the error that refused it by this code. */
async function orRefusal<T>(code: string, made: Promise<T>): Promise<T | HalfstepError> {
  return made.catch((error: unknown) => {
    if (error instanceof HalfstepError && error.code === code) return error
    throw error
  })
}

/**
 * The model as it is stored in a file of some kind. Floats of 32 bits: the folders are in bf16, to
 * which the client would round activations too.
 */
async function as(kind: (typeof KINDS)[number]['kind'], model: Model): Promise<Model> {
  if (kind === 'f32') return model.dequantize()
  return (await quantize(model, recipes.rtn({ target: kind })).result).model
}

test.skipIf(goldens === few)('all families, not only the few of the repository', () => {
  expect(families.length).toBeGreaterThan(0)
})

describe.each(families.map((name, i) => [name, i] as const))('%s', (family, number) => {
  const folder = () => join(temporary, `model-${number}`)
  /** Why no test of the family can be made. */
  let refused: string | undefined

  test('is written, or refused for what its files cannot say', async ({ skip }) => {
    copyModel(join(goldens, family), folder())
    const model = await orRefusal('ERR_UNSUPPORTED', Model.load(folder()))
    if (model instanceof HalfstepError) {
      refused = model.message
      return skip(refused)
    }
    model.dispose()
    // A refusal names a field, without which there is the nearest model that is written.
    for (;;) {
      const fields = unheeded(configOf(folder()))
      const model = await Model.load(folder())
      const saved = await orRefusal(
        'ERR_UNSUPPORTED',
        model.save(join(temporary, `${number}.gguf`)),
      )
      model.dispose()
      if (!(saved instanceof HalfstepError)) {
        expect(fields, 'of a model that was written').toEqual([])
        return
      }
      console.log(`refused: ${family}: ${saved.message}`)
      const name = String((saved.details as { name?: unknown }).name)
      expect(fields, saved.message).toContain(name)
      expect(saved.message).toContain('Hugging Face folder')
      without(folder(), name)
    }
  })

  test('has the same token ids in the client', async ({ skip }) => {
    if (refused) return skip(refused)
    const model = await Model.load(folder())
    await expectSameTokens(llama, model, join(temporary, `${number}.gguf`), TEXT)
    model.dispose()
  })

  test.each(KINDS)('answers the same in the client as $kind', async ({ kind, noise }, { skip }) => {
    if (refused) return skip(refused)
    const stored = await Model.load(folder())
    const made = await orRefusal('ERR_TARGET', as(kind, stored))
    if (made instanceof HalfstepError) return skip(made.message)
    const file = join(temporary, `${number}-${kind.replace(':', '-')}.gguf`)
    await made.save(file)
    const windows = [(await stored.tokenize(TEXT)).slice(0, WINDOW)]
    expect(windows[0]).toHaveLength(WINDOW)
    const vocabulary = made.inspect().vocabSize
    const { kl, top1 } = compare(
      await clientLogits(llama, file, windows, vocabulary),
      await ourLogits(made, windows),
      windows,
      vocabulary,
    )
    stored.dispose()
    made.dispose()
    console.log(`${family} ${kind}: KL(client, ours) ${kl.toExponential(2)}, top-1 ${top1}`)
    expect(kl).toBeLessThanOrEqual(noise)
  })
})
