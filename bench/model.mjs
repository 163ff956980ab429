// e: a model through the package as a TypeScript user has it, and node-llama-cpp on the same file,
// in turns.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Model, quantize, recipes } from '../ts/dist/index.js'

const WRITTEN = 128
const PROMPTS = [16, 512]
const [WARM_UP, SAMPLES] = [1, 7]
const [EVALUATED, SEQUENCE_LENGTH] = [2048, 512]

export async function modelRows({ threads, model, text, wants }) {
  if (!['e.decode', 'e.prefill', 'e.eval'].some(wants)) return []
  const folder = mkdtempSync(join(tmpdir(), 'halfstep-bench-'))
  try {
    const file = join(folder, 'q4_0.gguf')
    const full = await Model.load(model)
    const rounded = await quantize(
      full,
      recipes.rtn({ target: 'gguf:q4_0', observer: 'signedAbsmax' }),
    ).result
    await rounded.model.save(file)
    rounded.model.dispose()
    const rows = wants('e.eval') ? [await evaluation(full, file, text, threads)] : []
    full.dispose()
    if (wants('e.decode') || wants('e.prefill')) rows.push(...(await speeds(file, text, threads)))
    return rows
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** KL and top-1 of the rounded model against the full one: both forwards of every token. */
async function evaluation(full, file, text, threads) {
  const model = await Model.load(file)
  const run = async (tokens) => {
    const started = performance.now()
    await model.evaluate(
      { data: text, tokens, sequenceLength: SEQUENCE_LENGTH, threads },
      { against: full },
    )
    return (performance.now() - started) / 1000
  }
  await run(SEQUENCE_LENGTH)
  // Without what does not grow with the text.
  const seconds = (await run(EVALUATED + SEQUENCE_LENGTH)) - (await run(SEQUENCE_LENGTH))
  model.dispose()
  return report({
    bench: 'e.eval',
    case: 'kl, top-1',
    contender: 'halfstep',
    threads,
    samples: 1,
    tokensPerSecond: EVALUATED / seconds,
  })
}

async function speeds(file, text, threads) {
  const model = await Model.load(file)
  const ids = await model.tokenize(readFileSync(text, 'utf8').slice(0, 20_000))
  const fileBytes = model.inspect().fileBytes
  const contenders = { halfstep: await ours(model, text, threads) }
  try {
    contenders['node-llama-cpp'] = await llamaCpp(file, ids, threads)
  } catch (error) {
    console.error(
      `skipped: node-llama-cpp next to e.prefill and e.decode: ${error.message.split('\n')[0]}`,
    )
  }
  const rows = []
  for (const prompt of PROMPTS) {
    const samples = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]))
    for (let i = 0; i < WARM_UP + SAMPLES; i++) {
      for (const [name, run] of Object.entries(contenders)) {
        const sample = await run(prompt)
        if (i >= WARM_UP) samples[name].push(sample)
      }
    }
    for (const [contender, all] of Object.entries(samples)) {
      const of = (key) => median(all.map((sample) => sample[key]))
      const gaps = all.flatMap((sample) => sample.gaps).sort((a, b) => a - b)
      const about = { contender, threads, samples: SAMPLES, footprintBytes: fileBytes }
      rows.push(
        report({
          bench: 'e.prefill',
          case: `${prompt} tokens`,
          ...about,
          tokensPerSecond: of('read'),
        }),
      )
      const tokensPerSecond = of('written')
      const gigabytesPerSecond = (tokensPerSecond * fileBytes) / 1e9
      const [p50, p95] = [0.5, 0.95].map((share) => gaps[Math.floor(share * gaps.length)] * 1000)
      rows.push(
        report({
          bench: 'e.decode',
          case: `after ${prompt}`,
          ...about,
          tokensPerSecond,
          gigabytesPerSecond,
          p50Milliseconds: p50,
          p95Milliseconds: p95,
        }),
      )
    }
  }
  await contenders['node-llama-cpp']?.dispose()
  model.dispose()
  return rows
}

/** Time of each token as JavaScript sees it: when the first comes the prompt has been read. */
function sample(promptTokens, started, arrivals) {
  const gaps = arrivals.slice(1).map((at, i) => (at - arrivals[i]) / 1000)
  const seconds = (arrivals.at(-1) - arrivals[0]) / 1000
  return {
    read: promptTokens / ((arrivals[0] - started) / 1000),
    written: gaps.length / seconds,
    gaps,
  }
}

async function ours(model, text, threads) {
  const whole = readFileSync(text, 'utf8').slice(0, 20_000)
  const perToken = whole.length / (await model.tokenize(whole)).length
  return async (tokens) => {
    const prompt = whole.slice(0, Math.round(tokens * perToken))
    const started = performance.now()
    const stream = model.generate({ prompt, maxTokens: 1 + WRITTEN, threads })
    const arrivals = []
    for await (const _ of stream) arrivals.push(performance.now())
    const { promptTokens, tokens: written } = await stream.result
    // A piece of text can hold several tokens: then the whole counts, evenly.
    const [first, last] = [arrivals[0], arrivals.at(-1)]
    const even = written.map((_, i) => first + ((last - first) * i) / (written.length - 1))
    return sample(promptTokens, started, arrivals.length === written.length ? arrivals : even)
  }
}

async function llamaCpp(file, ids, threads) {
  const { getLlama, LlamaLogLevel } = await import('node-llama-cpp')
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error })
  const model = await llama.loadModel({ modelPath: file })
  const context = await model.createContext({
    contextSize: 1024,
    batchSize: 512,
    threads: { ideal: threads, min: threads },
  })
  const sequence = context.getSequence()
  const run = async (tokens) => {
    await sequence.clearHistory()
    const started = performance.now()
    const arrivals = []
    for await (const _ of sequence.evaluate(ids.slice(0, tokens), {
      temperature: 0,
      yieldEogToken: true,
    })) {
      arrivals.push(performance.now())
      if (arrivals.length > WRITTEN) break
    }
    return sample(tokens, started, arrivals)
  }
  return Object.assign(run, { dispose: () => llama.dispose() })
}

function report(row) {
  console.error(
    `${row.bench.padEnd(10)} ${row.case.padEnd(12)} ${row.contender.padEnd(15)} ${row.tokensPerSecond.toFixed(0)} tokens/s`,
  )
  return { state: 'warm', ...row }
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1]
