// The tables of a real Qwen of 0.5B (docs/lab): makes the quantized files that are not there yet,
// measures each on both texts and prints the tables. Every file is made by a process of its own,
// whose peak memory is the run's; a row that exists is not made again, and a run that was stopped
// goes on where it was.
//
//     npm run build && node bench/real-qwen.mjs
//     node bench/real-qwen-rows.mjs <plays> <bible> [folder] [--only <part of a name>]
//     node bench/real-qwen-rows.mjs <plays> <bible> [folder] --times    the times again, alone
//     node bench/real-qwen-rows.mjs <plays> <bible> [folder] --speed    next to node-llama-cpp, alone
//
// Training reads the plays after their first 300,000 characters and without their last 60,000; what
// is measured are the first 4,096 tokens of each text, by llama.cpp the first 1,024. --times makes
// all files but SiLQ's in another folder, for their times, and --speed compares decode and prefill of
// one q4_0 file as bench/model.mjs does: nothing else should run meanwhile.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { root } from '../scripts/shell.mjs'
import { Model, quantize, recipes } from '../ts/dist/index.js'
import { modelRows } from './model.mjs'

const SOURCE = join(root, '.cache/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')
const MEASURED = { tokens: 4096, sequenceLength: 512 }
/** Tokens of each text that llama.cpp reads too. */
const COMPARED = 1024
/** Characters of the plays that make 32 sequences of 512 tokens. */
const CALIBRATION = 64_000

const three = { target: 'halfstep', weights: 3, groupSize: 64 }
const four = { target: 'gguf:q4_0' }
/** One sequence at a time needs least memory. */
const long = { tokens: 100_352, batch: 2, microBatch: 1 }
const ROWS = {
  'rtn-q4_0.gguf': recipes.rtn(four),
  'gptq-q4_0.gguf': recipes.gptq(four),
  'efficientqat-q4_0.gguf': recipes.efficientqat(four),
  'silq-q4_0.gguf': recipes.silq({ ...four, train: long }),
  'rtn-w3g64.safetensors': recipes.rtn({ ...three, zeroPoints: true, observer: 'absmax' }),
  'gptq-w3g64.safetensors': recipes.gptq(three),
  'efficientqat-w3g64.safetensors': recipes.efficientqat(three),
}
/** A checkpoint of a run of the whole model is as large as three of its models in f32. */
const STEPS_BETWEEN_CHECKPOINTS = 50

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: 'string', default: '' },
    times: { type: 'boolean', default: false },
    speed: { type: 'boolean', default: false },
    task: { type: 'string' },
  },
})
const [plays, bible, folder = 'real-qwen'] = positionals
if (bible === undefined)
  throw new Error('usage: node bench/real-qwen-rows.mjs <plays> <bible> [folder]')
const texts = { plays, bible }
const at = (name) => join(folder, name)
const trainText = { whole: at('train.txt'), calibration: at('calibration.txt') }

/** Written under another name first, so that a file that is there is whole. */
function keep(name, record) {
  const unfinished = at(`unfinished-${name}`)
  writeFileSync(unfinished, `${JSON.stringify(record, null, 2)}\n`)
  renameSync(unfinished, at(name))
}
const kept = (name) => JSON.parse(readFileSync(at(name), 'utf8'))

/** Seconds of the processors, and the most memory that this process had resident. */
function spent() {
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage()
  return { cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, peakBytes: maxRSS * 1024 }
}

/** Makes the file of a row. */
async function make(name) {
  const recipe = ROWS[name]
  const runFolder = at(`${name}.run`)
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stop.abort())
  const trained = recipe.kind !== 'rtn'
  const end = recipe.kind === 'silq'
  const options = {
    data: end ? trainText.whole : trainText.calibration,
    runFolder,
    resume: existsSync(runFolder),
    ...(end ? { checkpointEvery: STEPS_BETWEEN_CHECKPOINTS } : {}),
  }
  const started = performance.now()
  const source = await Model.load(SOURCE)
  const run = quantize(source, recipe, { ...(trained ? options : {}), signal: stop.signal })
  let losses = 0
  for await (const event of run) {
    if (event.kind !== 'step' || ++losses % 10 === 1) console.error(JSON.stringify(event))
  }
  const { model, report } = await run.result
  source.dispose()
  const unfinished = at(`unfinished-${name}`)
  await model.save(unfinished)
  const seconds = (performance.now() - started) / 1000
  const { bitsPerWeight, steps, tokens, finalLoss } = report
  const { size: bytes } = statSync(unfinished)
  const resumed = trained && options.resume
  const facts = { bytes, bitsPerWeight, steps, tokens, finalLoss, seconds, ...spent(), resumed }
  keep(`${name}.made.json`, facts)
  renameSync(unfinished, at(name))
}

/** Measures a row against the source, or the source itself. */
async function measure(name) {
  const source = await Model.load(SOURCE)
  const model = name === 'source' ? undefined : await Model.load(at(name))
  const record = {}
  for (const [text, data] of Object.entries(texts)) {
    record[text] = await (model
      ? model.evaluate({ data, ...MEASURED }, { against: source })
      : source.evaluate({ data, ...MEASURED }))
    console.error(name, text, JSON.stringify(record[text]))
  }
  keep(`${name}.measured.json`, record)
}

/**
 * Perplexity of the source here and in llama.cpp, on the same tokens in the same windows. The client
 * gives the probability of every token of the vocabulary in a map, which takes nearly all of the
 * time.
 */
async function client() {
  const { getLlama, LlamaLogLevel } = await import('node-llama-cpp')
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error })
  const ours = await Model.load(SOURCE)
  const model = await llama.loadModel({ modelPath: SOURCE })
  const [count, window] = [COMPARED, MEASURED.sequenceLength]
  const context = await model.createContext({
    contextSize: window,
    batchSize: window,
    flashAttention: false,
    threads: 2,
  })
  const sequence = context.getSequence()
  const record = {}
  for (const [text, data] of Object.entries(texts)) {
    const start = readFileSync(data, 'utf8').slice(0, 20 * count)
    const tokens = (await ours.tokenize(start)).slice(0, count)
    const theirs = model.tokenize(start, false, 'trimLeadingSpace').slice(0, count)
    const sameTokens = tokens.every((token, i) => token === theirs[i])
    let [nll, predictions] = [0, 0]
    for (let first = 0; first < count; first += window) {
      await sequence.clearHistory()
      const part = tokens.slice(first, first + window)
      await sequence.controlledEvaluate(
        part.map((token) => [token, { generateNext: { logits: true } }]),
        {
          onTokenResult(position, { next }) {
            const wanted = part[position + 1]
            if (wanted !== undefined) {
              let [largest, sum] = [-Infinity, 0]
              for (const logit of next.logits.values()) largest = Math.max(largest, logit)
              for (const logit of next.logits.values()) sum += Math.exp(logit - largest)
              nll += largest + Math.log(sum) - next.logits.get(wanted)
              predictions++
            }
            // All maps together are gigabytes.
            next.logits.clear()
          },
        },
      )
      console.error('llama.cpp', text, first + part.length, Math.exp(nll / predictions))
    }
    const { perplexity } = await ours.evaluate({ data, ...MEASURED, tokens: count })
    record[text] = { sameTokens, predictions, perplexity, theirs: Math.exp(nll / predictions) }
  }
  keep('llama-cpp.measured.json', record)
  await llama.dispose()
}

/** Decode and prefill, each as a multiple of the client's. */
async function speed() {
  const wants = (name) => name === 'e.decode' || name === 'e.prefill'
  const rows = await modelRows({ threads: 2, model: SOURCE, text: plays, wants })
  keep('speed.json', rows)
  const lines = [['bench', 'case', 'halfstep, tokens/s', 'node-llama-cpp, tokens/s', 'ratio']]
  for (const ours of rows.filter(({ contender }) => contender === 'halfstep')) {
    const same = (row) => row.bench === ours.bench && row.case === ours.case && row !== ours
    const theirs = rows.find(same)?.tokensPerSecond
    const figures = [ours.tokensPerSecond, theirs].map((x) => x?.toFixed(1) ?? '-')
    const ratio = theirs ? (ours.tokensPerSecond / theirs).toFixed(2) : '-'
    lines.push([ours.bench, ours.case, ...figures, ratio])
  }
  table(lines)
}

/** Runs one task of this script in a process of its own. */
async function inProcess(task) {
  console.error(task)
  const args = [fileURLToPath(import.meta.url), plays, bible, folder, '--task', task]
  const child = spawn(process.execPath, args, { stdio: 'inherit' })
  // A run saves its state first; this process waits for it.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
  const code = await new Promise((done) => child.on('close', done))
  if (code !== 0) process.exit(code ?? 1)
}

const number = (x) => Math.round(x).toLocaleString('en-US')
const digits = (x) => (x < 1 ? x.toFixed(4) : x < 1000 ? x.toFixed(2) : x.toFixed(0))
const table = (rows) => {
  const [header, ...rest] = rows.map((cells) => `| ${cells.join(' | ')} |`)
  console.log([header, `|${'---|'.repeat(rows[0].length)}`, ...rest, ''].join('\n'))
}

function print() {
  const done = Object.keys(ROWS).filter((name) => existsSync(at(`${name}.measured.json`)))
  const header = ['file', 'bytes']
  for (const text of ['plays', 'Bible'])
    header.push(`KL, ${text}`, `top-1, ${text}`, `perplexity, ${text}`)
  const cells = ({ plays, bible }) =>
    [plays, bible].flatMap(({ kl, top1Agreement, perplexity }) => [
      kl ? digits(kl) : '',
      top1Agreement ? `${(100 * top1Agreement).toFixed(2)}` : '',
      digits(perplexity),
    ])
  const rows = [header]
  if (existsSync(at('source.measured.json')))
    rows.push(['the source', number(statSync(SOURCE).size), ...cells(kept('source.measured.json'))])
  for (const name of done)
    rows.push([
      `\`${name}\``,
      number(statSync(at(name)).size),
      ...cells(kept(`${name}.measured.json`)),
    ])
  table(rows)
  if (existsSync(at('llama-cpp.measured.json'))) {
    const compared = [['the source', 'halfstep', 'llama.cpp', 'ratio', 'same tokens']]
    for (const [text, of] of Object.entries(kept('llama-cpp.measured.json')))
      compared.push([
        `perplexity, ${text}, ${of.predictions} predictions`,
        of.perplexity.toFixed(3),
        of.theirs.toFixed(3),
        (of.perplexity / of.theirs).toFixed(5),
        of.sameTokens ? 'yes' : 'no',
      ])
    table(compared)
  }
  const costs = [['file', 'bits per weight', 'steps', 'wall time', 'CPU time', 'peak memory']]
  for (const name of Object.keys(ROWS).filter((name) => existsSync(at(`${name}.made.json`)))) {
    const { bitsPerWeight, steps, seconds, cpuSeconds, peakBytes } = kept(`${name}.made.json`)
    const of = [bitsPerWeight.toFixed(3), number(steps), `${number(seconds)} s`]
    costs.push([
      `\`${name}\``,
      ...of,
      `${number(cpuSeconds)} s`,
      `${(peakBytes / 1e9).toFixed(2)} GB`,
    ])
  }
  table(costs)
}

async function all() {
  const train = readFileSync(plays, 'utf8').slice(300_000, -60_000)
  writeFileSync(trainText.whole, train)
  writeFileSync(trainText.calibration, train.slice(0, CALIBRATION))
  const wanted = (name) => name.includes(values.only)
  const missing = (name, kind) => wanted(name) && !existsSync(at(`${name}.${kind}.json`))
  for (const name of Object.keys(ROWS)) {
    if (values.times && ROWS[name].kind === 'silq') continue
    if (missing(name, 'made')) await inProcess(`make ${name}`)
    if (!values.times && missing(name, 'measured')) await inProcess(`measure ${name}`)
  }
  if (values.times) return print()
  if (missing('source', 'measured')) await inProcess('measure source')
  if (missing('llama-cpp', 'measured')) await inProcess('client llama-cpp')
  print()
}

const [task, name] = values.task?.split(' ') ?? []
await { make, measure, client }[task]?.(name)
if (task === undefined) {
  mkdirSync(folder, { recursive: true })
  await (values.speed ? speed() : all())
}
