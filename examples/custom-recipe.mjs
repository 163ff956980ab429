// A custom recipe: rules pick sites by pattern and give each a quantizer. Here the down
// projections, whose inputs are the hardest to round, get 8 bits and all other linears 4; both are
// types of ggml, so that the file is one for llama.cpp.
//
//     node examples/custom-recipe.mjs [folder for the result]
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Model, quantize, recipes } from 'halfstep'

const asset = (name) => fileURLToPath(new URL(`../assets/${name}`, import.meta.url))
const [folder = '.'] = process.argv.slice(2)

/** What decides the stored bytes: which codes there are, who shares a scale, how it is stored. */
const Q4_0 = {
  element: { kind: 'int', bits: 4, range: 'symmetric' },
  granularity: { group: 32 },
  scale: 'f16',
}
const Q8_0 = { ...Q4_0, element: { kind: 'int', bits: 8, range: 'narrow' } }

/** Inputs of linears: a scale for every 32 values, found anew for every token. */
const inputs = {
  kind: 'dynamic',
  element: { kind: 'int', bits: 8, range: 'narrow' },
  granularity: { block: 32 },
  scale: 'f16',
}

/** @type {import('halfstep').Recipe} */
const recipe = {
  id: 'wide-down',
  target: 'gguf:q4_0',
  rules: [
    { site: 'weight', quantizer: { spec: Q4_0, observer: 'best' } },
    // The more specific rule wins.
    { site: 'weight', linears: ['down_proj'], quantizer: { spec: Q8_0, observer: 'best' } },
    { site: 'embedding', quantizer: Q8_0 },
    { site: 'head', quantizer: Q8_0 },
    { site: 'activation', quantizer: inputs },
    { site: 'headActivation', quantizer: inputs },
    { site: 'cache', quantizer: { kind: 'f16' } },
  ],
  // Without stages nothing is trained.
  stages: [],
}

const model = await Model.load(asset('demo'))
const text = { data: asset('demo-eval.txt'), tokens: 2048, sequenceLength: 256 }
const candidates = { 'all in 4 bits': recipes.rtn({ target: 'gguf:q4_0' }), 'wide down': recipe }
for (const [name, candidate] of Object.entries(candidates)) {
  const { model: small, report } = await quantize(model, candidate).result
  const { kl } = await small.evaluate(text, { against: model })
  console.log(`${name}: ${report.bitsPerWeight.toFixed(2)} bits per weight, KL ${kl.toFixed(4)}`)
  if (candidate === recipe) {
    const { path } = await small.save(join(folder, 'wide-down.gguf'))
    const { tensorTypes } = (await Model.load(path)).inspect()
    console.log(`${path}: ${JSON.stringify(tensorTypes)}`)
  }
}
