/** The demo model as a GGUF file, made by the native build, and what the native build says about it. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as native from '../../ts/src/index.js'
import { temporaryFolder, tinyModel } from '../ts/tiny-model.js'
import { scenario } from './scenario.mjs'

export const root = fileURLToPath(new URL('../../', import.meta.url))

export async function demo() {
  const folder = temporaryFolder()
  const model = await native.Model.load(existsSync(join(root, 'assets/demo/config.json')) ? join(root, 'assets/demo') : tinyModel(folder))
  const path = join(folder, 'demo.gguf')
  await model.save(path)
  const bytes = new Uint8Array(readFileSync(path))
  const text = readFileSync(join(root, 'LICENSE'), 'utf8').replace(/\s+/g, ' ').slice(0, 2000)
  return { folder, path, bytes, text, expected: await scenario(native, bytes, text) }
}
