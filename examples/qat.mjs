// Quantization-aware training: weights, norms and scales of the demo model learn together on the
// grid of the target. A run is an iterable of events; Ctrl-C stops it by its signal. The budget is
// tiny, so that this ends in seconds; the default is 50,000 tokens.
//
//     node examples/qat.mjs [folder for the result]
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Model, quantize, recipes } from 'halfstep'

const asset = (name) => fileURLToPath(new URL(`../assets/${name}`, import.meta.url))
const [folder = '.'] = process.argv.slice(2)
const controller = new AbortController()
process.once('SIGINT', () => controller.abort())

const model = await Model.load(asset('demo'))
const recipe = recipes.silq({
  target: 'halfstep',
  weights: 3,
  train: { tokens: 8192, sequenceLength: 128 },
})
const run = quantize(model, recipe, {
  data: asset('demo-train.txt'),
  validation: asset('demo-eval.txt'),
  validationTokens: 2048,
  signal: controller.signal,
})
for await (const event of run) {
  if (event.kind === 'phase') console.log(event.name)
  if (event.kind === 'step')
    console.log(`step ${event.step} of ${event.steps}: loss ${event.loss.toFixed(4)}`)
  if (event.kind === 'eval')
    console.log(`${event.subject}: KL ${event.evaluation.kl?.toFixed(4) ?? '-'}`)
}

const { model: small } = await run.result
const { path, bytes } = await small.save(join(folder, 'trained.safetensors'))
console.log(`${path}: ${bytes} bytes`)
