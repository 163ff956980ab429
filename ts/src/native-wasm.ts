import { described, refusal } from './arguments.js'
import { HalfstepError } from './errors.js'
import type { Native, NativeModel, NativeTask } from './native.js'
import { modelFiles, nodeFiles, textsInline, writeWhole } from './wasm-files.js'
import { type Glue, type WasmHandle, type WasmModel, WasmRun } from './wasm-run.js'

/**
 * Where the module comes from when not from the folder of this file: its bytes, a URL or response
 * to fetch, or a compiled module.
 */
export type WasmSource = BufferSource | URL | Response | Promise<Response> | WebAssembly.Module

let loading: Promise<Native> | undefined

/**
 * Loads the WebAssembly module from `source`, before the first {@link Model.load} loads it from
 * the folder of this file. It is loaded once: after that a `source` has no effect.
 */
export async function loadWasm(source?: WasmSource): Promise<void> {
  checkSource(source)
  await wasmNative(source)
}

/** The WebAssembly build, made once; a `source` counts until one has been loaded. */
export function wasmNative(source?: WasmSource): Promise<Native> {
  if (loading === undefined) {
    loading = load(source)
    // A failed fetch may be tried again.
    loading.catch(() => {
      loading = undefined
    })
  }
  return loading
}

async function load(source: WasmSource | undefined): Promise<Native> {
  try {
    const [glue, files] = await Promise.all([import('../wasm/halfstep.js'), nodeFiles()])
    // Browsers fetch the module from the folder of the glue; Node's fetch knows no files.
    const module =
      source ??
      (files
        ? await files.readFile(new URL('../wasm/halfstep_bg.wasm', import.meta.url))
        : undefined)
    await glue.default({ module_or_path: module })
    return new WasmNative(glue)
  } catch (cause) {
    const wasm = cause instanceof Error ? cause.message : String(cause)
    const message = `WebAssembly could not be loaded: ${wasm}`
    throw new HalfstepError('ERR_NO_BUILD', message, { wasm }, { cause })
  }
}

function checkSource(source: unknown): void {
  const kinds = [ArrayBuffer, URL, Response, Promise, WebAssembly.Module]
  const isOne = ArrayBuffer.isView(source) || kinds.some((kind) => source instanceof kind)
  if (source === undefined || isOne) return
  const reason = `must be bytes, a URL, a response or a compiled module, got ${described(source)}`
  throw refusal('source', reason)
}

/**
 * The surface of the Node addon over the module. What needs a file system is done here, where there
 * is one.
 */
class WasmNative implements Native {
  readonly build = 'wasm'
  readonly #glue: Glue

  constructor(glue: Glue) {
    this.#glue = glue
  }

  get core(): object {
    return this.#glue
  }

  load(path: string): NativeTask {
    return new WasmRun(this.#glue, async () => {
      const found = await this.#files(path)
      if (found instanceof Uint8Array) return this.#glue.loadBytes(path, found)
      return this.#glue.loadFiles(path, found)
    })
  }

  inspect(path: string): NativeTask {
    return new WasmRun(this.#glue, async () => {
      const found = await this.#files(path)
      if (found instanceof Uint8Array) return this.#glue.inspectBytes(path, found)
      return this.#glue.inspectFiles(path, found)
    })
  }

  inspectBytes(name: string, bytes: Uint8Array): NativeTask {
    const copy = bytes.slice()
    return new WasmRun(this.#glue, () => this.#glue.inspectBytes(name, copy))
  }

  /** The bytes of a file, or the files of a folder in the memory of the module. */
  async #files(path: string) {
    const found = await modelFiles(path)
    if (found instanceof Uint8Array) return found
    const files = new this.#glue.WasmFiles()
    for (const name of found.names) files.add(name, await found.read(name))
    return files
  }

  loadBytes(name: string, bytes: Uint8Array): NativeTask {
    // Copied now: the caller may change or transfer its buffer before the work begins.
    const copy = bytes.slice()
    return new WasmRun(this.#glue, () => this.#glue.loadBytes(name, copy))
  }

  quantize(model: NativeModel, recipe: string, run: string): NativeTask {
    const ours = share(model)
    return new WasmRun(this.#glue, async () =>
      this.#glue.quantize(
        ours,
        recipe,
        await textsInline(run, { data: 'text', validation: 'validationText' }),
      ),
    )
  }

  evaluate(model: NativeModel, against: NativeModel | null, config: string): NativeTask {
    const [ours, reference] = [share(model), against && share(against)]
    return new WasmRun(this.#glue, async () => {
      const inlined = await textsInline(config, { data: 'text' })
      return reference
        ? this.#glue.evaluateAgainst(ours, reference, inlined)
        : this.#glue.evaluate(ours, inlined)
    })
  }

  generate(model: NativeModel, config: string): NativeTask {
    const ours = share(model)
    return new WasmRun(this.#glue, () => this.#glue.generate(ours, config))
  }

  generateAll(model: NativeModel, prompts: string, config: string): NativeTask {
    const ours = share(model)
    return new WasmRun(this.#glue, () => this.#glue.generateAll(ours, prompts, config))
  }

  tokenize(model: NativeModel, text: string, special: boolean): NativeTask {
    const ours = share(model)
    return new WasmRun(this.#glue, () => this.#glue.tokenize(ours, text, special))
  }

  logits(model: NativeModel, tokens: Uint32Array): NativeTask {
    const ours = share(model)
    const copy = tokens.slice()
    return new WasmRun(this.#glue, () => this.#glue.logits(ours, copy))
  }

  dequantize(model: NativeModel): NativeTask {
    const ours = share(model)
    return new WasmRun(this.#glue, () => this.#glue.dequantize(ours))
  }

  save(model: NativeModel, path: string): NativeTask {
    const ours = share(model)
    const start = () => this.#glue.toBytes(ours, path)
    return new WasmRun(this.#glue, start, async (outcome, task) => {
      const bytes = task.takeBytes()
      if (bytes !== undefined) await writeWhole(path, bytes)
      return outcome
    })
  }

  toBytes(model: NativeModel): NativeTask {
    const ours = share(model)
    return new WasmRun(this.#glue, () => this.#glue.toBytes(ours))
  }

  resolve(recipe: string, changes: string): string {
    return this.#glue.resolve(recipe, changes)
  }

  doctor(): string {
    return this.#glue.doctor()
  }
}

function share(model: NativeModel): WasmModel {
  return (model as WasmHandle).share()
}
