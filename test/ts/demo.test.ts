/** The demo as it is shipped, once: its table, its files, and what the table is there to show. */
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { demoTable } from '../../ts/src/cli/demo.js'
import { runDemo } from '../../ts/src/demo.js'
import { Model } from '../../ts/src/index.js'
import { temporaryFolder } from './tiny-model.js'

/** Half a minute on two free cores. */
const TIMEOUT_MS = 600_000

const folder = temporaryFolder()

it(
  'shows that training wins back what rounding loses, and writes a GGUF that runs',
  async () => {
    const names = new Set<string>()
    const result = await runDemo({ folder, onStep: (name) => names.add(name) })

    expect(names.size).toBe(2)
    const table = demoTable(result.rows)
    expect(table).toHaveLength(8)
    for (const line of table) expect(line.length).toBeLessThanOrEqual(80)
    const kl = (name: string) =>
      result.rows.find((row) => row.name === name)?.evaluation.kl ?? Number.NaN
    for (const grid of ['W4A8 q4_0', 'W2A8 per channel'])
      expect(kl(`${grid}, SiLQ`)).toBeLessThan(kl(`${grid}, RTN`) / 2)
    const [full, ...quantized] = result.rows
    for (const row of quantized) expect(row.bytes).toBeLessThan(full?.bytes ?? 0)

    expect(result.file).toBe(join(folder, 'demo-q4_0.gguf'))
    expect(result.rows.find((row) => row.name === 'W4A8 q4_0, SiLQ')?.bytes).toBe(
      statSync(result.file).size,
    )
    expect(existsSync(join(folder, 'demo-w2.safetensors'))).toBe(true)
    expect((await Model.load(result.file)).inspect()).toMatchObject({
      target: 'gguf:q4_0',
      layers: 3,
    })
    expect(result.text).toMatch(/\w/)
  },
  TIMEOUT_MS,
)
