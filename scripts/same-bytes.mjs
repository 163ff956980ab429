// npm run same-bytes: builds an earlier revision next to the working tree, runs the same list of
// small runs on the demo model through both command lines, one after the other, and compares the
// packed files and the loss traces on this machine. Trained and solved runs have other bytes on
// other kinds of CPU, so that no stored hash can tell what a change did to them.
//
//     npm run same-bytes -- [--against <git revision>] [--only <regex>] [--list] [--threads <n>]
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { comparePacked } from './packed-file.mjs'
import { BASELINE, twoBuilds } from './revision.mjs'
import { fail, root } from './shell.mjs'
import { compareTraces, tracedRun } from './traced-run.mjs'

// Options are flags of v0.1.0 in camel case: `true` is the flag alone, `false` is `--no-<flag>`.
// What is called differently today stands in renamed-flags.mjs.
const TEXT = { data: 'train.txt' }
const MODEL = { ...TEXT, tokens: 256, window: 32, batch: 2 }
const BLOCKS = { ...TEXT, samples: 4, window: 32, epochs: 2 }
const SOLVED = { ...TEXT, samples: 4, window: 64 }
const MEASURED = { validation: 'eval.txt', validationTokens: 256 }

const [Q4, Q8, TQ2, OWN] = ['gguf:q4_0', 'gguf:q8_0', 'gguf:tq2_0', 'halfstep']
const F32 = { arithmetic: 'f32' }
const BF16 = { arithmetic: 'bf16' }
const F16 = { arithmetic: 'f16' }
const INT8 = { arithmetic: 'int8-forward' }

/** Recipe, what is particular about the case, its options. */
const CASES = [
  ['rtn', 'q4_0, measured', { target: Q4, ...MEASURED }],
  ['rtn', 'q4_0 absmax', { target: Q4, start: 'absmax' }],
  ['rtn', 'q4_0 signed absmax', { target: Q4, start: 'signedAbsmax' }],
  ['rtn', 'q4_0 error search', { target: Q4, start: 'errorSearch' }],
  ['rtn', 'q8_0', { target: Q8 }],
  ['rtn', 'tq2_0', { target: TQ2 }],
  ['rtn', 'w2 g64 zero points', { target: OWN, weights: 2, groupSize: 64, zeroPoints: true }],
  ['rtn', 'w3 g32 zero points', { target: OWN, weights: 3, groupSize: 32, zeroPoints: true }],
  ['rtn', 'w4 per row zero points', { target: OWN, weights: 4, groupSize: 0, zeroPoints: true }],
  ['rtn', 'w2 g128 lsq', { target: OWN, weights: 2, groupSize: 128, start: 'lsq' }],
  ['rtn', 'w3 convex', { target: OWN, weights: 3, start: 'convex' }],
  ['rtn', 'w5 g128', { target: OWN, weights: 5, groupSize: 128 }],
  ['rtn', 'w8 a16 cache 32', { target: OWN, weights: 8, activations: 16, cache: 32 }],
  ['rtn', 'w4 a4 cache 4, measured', { target: OWN, activations: 4, cache: 4, ...MEASURED }],

  ['silq', 'q4_0, measured', { ...MODEL, target: Q4, ...MEASURED }],
  ['silq', 'q4_0 cache 8', { ...MODEL, target: Q4, cache: 8 }],
  ['silq', 'q4_0 f32', { ...MODEL, target: Q4, ...F32 }],
  ['silq', 'q4_0 bf16', { ...MODEL, target: Q4, ...BF16 }],
  ['silq', 'q4_0 f16', { ...MODEL, target: Q4, ...F16 }],
  ['silq', 'q4_0 int8-forward', { ...MODEL, target: Q4, ...INT8 }],
  ['silq', 'q8_0', { ...MODEL, target: Q8 }],
  ['silq', 'tq2_0', { ...MODEL, target: TQ2 }],
  ['silq', 'tq2_0 f32', { ...MODEL, target: TQ2, ...F32 }],
  ['silq', 'w2 g64', { ...MODEL, target: OWN, weights: 2, groupSize: 64 }],
  ['silq', 'w3 f32', { ...MODEL, target: OWN, weights: 3, ...F32 }],
  ['silq', 'w4 a8 cache 8', { ...MODEL, target: OWN, weights: 4, cache: 8 }],
  ['silq', 'w4 a4 cache 4 f32', { ...MODEL, target: OWN, activations: 4, cache: 4, ...F32 }],
  ['silq', 'w4 a16 cache 32', { ...MODEL, target: OWN, activations: 16, cache: 32 }],
  ['silq', 'w8 g128', { ...MODEL, target: OWN, weights: 8, groupSize: 128 }],
  ['silq', 'static a8 cache 8', { ...MODEL, target: OWN, cache: 8, staticActivations: true }],
  [
    'silq',
    'static a4 cache 4 f32',
    { ...MODEL, target: OWN, activations: 4, cache: 4, staticActivations: true, ...F32 },
  ],
  ['silq', 'steps do not learn', { ...MODEL, target: Q4, learnSteps: false }],
  ['silq', 'start lsq, edge outside', { ...MODEL, target: OWN, start: 'lsq', edge: 'outside' }],
  ['silq', 'start convex, scale by step', { ...MODEL, start: 'convex', gradientScale: 'step' }],
  ['silq', 'micro-batch 1 of 4', { ...MODEL, batch: 4, microBatch: 1 }],
  ['silq', 'recompute always', { ...MODEL, recompute: 'always' }],
  [
    'silq',
    'recompute always f32, micro-batch 2',
    {
      ...MODEL,
      ...F32,
      batch: 4,
      microBatch: 2,
      recompute: 'always',
    },
  ],
  ['silq', 'recompute never', { ...MODEL, recompute: 'never' }],
  ['silq', 'KL and next token', { ...MODEL, ceWeight: 0.5, temperature: 2, ...F32 }],
  ['silq', 'next token alone', { ...MODEL, klWeight: 0, ceWeight: 1 }],
  ['silq', 'logits in chunks', { ...MODEL, lossBytes: 200_000 }],
  [
    'silq',
    'decay, rates, seed',
    {
      ...MODEL,
      weightDecay: 0.1,
      weightStepMultiplier: 3,
      normMultiplier: 0.5,
      maxNorm: 0.1,
      seed: 7,
    },
  ],
  ['silq', 'own text with data', { ...MODEL, selfGenerated: 200 }],

  ['llm-qat', 'w4, own text', { ...MODEL, data: undefined }],
  ['llm-qat', 'w4 on data f32', { ...MODEL, ...F32 }],
  ['llm-qat', 'w3 g64 f16', { ...MODEL, weights: 3, groupSize: 64, ...F16 }],
  ['llm-qat', 'w8 cache 4', { ...MODEL, weights: 8, cache: 4 }],
  ['llm-qat', 'q4_0', { ...MODEL, target: Q4 }],
  ['llm-qat', 'q8_0', { ...MODEL, target: Q8 }],
  ['llm-qat', 'tq2_0', { ...MODEL, target: TQ2 }],

  ['gptq', 'w3 g64, measured', { ...SOLVED, ...MEASURED }],
  ['gptq', 'w2 g32 f32', { ...SOLVED, weights: 2, groupSize: 32, ...F32 }],
  ['gptq', 'w4 g128 a16 bf16', { ...SOLVED, weights: 4, groupSize: 128, activations: 16, ...BF16 }],
  ['gptq', 'w8 per row f16', { ...SOLVED, weights: 8, groupSize: 0, ...F16 }],
  ['gptq', 'own order, damping', { ...SOLVED, actOrder: false, damping: 0.1, ...INT8 }],
  ['gptq', 'own text', { ...SOLVED, data: undefined, selfGenerated: 256 }],

  ['awq', 'w3 g64', { ...SOLVED }],
  ['awq', 'w2 g32 f32', { ...SOLVED, weights: 2, groupSize: 32, ...F32 }],
  ['awq', 'w4 g128 no clip bf16', { ...SOLVED, weights: 4, groupSize: 128, clip: false, ...BF16 }],
  ['awq', 'w8 a16 cache 8 f16', { ...SOLVED, weights: 8, activations: 16, cache: 8, ...F16 }],

  ['omniquant', 'w2 g64', { ...BLOCKS }],
  ['omniquant', 'w3 g32 f32', { ...BLOCKS, weights: 3, groupSize: 32, ...F32 }],
  [
    'omniquant',
    'w4 per row a16 f16',
    {
      ...BLOCKS,
      weights: 4,
      groupSize: 0,
      activations: 16,
      ...F16,
    },
  ],
  ['omniquant', 'w8 cache 4, batch 2', { ...BLOCKS, weights: 8, cache: 4, batch: 2 }],

  ['apiq', 'w2 rank 8', { ...BLOCKS }],
  ['apiq', 'w2 rank 0', { ...BLOCKS, rank: 0 }],
  ['apiq', 'w3 rank 4 f32', { ...BLOCKS, weights: 3, rank: 4, alpha: 4, ...F32 }],
  ['apiq', 'w4 g128 bf16', { ...BLOCKS, weights: 4, groupSize: 128, ...BF16 }],
  ['apiq', 'w8 one target', { ...BLOCKS, weights: 8, secondTarget: 'off' }],
  ['apiq', 'own text with data', { ...BLOCKS, selfGenerated: 128, ...F16 }],

  ['sapr', 'scale-free, before low rank', { ...BLOCKS, saliencySamples: 2 }],
  [
    'sapr',
    'per matrix, after low rank f32',
    {
      ...BLOCKS,
      saliencySamples: 2,
      saliencyScale: 'perMatrix',
      saliencyPlace: 'afterLowRank',
      ...F32,
    },
  ],
  [
    'sapr',
    'raw, w3 rank 0',
    {
      ...BLOCKS,
      saliencySamples: 2,
      saliencyScale: 'raw',
      weights: 3,
      rank: 0,
      lambda: 10,
    },
  ],
  [
    'sapr',
    'three phases, one target bf16',
    {
      ...BLOCKS,
      saliencySamples: 3,
      penaltyEpochs: 1,
      epochs: 1,
      outputEpochs: 1,
      secondTarget: 'off',
      ...BF16,
    },
  ],

  ['efficientqat', 'w2 g64, measured', { ...BLOCKS, endTokens: 128, ...MEASURED }],
  ['efficientqat', 'w3 g32 f32', { ...BLOCKS, endTokens: 128, weights: 3, groupSize: 32, ...F32 }],
  [
    'efficientqat',
    'w4 g128 bf16, blocks alone',
    {
      ...BLOCKS,
      endTokens: 0,
      weights: 4,
      groupSize: 128,
      ...BF16,
    },
  ],
  [
    'efficientqat',
    'w8 per row, free weights',
    {
      ...BLOCKS,
      endTokens: 64,
      weights: 8,
      groupSize: 0,
      anchor: 0,
    },
  ],
  [
    'efficientqat',
    'w2 f16, ends on next token',
    {
      ...BLOCKS,
      endTokens: 128,
      endKlWeight: 0,
      endCeWeight: 1,
      ...F16,
    },
  ],
  [
    'efficientqat',
    'a16 cache 8, two targets',
    {
      ...BLOCKS,
      endTokens: 64,
      activations: 16,
      cache: 8,
      secondTarget: 'on',
    },
  ],

  ['silq', 'resumed after a kill', { ...MODEL, tokens: 2048, checkpointEvery: 3, resumed: true }],
  [
    'silq',
    'static, resumed after a kill',
    {
      ...MODEL,
      target: OWN,
      cache: 8,
      staticActivations: true,
      tokens: 2048,
      checkpointEvery: 3,
      resumed: true,
      ...F32,
    },
  ],
  ['efficientqat', 'resumed after a kill', { ...BLOCKS, epochs: 8, endTokens: 128, resumed: true }],
  ['sapr', 'resumed after a kill', { ...BLOCKS, saliencySamples: 2, epochs: 8, resumed: true }],
].map(([recipe, what, { resumed = false, ...options }]) => ({
  name: `${recipe}: ${what}`,
  recipe,
  options,
  resumed,
}))

const TRAINING_CHARACTERS = 24_000
const NAME_WIDTH = 42
const COLUMNS = 80

const { against, only, list, threads } = options()
const chosen = CASES.filter(({ name }) => only.test(name))
if (list) {
  for (const { name } of chosen) console.log(name)
  process.exit()
}
if (chosen.length === 0) fail('no case has such a name; --list shows them all')
const started = Date.now()
const { old, now } = await twoBuilds(against)
for (const build of [old, now]) build.renamed = await renamedFlags(build.root)
const folder = mkdtempSync(join(tmpdir(), 'halfstep-same-bytes-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130))

const text = readFileSync(join(root, 'assets/demo-train.txt'), 'utf8')
writeFileSync(join(folder, 'train.txt'), text.slice(0, TRAINING_CHARACTERS))
writeFileSync(join(folder, 'eval.txt'), readFileSync(join(root, 'assets/demo-eval.txt')))
const took = { old: 0, now: 0 }
let different = 0
for (const given of chosen) {
  const { differences, free } = await compare(given)
  if (differences.length > 0) different++
  console.log(line(given.name, differences, free))
}
const [all, ofOld, ofNow] = [Date.now() - started, took.old, took.now].map(
  (ms) => `${Math.round(ms / 1000)} s`,
)
console.log(`${all}: cases ${ofOld} with ${against}, ${ofNow} with the working tree`)
console.log(`${chosen.length - different} same, ${different} different`)
process.exitCode = different === 0 ? 0 : 1

function options() {
  try {
    const { values } = parseArgs({
      options: {
        against: { type: 'string', default: BASELINE },
        only: { type: 'string', default: '' },
        list: { type: 'boolean', default: false },
        threads: { type: 'string', default: '0' },
      },
    })
    return { ...values, only: new RegExp(values.only) }
  } catch (error) {
    return fail(error.message)
  }
}

/** Runs a case through both builds and returns what differs. */
async function compare(given) {
  const place = join(folder, 'case')
  try {
    const before = await timed('old', () => carriedOut(old, given, join(place, 'old')))
    const after = await timed('now', () => carriedOut(now, given, join(place, 'now')))
    const errors = [before, after].flatMap(({ error }, i) =>
      error ? `${[against, 'working tree'][i]}: ${error}` : [],
    )
    if (errors.length > 0) return { differences: errors, free: [] }
    const trace = compareTraces(before.trace, after.trace)
    const { difference, free } = comparePacked(before.file, after.file)
    return { differences: [trace, difference].filter(Boolean), free }
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

async function timed(of, work) {
  const from = Date.now()
  const result = await work()
  took[of] += Date.now() - from
  return result
}

/** One build's run of a case: { trace, file }, or { error }. */
async function carriedOut(build, given, place) {
  mkdirSync(place, { recursive: true })
  const file = join(place, `whole.${outputEnding(given)}`)
  const whole = await tracedRun(build.cli, words(build, given, file))
  if (whole.error || !given.resumed) return { ...whole, file }
  const error = await resumedError(build, given, place, { ...whole, file })
  return { ...whole, file, error }
}

/** What is wrong with a run that is killed and goes on, held against the unbroken one. */
async function resumedError(build, given, place, whole) {
  const file = join(place, `resumed.${outputEnding(given)}`)
  const args = words(build, given, file)
  const { killed, error } = await tracedRun(build.cli, args, { kill: true })
  if (!killed) return error ?? 'the run ended before it could be killed'
  const rest = await tracedRun(build.cli, [...args, ...flag(build, 'resume', true)])
  if (rest.error) return `--resume: ${rest.error}`
  if (rest.trace.length >= whole.trace.length) return '--resume began from the beginning'
  const trace = compareTraces(whole.trace.slice(-rest.trace.length), rest.trace)
  if (trace !== undefined) return `resumed against unbroken: ${trace}`
  if (readFileSync(whole.file).equals(readFileSync(file))) return undefined
  const { difference, free } = comparePacked(whole.file, file)
  return `resumed against unbroken: ${difference ?? free.join(', ')}`
}

/** silq and rtn end in a GGUF file unless told otherwise. */
function outputEnding({
  recipe,
  options: { target = recipe === 'silq' || recipe === 'rtn' ? Q4 : OWN },
}) {
  return target === OWN ? 'safetensors' : 'gguf'
}

function words(build, { recipe, options: own }, output) {
  const given = Object.entries({ recipe, ...own, threads, output }).flatMap(([key, value]) => {
    const isFile = key === 'data' || key === 'validation'
    return value === undefined ? [] : flag(build, key, isFile ? join(folder, value) : value)
  })
  return ['quantize', join(root, 'assets/demo'), ...given]
}

/** A flag as the build calls it. */
function flag(build, key, value) {
  const word = key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  const name = value === false ? `--no-${word}` : `--${word}`
  if (typeof value === 'boolean') return [build.renamed[name] ?? name]
  const both = build.renamed[`${name} ${value}`]
  return both?.split(' ') ?? [build.renamed[name] ?? name, String(value)]
}

/** The table of the build's own revision; v0.1.0 has none. */
async function renamedFlags(folder) {
  const file = join(folder, 'scripts/renamed-flags.mjs')
  return existsSync(file) ? (await import(pathToFileURL(file).href)).RENAMED : {}
}

function line(name, differences, free) {
  const start = name.padEnd(NAME_WIDTH)
  if (differences.length === 0)
    return `${start} same${free.length > 0 ? ` but for ${free.join(', ')}` : ''}`
  const one = `${start} DIFFERENT: ${differences.join('; ')}`
  return one.length <= COLUMNS ? one : [`${start} DIFFERENT:`, ...differences].join('\n    ')
}
