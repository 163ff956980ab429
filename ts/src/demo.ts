import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { EvaluationRecord, Event } from './generated/types.js'
import { Model } from './model-node.js'
import { quantize } from './quantize.js'
import { type Recipe, recipes } from './recipes/index.js'

/** The demo's own model and texts. */
const ASSETS = fileURLToPath(new URL('../../assets/', import.meta.url))
/** Tokens every row of the table is measured on. */
const EVALUATION_TOKENS = 4096
const WINDOW = 256
const PROMPT = 'KING:\n'

/** A grid, and how long SiLQ trains for it. */
interface Setting {
  name: string
  sites: { target: 'gguf:q4_0' | 'halfstep'; weights: number; activations: number; cache: number; groupSize?: number }
  train: { tokens: number; window: number; batch: number; learningRate: number }
}

const TRAIN = { tokens: 32_768, window: WINDOW, batch: 8, learningRate: 1e-3 }
const SETTINGS: readonly Setting[] = [
  { name: 'W4A8 q4_0', sites: { target: 'gguf:q4_0', weights: 4, activations: 8, cache: 8 }, train: TRAIN },
  { name: 'W3A8 per channel', sites: { target: 'halfstep', weights: 3, activations: 8, cache: 8 }, train: TRAIN },
]

/** What one row of the table says. */
export interface DemoRow {
  name: string
  bytes: number
  bitsPerWeight: number
  evaluation: EvaluationRecord
}

export interface DemoOptions {
  /** Where the exports go. Default `halfstep-demo`. */
  folder?: string
  signal?: AbortSignal
  /** Told of every training step. */
  onStep?: (name: string, event: Extract<Event, { kind: 'step' }>) => void
  /** Each row as soon as it is measured. */
  onRow?: (row: DemoRow) => void
  threads?: number
}

export interface DemoResult {
  rows: DemoRow[]
  /** The GGUF that was written and read again. */
  file: string
  prompt: string
  /** What the re-opened GGUF wrote. */
  text: string
  seconds: number
}

/** Full precision, RTN, step search without training and SiLQ on the demo model, on two grids; then the GGUF written, read again, and run. */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const { folder = 'halfstep-demo', signal, threads = 0 } = options
  const started = performance.now()
  const original = await Model.load(join(ASSETS, 'demo'), { signal })
  const [trainText, evalText] = [join(ASSETS, 'demo-train.txt'), join(ASSETS, 'demo-eval.txt')]
  const rows: DemoRow[] = []
  const add = async (name: string, model: Model, bytes: number, bitsPerWeight: number) => {
    const config = { data: evalText, tokens: EVALUATION_TOKENS, window: WINDOW, threads }
    const row = { name, bytes, bitsPerWeight, evaluation: await model.evaluate(config, { against: original, signal }) }
    rows.push(row)
    options.onRow?.(row)
  }
  const inspection = original.inspect()
  await add('full precision', original, inspection.fileBytes, inspection.bitsPerWeight)
  await mkdir(folder, { recursive: true })
  const file = join(folder, 'demo-q4_0.gguf')
  for (const { name, sites, train } of SETTINGS) {
    const methods: [string, Recipe][] = [
      ['RTN', recipes.rtn({ ...sites })],
      ['steps only', recipes.rtn({ ...sites, start: sites.target === 'halfstep' ? 'convex' : 'errorSearch' })],
      ['SiLQ', recipes.silq({ ...sites, train })],
    ]
    for (const [method, recipe] of methods) {
      const run = quantize(original, recipe, { data: trainText, threads, signal })
      for await (const event of run) {
        if (event.kind === 'step') options.onStep?.(`${name}, ${method}`, event)
      }
      const { model, report } = await run.result
      const bytes =
        method === 'SiLQ' ? (await model.save(sites.target === 'halfstep' ? join(folder, 'demo-w3.safetensors') : file)).bytes : (await model.toBytes()).length
      await add(`${name}, ${method}`, model, bytes, report.bitsPerWeight)
      model.dispose()
    }
  }
  const reopened = await Model.load(file, { signal })
  const { text } = await reopened.generate({ prompt: PROMPT, maxTokens: 60, temperature: 0.8, topK: 40, seed: 1, threads }, { signal }).result
  return { rows, file, prompt: PROMPT, text, seconds: (performance.now() - started) / 1000 }
}
