/** What the command line and reports say of a mixture of experts. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { calibrationOf, expertPairs } from '../../ts/src/cli/experts.js'
import { inspect, Model, quantize, recipes, reportPage } from '../../ts/src/index.js'
import { temporaryFolder } from './tiny-model.js'

const at = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const cli = at('../../ts/dist/cli.js')
const [moe, demo] = [at('../models/moe'), at('../../assets/demo')]
const [data, validation] = [at('../../assets/demo-train.txt'), at('../../assets/demo-eval.txt')]
const folder = temporaryFolder()
const SOLVER = ['--samples', '2', '--sequence-length', '32', '--data', data]

function halfstep(args: string[]): Promise<string> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [cli, ...args], {
      cwd: folder,
      env: { ...process.env, COLUMNS: '80' },
    })
    let out = ''
    child.stdout.on('data', (piece) => (out += piece))
    child.on('close', () => done(out))
  })
}

describe('experts', () => {
  it('are counted with their weights, bytes and the weights of a token', async () => {
    const { experts } = await inspect(moe)
    expect(experts).toMatchObject({ layers: 3, count: 8, used: 2, parameters: 1_179_648 })
    expect(experts?.bytes).toBe(2 * 1_179_648)
    const out = await halfstep(['inspect', moe])
    expect(out).toMatch(/^experts +8 in each of 3 layers, of which a token uses 2$/m)
    expect(out).toMatch(/^expert parameters +1,179,648, 2\.36 MB$/m)
    expect(out).toMatch(/^active parameters +708,672 for each token$/m)
    expect((await inspect(demo)).experts).toBeNull()
    expect(await halfstep(['inspect', demo])).not.toMatch(/expert/)
    const plan = await halfstep(['plan', moe, '--recipe', 'rtn', '--target', 'gguf:q4_0'])
    expect(plan).toMatch(/^expert parameters +1,179,648, 664 kB$/m)
  })

  it('say in summary and report what they were calibrated on', async () => {
    const out = await halfstep([
      ...['quantize', moe, '--recipe', 'gptq', '--target', 'gguf:q4_0', ...SOLVER],
      ...['--report', 'report.html', '-o', 'small.gguf'],
    ])
    expect(out).toMatch(/^experts +calibrated on \d+ to \d+ rows each, \d+ of 24 filled up to 64$/m)
    const page = readFileSync(join(folder, 'report.html'), 'utf8')
    expect(page).toContain('Calibration of the experts')
    for (const row of ['q', 'experts gate', 'experts up', 'experts down'])
      expect(page).toContain(`<th>${row}</th>`)
  })

  it('have typed records in reports, and none where nothing was calibrated', async () => {
    const model = await Model.load(moe)
    const options = { data, validation, validationTokens: 64, record: true }
    const train = { samples: 2, sequenceLength: 32 }
    const { report } = await quantize(model, recipes.gptq({ target: 'gguf:q4_0', train }), options)
      .result
    expect(report.experts?.map(({ block, experts }) => [block, experts])).toEqual([
      [0, 8],
      [1, 8],
      [2, 8],
    ])
    expect(report.record?.stages[0]?.blocks[1]?.experts).toEqual(report.experts?.[1])
    const rounded = await quantize(model, recipes.rtn({ target: 'gguf:q4_0' }), options).result
    expect(rounded.report.experts).toBeUndefined()
    expect(reportPage(rounded.report)).not.toContain('Calibration of the experts')
  })

  it('are told in one line', () => {
    const record = { block: 0, experts: 8, leastRows: 70, mostRows: 1200, floor: 64, toppedUp: 0 }
    expect(calibrationOf([record])).toBe('calibrated on 70 to 1,200 rows each, none below 64')
    const few = { ...record, block: 1, leastRows: 3, toppedUp: 2 }
    expect(calibrationOf([record, few])).toBe(
      'calibrated on 3 to 1,200 rows each, 2 of 16 filled up to 64',
    )
    expect([calibrationOf([]), calibrationOf()]).toEqual([null, null])
    expect(expertPairs(null)).toEqual([])
  })
})
