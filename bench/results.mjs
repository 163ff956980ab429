// The table of docs/results.md: makes the quantized files that are not there yet, measures each on
// both texts, and prints the table. A run that was stopped goes on where it was.
//
//     npm run build && node bench/results.mjs <model> <plays> <bible> [folder]
//
// Training reads the plays after their first 300,000 characters and without their last 60,000; what
// is measured are the first 16,384 tokens of each text.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Model, quantize, recipes } from '../ts/dist/index.js'

const [source, plays, bible, folder = 'results'] = process.argv.slice(2)
if (bible === undefined)
  throw new Error('usage: node bench/results.mjs <model> <plays> <bible> [folder]')
const MEASURED = { tokens: 16_384, sequenceLength: 512 }
/** Characters of the plays that make 32 sequences of 512 tokens. */
const CALIBRATION = 53_100

const affine = (weights, groupSize) => ({ target: 'halfstep', weights, groupSize })
const minMax = { zeroPoints: true, observer: 'absmax' }
const long = { tokens: 1_000_000, batch: 2, learningRate: 2e-4, warmup: 0.05 }
/** Name of the file, recipe, and whether it trains on the whole text. */
const ROWS = [
  ['rtn-q4_0.gguf', recipes.rtn({ target: 'gguf:q4_0', observer: 'errorSearch' })],
  ['silq-q4_0.gguf', recipes.silq({ target: 'gguf:q4_0', train: long }), true],
  ['rtn-w3g64.safetensors', recipes.rtn({ ...affine(3, 64), ...minMax })],
  ['gptq-w3g64.safetensors', recipes.gptq(affine(3, 64))],
  ['efficientqat-w3g64.safetensors', recipes.efficientqat(affine(3, 64))],
  ['efficientqat-w2g32.safetensors', recipes.efficientqat(affine(2, 32))],
  ['rtn-w2g64.safetensors', recipes.rtn({ ...affine(2, 64), ...minMax })],
  ['gptq-w2g64.safetensors', recipes.gptq(affine(2, 64))],
  ['efficientqat-w2g64.safetensors', recipes.efficientqat(affine(2, 64))],
]

mkdirSync(folder, { recursive: true })
const train = readFileSync(plays, 'utf8').slice(300_000, -60_000)
const text = { whole: join(folder, 'train.txt'), calibration: join(folder, 'calibration.txt') }
writeFileSync(text.whole, train)
writeFileSync(text.calibration, train.slice(0, CALIBRATION))

const full = await Model.load(source)
for (const [name, recipe, whole] of ROWS) {
  const file = join(folder, name)
  if (existsSync(file)) continue
  process.stderr.write(`${name}\n`)
  const runFolder = `${file}.run`
  const trained = recipe.kind !== 'rtn'
  const run = trained
    ? { data: whole ? text.whole : text.calibration, runFolder, resume: existsSync(runFolder) }
    : {}
  const { model } = await quantize(full, recipe, run).result
  const unfinished = join(folder, `unfinished-${name}`)
  await model.save(unfinished)
  renameSync(unfinished, file)
  model.dispose()
}

const digits = (x) => (x < 1 ? x.toFixed(4) : x < 1000 ? x.toFixed(2) : x.toFixed(0))
const row = (cells) => console.log(`| ${cells.join(' | ')} |`)
row(['file', 'bytes', 'KL, plays', 'perplexity', 'KL, Bible', 'perplexity'])
row(Array(6).fill('---'))
const plain = []
for (const data of [plays, bible])
  plain.push('-', digits((await full.evaluate({ data, ...MEASURED })).perplexity))
row(['full precision', full.inspect().fileBytes, ...plain])
for (const [name] of ROWS) {
  const model = await Model.load(join(folder, name))
  const cells = []
  for (const data of [plays, bible]) {
    const record = await model.evaluate({ data, ...MEASURED }, { against: full })
    cells.push(digits(record.kl), digits(record.perplexity))
  }
  row([name, model.inspect().fileBytes, ...cells])
  model.dispose()
}
