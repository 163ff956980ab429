/**
 * What a plan says, from TypeScript and on the command line; that it says the truth,
 * crates/core/tests/plan.rs tests.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { Model, type Plan, plan, recipes } from '../../ts/src/index.js'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const cli = fileURLToPath(new URL('../../ts/dist/cli.js', import.meta.url))
const folder = temporaryFolder()
const [path, data] = [tinyModel(folder), tinyText(folder)]
const APIQ = [
  '--recipe',
  'apiq',
  '--data',
  data,
  '--samples',
  '6',
  '--sequence-length',
  '32',
  '--epochs',
  '2',
  '--validation',
  data,
  '--validation-tokens',
  '128',
]

function halfstep(
  args: string[],
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [cli, ...args], {
      cwd: folder,
      env: { ...process.env, COLUMNS: '80' },
    })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (piece) => (stdout += piece))
    child.stderr.on('data', (piece) => (stderr += piece))
    child.on('close', (code) => done({ code, stdout, stderr }))
  })
}

describe('plan', () => {
  it('tells steps, sizes and stages, and which part it tries', async () => {
    const tried: string[] = []
    const onEvent = (event: { kind: string; detail?: string }) => tried.push(event.detail ?? '')
    const recipe = recipes.efficientqat({
      groupSize: 32,
      train: { samples: 4, sequenceLength: 32 },
      endTokens: 1024,
    })
    const made = await plan(await Model.load(path), recipe, {
      data,
      validation: data,
      validationTokens: 128,
      runFolder: join(folder, 'never'),
      onEvent,
    })
    expect(made).toMatchObject({
      recipe: 'efficientqat',
      target: 'halfstep',
      bitsPerWeight: expect.closeTo(2.611, 3),
      steps: 2 * 20 + 32,
    })
    expect(made.stages.map(({ name, steps }) => [name, steps])).toEqual([
      ['blocks', 40],
      ['model', 32],
      ['evaluate', 0],
    ])
    expect(tried.length).toBeGreaterThanOrEqual(2)
    expect(existsSync(join(folder, 'never'))).toBe(false)
  })

  it('is refused as the run would be', async () => {
    const model = await Model.load(path)
    await expect(plan(model, recipes.silq())).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    await expect(
      plan(model, recipes.apiq({ train: { samples: 1e6 } }), { data }),
    ).rejects.toMatchObject({ code: 'ERR_DATA' })
    await expect(plan(model, recipes.rtn(), { signal: AbortSignal.abort() })).rejects.toMatchObject(
      { code: 'ERR_CANCELLED' },
    )
  })
})

describe('of a config.json alone', () => {
  const config = {
    architectures: ['Qwen2ForCausalLM'],
    model_type: 'qwen2',
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 5,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    vocab_size: 20_000,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: true,
    torch_dtype: 'bfloat16',
  }
  const bare = join(folder, 'bare')
  mkdirSync(bare)
  const configFile = join(bare, 'config.json')
  writeFileSync(configFile, JSON.stringify(config))
  const recipe = recipes.gptq({ groupSize: 32, train: { samples: 2, sequenceLength: 32 } })

  it('counts all layers and all rows of the vocabulary', async () => {
    const made = await plan(configFile, recipe, { freeMemoryBytes: 1e12 })
    const linears = 5 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    const weights = linears + 20_000 * 64
    expect(made.fits).toBe(true)
    expect(made.freeMemoryBytes).toBe(1e12)
    expect(made.bitsPerWeight).toBeGreaterThan(3)
    // 3 bits in layers, 8 in the embedding, their scales on top.
    expect(made.outputBytes).toBeGreaterThan((3 * linears + 8 * 64 * 20_000) / 8)
    expect(made.outputBytes).toBeLessThan(1.3 * weights)
    const little = await plan(configFile, recipe, { freeMemoryBytes: 1e6 })
    expect(little).toMatchObject({ fits: false, advice: expect.stringContaining('samples') })
  })

  it('is what a folder without weights gives on the command line', async () => {
    const flags = ['--recipe', 'rtn', '--free-memory', '0.001']
    const { code, stdout, stderr } = await halfstep(['plan', bare, ...flags])
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(stdout).toMatch(/^It does not fit: it needs \S+ MB of memory, and 1\.00 MB are free/m)
    expect(stdout).toContain(configFile.slice(-20))
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
  })

  it('refuses what it cannot plan, naming it', async () => {
    const unknown = join(folder, 'unknown.json')
    writeFileSync(unknown, JSON.stringify({ ...config, architectures: ['DeepseekV3ForCausalLM'] }))
    await expect(plan(unknown, recipe)).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED' })
    await expect(plan(join(folder, 'absent.json'), recipe)).rejects.toMatchObject({
      code: 'ERR_IO',
    })
    await expect(plan(configFile, recipe, { freeMemoryBytes: 0 })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      details: { field: 'freeMemoryBytes' },
    })
    const ended = await halfstep(['plan', configFile, '--free-memory', 'much'])
    expect(ended.stderr).toContain('it must be a number of gigabytes above 0')
  })
})

describe('halfstep plan', () => {
  it('fits 80 columns, says whether the run fits, and writes nothing', async () => {
    const before = readdirSync(folder)
    const { code, stdout } = await halfstep([
      'plan',
      path,
      ...APIQ,
      '-o',
      'small.safetensors',
      '--report',
      'page.html',
    ])
    expect(code).toBe(0)
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
    expect(stdout).toMatch(/^blocks +24 +\S+ +0:\d\d +\S+ MB +\S+ kB$/m)
    expect(stdout).toMatch(/^saliency +- +- /m)
    expect(stdout).toMatch(/^total +24 +- /m)
    expect(stdout).toMatch(
      process.platform === 'linux' ? /^It fits: it needs \S+ MB of memory/m : /memory/,
    )
    expect(readdirSync(folder)).toEqual(before)
  })

  it('gives one object, which the run of the same flags keeps', async () => {
    const planned = await halfstep(['plan', path, ...APIQ, '-o', 'same.safetensors', '--json'])
    expect({ code: planned.code, stderr: planned.stderr }).toEqual({ code: 0, stderr: '' })
    const made = JSON.parse(planned.stdout) as Plan & { freeDiskBytes: number }
    expect(made.freeDiskBytes).toBeGreaterThan(0)
    expect((await halfstep(['quantize', path, ...APIQ, '-o', 'same.safetensors'])).code).toBe(0)
    expect(
      Math.abs(made.outputBytes - statSync(join(folder, 'same.safetensors')).size),
    ).toBeLessThan(256)
  })

  it('fails as quantize would', async () => {
    const ended = await halfstep([
      'plan',
      path,
      '--data',
      data,
      '--target',
      'gguf:q4_0',
      '--weights',
      '3',
    ])
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain('error ERR_TARGET: ')
  })
})
