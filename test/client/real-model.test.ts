// The client and our runtime on a real model. A file of its own, which runs at the same time as
// that of the demo model.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getLlama, type Llama, LlamaLogLevel } from 'node-llama-cpp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Model } from '../../ts/src/index.js'
import { expectSameTokens, measure } from './client.js'

const shared = process.env.HALFSTEP_SHARED ?? join(import.meta.dirname, '../../../shared')
const real = join(shared, 'models/SmolLM2-135M-Instruct.Q4_1.gguf')
const texts = ['shakespeare', 'kjv'].map((name) => join(shared, `text/${name}.txt`))
const haveReal = existsSync(real) && texts.every(existsSync)

let llama: Llama
let folder: string
beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error })
  folder = mkdtempSync(join(tmpdir(), 'halfstep-client-'))
})
afterAll(async () => {
  await llama?.dispose()
  rmSync(folder, { recursive: true, force: true })
})

describe.each(['gguf:q4_0', 'gguf:q4_1', 'gguf:q8_0'] as const)('%s', (target) => {
  test.skipIf(!haveReal)(
    'on the real model the client differs from us no more than twice what summation order makes',
    { timeout: 900_000 },
    async () => {
      const text = readFileSync(texts[0] ?? '', 'utf8').slice(0, 20_000)
      // Tokens beyond those are unlikely, and their logits take the client long.
      const { client, floor } = await measure(
        llama,
        folder,
        await Model.load(real),
        target,
        text,
        1,
        { every: 2, top: 1024 },
      )
      expect(client.kl).toBeLessThanOrEqual(2 * floor.kl)
      // 256 predictions: two runtimes that differ by noise alone differ by up to 1 per cent here.
      expect(Math.abs(client.perplexity[0] / client.perplexity[1] - 1)).toBeLessThanOrEqual(0.02)
    },
  )
})

describe('token ids', () => {
  test.skipIf(!haveReal)('of the real model, written by us', { timeout: 300_000 }, async () => {
    const model = await Model.load(real)
    const file = join(folder, 'real.gguf')
    await model.save(file)
    for (const text of texts)
      await expectSameTokens(llama, model, file, readFileSync(text, 'utf8').slice(0, 20_000))
  })
})
