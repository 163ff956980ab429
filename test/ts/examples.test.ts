/** The programs of examples/, run as a reader would run them. */
import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { temporaryFolder } from './tiny-model.js'

const EXAMPLES = fileURLToPath(new URL('../../examples', import.meta.url))
const folder = temporaryFolder()

/** What an example prints. */
async function output(name: string): Promise<string> {
  const run = promisify(execFile)
  return (await run(process.execPath, [join(EXAMPLES, `${name}.mjs`), folder])).stdout
}

/** The number behind a name. */
const numberBehind = (text: string, words: string) =>
  Number(new RegExp(`${words} ([\\d.]+)`).exec(text)?.[1])

describe('examples', () => {
  it('are all tested here', () => {
    const names = readdirSync(EXAMPLES).filter((name) => name.endsWith('.mjs'))
    expect(names.sort()).toEqual([
      'custom-recipe.mjs',
      'partial-retraining.mjs',
      'qat.mjs',
      'quantize.mjs',
    ])
  })

  it('quantize: a file of 4.5 bits that loses little', async () => {
    const text = await output('quantize')
    expect(text).toContain('4.5 bits per weight')
    expect(numberBehind(text, 'KL divergence')).toBeGreaterThan(0)
    expect(numberBehind(text, 'KL divergence')).toBeLessThan(0.2)
    expect(existsSync(join(folder, 'rounded.gguf'))).toBe(true)
  })

  it('qat: training leaves less KL than rounding', async () => {
    const text = await output('qat')
    expect(text).toContain('step 16 of 16: loss ')
    expect(numberBehind(text, 'result: KL')).toBeLessThan(numberBehind(text, 'rtn: KL'))
    expect(existsSync(join(folder, 'trained.safetensors'))).toBe(true)
  })

  it('partial-retraining: every layer learns, and less KL is left than by rounding', async () => {
    const text = await output('partial-retraining')
    for (const layer of [1, 2, 3]) expect(text).toContain(`layer ${layer} of 3: error `)
    expect(numberBehind(text, 'retrained: KL')).toBeLessThan(numberBehind(text, 'rounded: KL'))
    expect(existsSync(join(folder, 'retrained.safetensors'))).toBe(true)
  })

  it('custom-recipe: 8 bits where its rule says, in a file that is read again', async () => {
    const text = await output('custom-recipe')
    expect(numberBehind(text, 'wide down: \\S+ bits per weight, KL')).toBeLessThan(
      numberBehind(text, 'all in 4 bits: \\S+ bits per weight, KL'),
    )
    // Three down projections and the embedding.
    expect(text).toContain('"Q8_0":4')
  })
})
