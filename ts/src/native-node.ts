import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { HalfstepError } from './errors.js'
import type { Native } from './native.js'

const require = createRequire(import.meta.url)
/** Names a platform's addon may have; where there are several, only one loads. */
const LIBRARIES =
  process.platform === 'linux' ? ['-gnu', '-musl'] : process.platform === 'win32' ? ['-msvc'] : ['']
/** Set to `wasm` or `native` to have that build and no other. */
const CHOICE = 'HALFSTEP_BUILD'

let loading: Promise<Native> | undefined

/** The native addon, or WebAssembly with one line on stderr saying why. Loaded once. */
export function nodeNative(): Promise<Native> {
  loading ??= load()
  return loading
}

async function load(): Promise<Native> {
  const choice = process.env[CHOICE]
  const addon = choice === 'wasm' ? `${CHOICE}=wasm` : loadAddon()
  if (typeof addon !== 'string') return addon
  if (choice === 'native')
    throw new HalfstepError('ERR_NO_BUILD', `no native addon: ${addon}`, { native: addon })
  try {
    const { wasmNative } = await import('./native-wasm.js')
    const wasm = await wasmNative()
    process.stderr.write(
      `halfstep: no native addon (${addon}); using WebAssembly: slower, one thread, no training\n`,
    )
    return wasm
  } catch (error) {
    const { wasm } = (error as HalfstepError).details
    throw new HalfstepError(
      'ERR_NO_BUILD',
      `neither the native addon (${addon}) nor WebAssembly (${wasm}) could be loaded`,
      { native: addon, wasm },
    )
  }
}

/** The addon of this platform, or the reason there is none. */
export function loadAddon(): Native | string {
  const reasons: string[] = []
  for (const library of LIBRARIES) {
    const file = `halfstep.${process.platform}-${process.arch}${library}.node`
    try {
      const path = fileURLToPath(new URL(`../native/${file}`, import.meta.url))
      const core = require(path) as Omit<Native, 'build' | 'core'>
      return { ...core, build: 'native', core }
    } catch (error) {
      const absent = (error as { code?: string }).code === 'MODULE_NOT_FOUND'
      reasons.push(
        absent ? `${file} is not there` : `${file}: ${(error as Error).message.split('\n')[0]}`,
      )
    }
  }
  return reasons.join('; ')
}
