// The client's logits and ours, and how far they are apart.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ControlledEvaluateInputItem, Llama, Token } from 'node-llama-cpp'
import { expect } from 'vitest'
import { Model, quantize, recipes } from '../../ts/src/index.js'
import { reorderFeedForward } from './reorder.js'

const WINDOW = 512

/** Which logits are taken, and compared. */
export interface Choice {
  /** Every so many-th position. */
  every?: number
  /**
   * So many of the likeliest tokens, and all others as one. The client hands out a map of all of
   * them, which for a large vocabulary takes minutes.
   */
  top?: number
}

/**
 * The client's logits of every position, each window alone: rows of the vocabulary's size. Positions
 * that are not chosen are 0. Of tokens that are not chosen the row has what is left of the
 * probability, in equal parts; the next token of the window is always chosen. Threads that wait for
 * each other keep a core busy: one is faster for a tiny model.
 */
export async function clientLogits(
  llama: Llama,
  file: string,
  windows: number[][],
  vocabulary: number,
  { every = 1, top }: Choice = {},
  threads = 2,
): Promise<Float32Array[]> {
  const model = await llama.loadModel({ modelPath: file })
  const context = await model.createContext({
    contextSize: WINDOW,
    batchSize: WINDOW,
    flashAttention: false,
    threads,
  })
  const sequence = context.getSequence()
  const all = []
  for (const window of windows) {
    await sequence.clearHistory()
    const logits = new Float32Array(window.length * vocabulary)
    const chosen = (position: number): ControlledEvaluateInputItem => {
      const token = window[position] as Token
      if (position % every !== 0) return token
      if (top === undefined) return [token, { generateNext: { logits: true } }]
      const tokens = window.slice(position + 1, position + 2) as Token[]
      const filter = { includeTop: top, tokens }
      return [token, { generateNext: { logits: { filter }, totalLogitWeight: true } }]
    }
    await sequence.controlledEvaluate(
      window.map((_, position) => chosen(position)),
      {
        // Emptied as it comes, because the maps of all positions together are gigabytes.
        onTokenResult(position, { next }) {
          const row = logits.subarray(position * vocabulary, (position + 1) * vocabulary)
          if (next.totalLogitWeight !== undefined)
            row.fill(logitOfOthers(next.logits ?? new Map(), next.totalLogitWeight, vocabulary))
          for (const [token, logit] of next.logits ?? []) row[token] = logit
          next.logits?.clear()
        },
      },
    )
    all.push(logits)
  }
  await model.dispose()
  return all
}

/** The logit of each token outside `chosen`, were they all alike, by the sum of `exp(logit - max)`. */
function logitOfOthers(chosen: Map<number, number>, sum: number, vocabulary: number): number {
  const largest = Math.max(...chosen.values())
  let left = sum
  for (const logit of chosen.values()) left -= Math.exp(logit - largest)
  return largest + Math.log(Math.max(left, 1e-30) / (vocabulary - chosen.size))
}

export interface Comparison {
  kl: number
  top1: number
  /** Perplexity of the first and of the second model. */
  perplexity: [number, number]
}

/**
 * Mean KL(a || b) in nats and top-1 agreement over the chosen positions, perplexity of both. With
 * `top` the KL is that of the likeliest tokens of `a`, and of all others as one.
 */
export function compare(
  a: Float32Array[],
  b: Float32Array[],
  windows: number[][],
  vocabulary: number,
  { every = 1, top = vocabulary }: Choice = {},
): Comparison {
  let [kl, same, positions, nllA, nllB, predictions] = [0, 0, 0, 0, 0, 0]
  windows.forEach((window, w) => {
    for (let position = 0; position < window.length; position += every) {
      const [x, y] = [a[w], b[w]].map((logits) =>
        logSoftmax(
          logits?.subarray(position * vocabulary, (position + 1) * vocabulary) ??
            new Float32Array(),
        ),
      )
      if (!x || !y) throw new Error('no logits')
      kl += divergence(x.logs, y.logs, top)
      same += x.top === y.top ? 1 : 0
      positions++
      const next = window[position + 1]
      if (next === undefined) continue
      nllA -= x.logs[next] ?? 0
      nllB -= y.logs[next] ?? 0
      predictions++
    }
  })
  return {
    kl: kl / positions,
    top1: same / positions,
    perplexity: [Math.exp(nllA / predictions), Math.exp(nllB / predictions)],
  }
}

/** KL of two distributions by their logarithms, over the `top` likeliest of `x` and the rest. */
function divergence(x: Float64Array, y: Float64Array, top: number): number {
  const least = top < x.length ? (x.toSorted()[x.length - top] ?? 0) : Number.NEGATIVE_INFINITY
  let [sum, restX, restY] = [0, 1, 1]
  for (let v = 0; v < x.length; v++) {
    const [logX, logY] = [x[v] ?? 0, y[v] ?? 0]
    if (logX < least) continue
    const probability = Math.exp(logX)
    sum += probability * (logX - logY)
    restX -= probability
    restY -= Math.exp(logY)
  }
  if (top >= x.length || restX <= 0 || restY <= 0) return sum
  return sum + restX * Math.log(restX / restY)
}

function logSoftmax(logits: Float32Array): { logs: Float64Array; top: number } {
  let top = 0
  for (let v = 1; v < logits.length; v++) if ((logits[v] ?? 0) > (logits[top] ?? 0)) top = v
  const largest = logits[top] ?? 0
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - largest)
  const logSum = largest + Math.log(sum)
  // A plain loop: `Float64Array.from` takes several times as long.
  const logs = new Float64Array(logits.length)
  for (let v = 0; v < logits.length; v++) logs[v] = (logits[v] ?? 0) - logSum
  return { logs, top }
}

export async function windowsOf(model: Model, text: string, count: number): Promise<number[][]> {
  const tokens = await model.tokenize(text)
  return Array.from({ length: count }, (_, i) => tokens.slice(i * WINDOW, (i + 1) * WINDOW))
}

export async function ourLogits(model: Model, windows: number[][]): Promise<Float32Array[]> {
  const all = []
  for (const window of windows) all.push(await model.logits(window))
  return all
}

/**
 * Our runtime and the client on the same file, and our runtime with its sums in another order,
 * compared at the chosen logits.
 */
export async function measure(
  llama: Llama,
  folder: string,
  source: Model,
  target: 'gguf:q4_0' | 'gguf:q4_1' | 'gguf:q8_0',
  text: string,
  count: number,
  choice: Choice,
): Promise<{ client: Comparison; floor: Comparison }> {
  const vocabulary = source.inspect().vocabSize
  const { model } = await quantize(source, recipes.rtn({ target })).result
  const file = join(folder, `${vocabulary}-${target.slice(5)}.gguf`)
  await model.save(file)
  const windows = await windowsOf(model, text, count)
  const ours = await ourLogits(model, windows)
  model.dispose()
  const reordered = await Model.load(reorderFeedForward(readFileSync(file)))
  const floor = compare(ours, await ourLogits(reordered, windows), windows, vocabulary, choice)
  reordered.dispose()
  const client = compare(
    await clientLogits(llama, file, windows, vocabulary, choice),
    ours,
    windows,
    vocabulary,
    choice,
  )
  const perplexity = client.perplexity.map((p) => p.toFixed(3)).join(' against ')
  console.log(
    `${target}: KL(client, ours) ${client.kl.toExponential(2)}, ` +
      `noise floor ${floor.kl.toExponential(2)}, perplexity ${perplexity}`,
  )
  return { client, floor }
}

/** Expects the client to split a text into the ids that we split it into. */
export async function expectSameTokens(
  llama: Llama,
  model: Model,
  file: string,
  text: string,
): Promise<void> {
  const client = await llama.loadModel({ modelPath: file, vocabOnly: true })
  expect(Array.from(client.tokenize(text, false, 'trimLeadingSpace'))).toEqual(
    await model.tokenize(text),
  )
  await client.dispose()
}
