// Partial retraining (SAPR): the weights are frozen, and at 2 bits clipping and low-rank factors
// learn layer by layer, with a penalty on the rounding errors of the most important weights. The
// budget is tiny, so that this ends in seconds; the defaults are 32 sequences of 512 tokens, 5
// times.
//
//     node examples/partial-retraining.mjs [folder for the result]
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Model, quantize, recipes } from 'halfstep'

const asset = (name) => fileURLToPath(new URL(`../assets/${name}`, import.meta.url))
const [folder = '.'] = process.argv.slice(2)

const model = await Model.load(asset('demo'))
const recipe = recipes.sapr({
  weights: 2,
  rank: 4,
  saliencySamples: 4,
  train: { samples: 8, sequenceLength: 128, epochs: 2 },
})
const run = quantize(model, recipe, { data: asset('demo-train.txt') })
for await (const event of run)
  if (event.kind === 'block')
    console.log(`layer ${event.block + 1} of ${event.blocks}: error ${event.loss.toPrecision(3)}`)
const { model: small } = await run.result

const rounded = recipes.rtn({ target: 'halfstep', weights: 2, groupSize: 64, zeroPoints: true })
const baseline = (await quantize(model, rounded).result).model
const text = { data: asset('demo-eval.txt'), tokens: 2048, sequenceLength: 256 }
for (const [name, candidate] of Object.entries({ rounded: baseline, retrained: small })) {
  const { kl } = await candidate.evaluate(text, { against: model })
  console.log(`${name}: KL ${kl.toFixed(3)}`)
}
const { path, bytes } = await small.save(join(folder, 'retrained.safetensors'))
console.log(`${path}: ${bytes} bytes`)
