import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  type RecipeInput,
  type RtnOptions,
  recipes,
  type SilqOptions,
} from './generated/recipes.js'
import type { EvaluationRecord, Event } from './generated/types.js'
import { Model } from './model-node.js'
import { quantize } from './quantize.js'

/** The demo's own model and texts. */
const ASSETS = fileURLToPath(new URL('../../assets/', import.meta.url))
/** Tokens every row of the table is measured on. */
const EVALUATION_TOKENS = 4096
const SEQUENCE_LENGTH = 256
const PROMPT = 'KING:\n'

/** A grid, how SiLQ trains for it, and the file it is written to. */
interface Setting {
  name: string
  sites: SilqOptions & RtnOptions
  learningRate: number
  file: string
}

/** The export that is read again at the end. */
const GGUF = 'demo-q4_0.gguf'
const SETTINGS: readonly Setting[] = [
  {
    name: 'W4A8 q4_0',
    sites: { target: 'gguf:q4_0', weights: 4, activations: 8, cache: 8 },
    learningRate: 5e-5,
    file: GGUF,
  },
  {
    name: 'W2A8 per channel',
    sites: { target: 'halfstep', weights: 2, activations: 8, cache: 8 },
    learningRate: 4e-4,
    file: 'demo-w2.safetensors',
  },
]
/**
 * Rounding to nearest, by ggml's rule and by least squared error: the row of the table is the one
 * with the lower KL.
 */
const RTN_RULES = ['signedAbsmax', 'errorSearch'] as const
const TRAIN = { tokens: 65_536, sequenceLength: SEQUENCE_LENGTH, batch: 4 }

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
  /** Called after every training step. */
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

const kl = (row: DemoRow) => row.evaluation.kl ?? Number.POSITIVE_INFINITY

/**
 * Full precision, RTN, step search without training and SiLQ on the demo model, on two grids; then
 * the GGUF written, read again, and run.
 */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const { folder = 'halfstep-demo', signal, threads = 0 } = options
  const started = performance.now()
  const original = await Model.load(join(ASSETS, 'demo'), { signal })
  const [trainText, evalText] = [join(ASSETS, 'demo-train.txt'), join(ASSETS, 'demo-eval.txt')]
  const rows: DemoRow[] = []
  const measure = async (
    name: string,
    model: Model,
    bytes: number,
    bitsPerWeight: number,
    against?: Model,
  ): Promise<DemoRow> => {
    const evaluation = await model.evaluate(
      { data: evalText, tokens: EVALUATION_TOKENS, sequenceLength: SEQUENCE_LENGTH, threads },
      { against, signal },
    )
    return { name, bytes, bitsPerWeight, evaluation }
  }
  const add = (row: DemoRow) => {
    rows.push(row)
    options.onRow?.(row)
  }
  const inspection = original.inspect()
  add(await measure('full precision', original, inspection.fileBytes, inspection.bitsPerWeight))
  await mkdir(folder, { recursive: true })
  for (const { name, sites, learningRate, file } of SETTINGS) {
    const methods: [name: string, candidates: RecipeInput[], kept?: string][] = [
      // The rule that is better by squared error can be worse as a whole model, so both are
      // measured.
      ['RTN', RTN_RULES.map((observer) => recipes.rtn({ ...sites, observer }))],
      ['scales only', [recipes.rtn({ ...sites, observer: 'convex' })]],
      ['SiLQ', [recipes.silq({ ...sites, train: { ...TRAIN, learningRate } })], file],
    ]
    for (const [method, candidates, kept] of methods) {
      const measured: DemoRow[] = []
      for (const recipe of candidates) {
        const run = quantize(original, recipe, { data: trainText, threads, signal })
        for await (const event of run)
          if (event.kind === 'step') options.onStep?.(`${name}, ${method}`, event)
        const { model, report } = await run.result
        const bytes =
          kept === undefined
            ? (await model.toBytes()).length
            : (await model.save(join(folder, kept))).bytes
        measured.push(
          await measure(`${name}, ${method}`, model, bytes, report.bitsPerWeight, original),
        )
        model.dispose()
      }
      add(measured.reduce((best, row) => (kl(row) < kl(best) ? row : best)))
    }
  }
  const file = join(folder, GGUF)
  const reopened = await Model.load(file, { signal })
  const { text } = await reopened.generate(
    { prompt: PROMPT, maxTokens: 60, temperature: 0.8, topK: 40, seed: 1, threads },
    { signal },
  ).result
  return { rows, file, prompt: PROMPT, text, seconds: (performance.now() - started) / 1000 }
}
