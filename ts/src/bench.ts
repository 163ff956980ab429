import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { configJson } from './arguments.js'
import { called, HalfstepError } from './errors.js'
import { recipes } from './generated/recipes.js'
import type { Model } from './model.js'
import { Model as NodeModel } from './model-node.js'
import type { BenchConfig, BenchRow, BenchSummary } from './native.js'
import { loadAddon } from './native-node.js'
import { quantize } from './quantize.js'
import { Task } from './task.js'

/** The demo's own model and text. */
const ASSETS = fileURLToPath(new URL('../../assets/', import.meta.url))
const DECODE_TOKENS = 128
const [SHORT_PROMPT, LONG_PROMPT] = [16, 512]
const WARM_UP = 2
const SAMPLES = 5

export interface BenchOptions extends BenchConfig {
  /** Model to run; default: the demo model, rounded to `gguf:q4_0`. */
  model?: string
  signal?: AbortSignal
  /** Each kernel row as soon as it is measured. */
  onRow?: (row: BenchRow) => void
  /** Each way of running the model as soon as it is measured. */
  onSpeed?: (row: SpeedRow) => void
}

/** How fast a model reads or writes, through this package. */
export interface SpeedRow {
  bench: 'e.prefill' | 'e.decode'
  model: string
  /** Tokens read before (decode), or read (prefill). */
  promptTokens: number
  tokensPerSecond: number
  /** Decode: file bytes a second that this means, each token reading every weight once. */
  gigabytesPerSecond?: number
  samples: number
}

export interface BenchResult extends BenchSummary {
  rows: BenchRow[]
  speeds: SpeedRow[]
  seconds: number
}

/** Probes the machine, checks and times the kernels, then runs a model. About two minutes. */
export async function runBench(options: BenchOptions = {}): Promise<BenchResult> {
  const { model: path, signal, onRow, onSpeed, ...config } = options
  const started = performance.now()
  // A missing model fails now, and not after minutes of benches.
  const model =
    path === undefined ? await demoModel(signal) : await NodeModel.load(path, { signal })
  const name = path ?? 'demo'
  const rows: BenchRow[] = []
  const task = kernelTask(config, signal)
  for await (const { row } of task.messages()) {
    rows.push(row)
    onRow?.(row)
  }
  const summary = await task.result
  const speeds: SpeedRow[] = []
  if (!config.answers) {
    for await (const speed of modelSpeeds(model, name, config.threads ?? 0, signal)) {
      if (!`${speed.bench}/${name}`.includes(config.only ?? '')) continue
      speeds.push(speed)
      onSpeed?.(speed)
    }
  }
  model.dispose()
  return { ...summary, rows, speeds, seconds: (performance.now() - started) / 1000 }
}

function kernelTask(
  config: BenchConfig,
  signal?: AbortSignal,
): Task<{ row: BenchRow }, BenchSummary> {
  const addon = loadAddon()
  if (typeof addon === 'string' || addon.bench === undefined) {
    const native = typeof addon === 'string' ? addon : 'it has no benches'
    throw new HalfstepError('ERR_NO_BUILD', `the benches need the native addon: ${native}`, {
      native,
    })
  }
  const { bench } = addon
  const task = called(() => bench(configJson('options', config)))
  return new Task(task, (value) => value as BenchSummary, signal)
}

async function demoModel(signal?: AbortSignal): Promise<Model> {
  const original = await NodeModel.load(join(ASSETS, 'demo'), { signal })
  const { model } = await quantize(
    original,
    recipes.rtn({ target: 'gguf:q4_0', observer: 'signedAbsmax' }),
    { signal },
  ).result
  original.dispose()
  return model
}

/** Prompts of 16 and 512 tokens read, and 128 greedy tokens written after each; medians. */
export async function* modelSpeeds(
  model: Model,
  name: string,
  threads: number,
  signal?: AbortSignal,
): AsyncGenerator<SpeedRow> {
  const text = await readFile(join(ASSETS, 'demo-train.txt'), 'utf8')
  const bytes = await fileBytes(model)
  const { maxPositions } = model.inspect()
  const decodeTokens = Math.min(DECODE_TOKENS, maxPositions >> 1)
  for (const tokens of [SHORT_PROMPT, LONG_PROMPT]) {
    const prompt = await promptOf(model, text, Math.min(tokens, maxPositions >> 2))
    const read: number[] = []
    const write: number[] = []
    let promptTokens = 0
    for (let i = 0; i < WARM_UP + SAMPLES; i++) {
      const run = await timeGeneration(model, prompt, decodeTokens, threads, signal)
      promptTokens = run.promptTokens
      if (i < WARM_UP) continue
      read.push(run.promptTokens / run.readSeconds)
      write.push(run.written / run.writeSeconds)
    }
    const decode = median(write)
    yield {
      bench: 'e.prefill',
      model: name,
      promptTokens,
      tokensPerSecond: median(read),
      samples: SAMPLES,
    }
    yield {
      bench: 'e.decode',
      model: name,
      promptTokens,
      tokensPerSecond: decode,
      gigabytesPerSecond: (decode * bytes) / 1e9,
      samples: SAMPLES,
    }
  }
}

/** The size the model has or would have as a file: what a token has to read. */
async function fileBytes(model: Model): Promise<number> {
  return model.inspect().fileBytes || (await model.toBytes()).length
}

/** The beginning of `text` that has about so many tokens. */
async function promptOf(model: Model, text: string, tokens: number): Promise<string> {
  const sample = text.slice(0, 10_000)
  const perToken = sample.length / (await model.tokenize(sample)).length
  return text.slice(0, Math.round(perToken * tokens))
}

/** Time to the first token, which reads the prompt; then of the others. */
async function timeGeneration(
  model: Model,
  prompt: string,
  decodeTokens: number,
  threads: number,
  signal?: AbortSignal,
) {
  const time = async (maxTokens: number) => {
    const started = performance.now()
    const { tokens, promptTokens } = await model.generate(
      { prompt, maxTokens, threads },
      { signal },
    ).result
    return { seconds: (performance.now() - started) / 1000, tokens: tokens.length, promptTokens }
  }
  const first = await time(1)
  const all = await time(1 + decodeTokens)
  return {
    promptTokens: first.promptTokens,
    readSeconds: first.seconds,
    written: Math.max(all.tokens - 1, 1),
    writeSeconds: Math.max(all.seconds - first.seconds, Number.EPSILON),
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? Number.NaN
}
