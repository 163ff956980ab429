// What each part of SiLQ is worth, on the demo model, over several seeds. Prints a markdown table
// for docs/lab.
//
//     npm run build && node bench/ablations.mjs [tokens] [seeds]
//
// Every run trains on assets/demo-train.txt and is measured on the first 8,192 tokens of
// assets/demo-eval.txt, which no run trains on.
import { fileURLToPath } from 'node:url'
import { Model, quantize, recipes } from '../ts/dist/index.js'

const assets = (name) => fileURLToPath(new URL(`../assets/${name}`, import.meta.url))
const [tokens = 32_768, seeds = 3] = process.argv.slice(2).map(Number)

const TRAIN = { tokens, sequenceLength: 256, batch: 4, learningRate: 3e-4 }
const SITES = { target: 'halfstep', weights: 3, activations: 8, cache: 8 }
const silq =
  (sites = {}, train = {}) =>
  (seed) =>
    recipes.silq({ ...SITES, ...sites, train: { ...TRAIN, ...train, seed } })

const VARIANTS = [
  ['SiLQ: error search start, learned steps, KL, dynamic A8, cache 8', silq()],
  ['steps frozen', silq({ learnScales: false })],
  ["start: ggml's signed rule", silq({ observer: 'signedAbsmax' })],
  ['start: absmax', silq({ observer: 'absmax' })],
  ["start: LSQ's rule", silq({ observer: 'lsq' })],
  ['start: convex', silq({ observer: 'convex' })],
  ['cross-entropy instead of KL', silq({}, { klWeight: 0, ceWeight: 1 })],
  ['static activations and cache', silq({ staticActivations: true })],
  ['cache 4 bit', silq({ cache: 4 })],
]
const UNTRAINED = [
  ["RTN, ggml's signed rule", recipes.rtn({ ...SITES, observer: 'signedAbsmax' })],
  ['RTN, error search', recipes.rtn({ ...SITES, observer: 'errorSearch' })],
  ['convex steps, no training', recipes.rtn({ ...SITES, observer: 'convex' })],
]

const model = await Model.load(assets('demo'))
const measure = async (recipe) => {
  const { model: small } = await quantize(model, recipe, { data: assets('demo-train.txt') }).result
  const record = await small.evaluate(
    { data: assets('demo-eval.txt'), tokens: 8192, sequenceLength: 256 },
    { against: model },
  )
  small.dispose()
  return record
}
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length
const spread = (values) => Math.max(...values) - Math.min(...values)
const row = (name, records) => {
  const column = (key, digits) => {
    const values = records.map((record) => record[key])
    return (
      mean(values).toFixed(digits) +
      (values.length > 1 ? ` (${spread(values).toFixed(digits)})` : '')
    )
  }
  console.log(
    `| ${name} | ${column('kl', 4)} | ${column('perplexity', 2)} | ${column('top1Agreement', 4)} |`,
  )
}

const full = await model.evaluate({
  data: assets('demo-eval.txt'),
  tokens: 8192,
  sequenceLength: 256,
})
console.log(
  `W3A8 per channel, ${tokens} tokens, mean of ${seeds} seeds (largest minus smallest). Full precision: perplexity ${full.perplexity.toFixed(2)}.\n`,
)
console.log('| variant | KL | perplexity | top-1 |\n|---|---|---|---|')
for (const [name, recipe] of UNTRAINED) row(name, [await measure(recipe)])
for (const [name, recipe] of VARIANTS) {
  const records = []
  for (let seed = 0; seed < seeds; seed++) records.push(await measure(recipe(seed)))
  row(name, records)
}
