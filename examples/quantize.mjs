// Rounds the demo model to a file for llama.cpp, without training, and measures what that costs.
//
//     node examples/quantize.mjs [folder for the result]
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Model, quantize, recipes } from 'halfstep'

const asset = (name) => fileURLToPath(new URL(`../assets/${name}`, import.meta.url))
const [folder = '.'] = process.argv.slice(2)

const model = await Model.load(asset('demo'))
const { model: small, report } = await quantize(model, recipes.rtn({ target: 'gguf:q4_0' })).result

const text = { data: asset('demo-eval.txt'), tokens: 2048, sequenceLength: 256 }
const before = await model.evaluate(text)
const after = await small.evaluate(text, { against: model })
console.log(`${report.bitsPerWeight} bits per weight instead of 16`)
console.log(`perplexity ${before.perplexity.toFixed(2)}, rounded ${after.perplexity.toFixed(2)}`)
console.log(`KL divergence ${after.kl.toFixed(4)} nats`)

const { path, bytes } = await small.save(join(folder, 'rounded.gguf'))
console.log(`${path}: ${bytes} bytes`)
