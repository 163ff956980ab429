/**
 * The demo model as a GGUF file, made by the native build, and what the native build says about it.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as native from '../../ts/src/index.js'
import { loadAddon } from '../../ts/src/native-node.js'
import { temporaryFolder } from '../ts/tiny-model.js'
import { scenario } from './scenario.mjs'

export const root = fileURLToPath(new URL('../../', import.meta.url))

export async function demo() {
  const addon = loadAddon()
  // Without it `native` would be WebAssembly too, and equal to itself.
  if (typeof addon === 'string')
    throw new Error(`these tests compare with the native build: ${addon}`)
  const folder = temporaryFolder()
  const source = join(root, 'assets/demo')
  const path = join(folder, 'demo.gguf')
  const model = await native.Model.load(source)
  await model.save(path)
  const bytes = new Uint8Array(readFileSync(path))
  const text = readFileSync(join(root, 'assets/demo-eval.txt'), 'utf8').slice(0, 2000)
  return { source, folder, path, bytes, text, expected: await scenario(native, bytes, text) }
}
