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
  { kind: 'f32', noise: 1e-4, share: 4e-3 },
  { kind: 'gguf:q8_0', noise: 2e-3, share: 0.06 },
  { kind: 'gguf:q4_0', noise: 2e-3, share: 0.06 },
] as const

let llama: Llama
const temporary = mkdtempSync(join(tmpdir(), 'halfstep-families-'))
beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error })
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
 * How far two runtimes are apart as a share of what logits are apart from each other: root mean
 * squares of differences, each row around its mean. Beside the KL, which for a model of small logits
 * is small whatever the runtimes do.
 */
function apart(a: Float32Array, b: Float32Array, vocabulary: number): number {
  let [difference, spread] = [0, 0]
  for (let row = 0; row < a.length; row += vocabulary) {
    const [x, y] = [a, b].map((logits) => {
      const values = logits.subarray(row, row + vocabulary)
      const mean = values.reduce((sum, logit) => sum + logit, 0) / vocabulary
      return values.map((logit) => logit - mean)
    })
    x?.forEach((logit, token) => {
      difference += (logit - (y?.[token] ?? 0)) ** 2
      spread += logit ** 2
    })
  }
  return Math.sqrt(difference / spread)
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

/** Families that are not read, or that have no GGUF files, each with the reason. */
const unread = new Map<string, string>()
for (const family of families) {
  const model = await orRefusal('ERR_UNSUPPORTED', Model.load(join(goldens, family)))
  if (model instanceof HalfstepError) {
    unread.set(family, String(model.details.reason))
    continue
  }
  const saved = await orRefusal('ERR_UNSUPPORTED', model.save(join(temporary, 'tried.gguf')))
  const reason = saved instanceof HalfstepError ? String(saved.details.reason) : ''
  if (reason.includes('no such architecture')) unread.set(family, reason)
  model.dispose()
}
for (const [family, reason] of unread) test.skip(`${family}: ${reason}`)

const read = families.filter((family) => !unread.has(family))
describe.each(read.map((name, i) => [name, i] as const))('%s', (family, number) => {
  const folder = () => join(temporary, `model-${number}`)

  test('is written, or refused for what its files cannot say', async () => {
    copyModel(join(goldens, family), folder())
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
      const name = String(saved.details.name)
      expect(fields, saved.message).toContain(name)
      expect(saved.message).toContain('Hugging Face folder')
      without(folder(), name)
    }
  })

  test('has the same token ids in the client', async () => {
    const model = await Model.load(folder())
    await expectSameTokens(llama, model, join(temporary, `${number}.gguf`), TEXT)
    model.dispose()
  })

  test.for(KINDS)(
    'answers the same in the client as $kind',
    async ({ kind, noise, share }, { skip }) => {
      const stored = await Model.load(folder())
      const made = await orRefusal('ERR_TARGET', as(kind, stored))
      if (made instanceof HalfstepError) {
        console.log(`skipped: ${family} ${kind}: ${made.message}`)
        return skip(made.message)
      }
      const file = join(temporary, `${number}-${kind.replace(':', '-')}.gguf`)
      const saved = await orRefusal('ERR_UNSUPPORTED', made.save(file))
      if (saved instanceof HalfstepError) {
        // Value heads of a tiny model are narrower than the blocks that would have to move.
        expect(saved.message).toContain('columns are quantized together')
        console.log(`skipped: ${family} ${kind}: ${saved.message}`)
        return skip(saved.message)
      }
      const windows = [(await stored.tokenize(TEXT)).slice(0, WINDOW)]
      expect(windows[0]).toHaveLength(WINDOW)
      const vocabulary = made.inspect().vocabSize
      const theirs = await clientLogits(llama, file, windows, vocabulary, {}, 1)
      const ours = await ourLogits(made, windows)
      const { kl } = compare(theirs, ours, windows, vocabulary)
      const off = apart(theirs[0] ?? new Float32Array(), ours[0] ?? new Float32Array(), vocabulary)
      stored.dispose()
      made.dispose()
      console.log(
        `${family} ${kind}: KL(client, ours) ${kl.toExponential(2)}, logits off by ` +
          `${off.toExponential(2)} of their own spread`,
      )
      expect(kl).toBeLessThanOrEqual(noise)
      expect(off).toBeLessThanOrEqual(share)
    },
  )
})
