// The model and the text of the benches.
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { root } from '../scripts/shell.mjs'

/** What was given, else SmolLM2 and a text of HALFSTEP_SHARED, else those of the demo. */
export function inputs({ model, text }) {
  const shared = process.env.HALFSTEP_SHARED ?? join(root, '../shared')
  const or = (path, own) => (existsSync(path) ? path : join(root, own))
  const real = join(shared, 'models/SmolLM2-135M-Instruct.Q4_1.gguf')
  return {
    model: model ? resolve(model) : or(real, 'assets/demo'),
    text: text ? resolve(text) : or(join(shared, 'text/shakespeare.txt'), 'assets/demo-train.txt'),
  }
}
