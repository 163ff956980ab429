import {
  checkedFlag,
  checkedFunction,
  checkedOptions,
  checkedSignal,
  checkedText,
  checkedWhole,
  configJson,
  described,
  fromJson,
  refusal,
  toJson,
} from './arguments.js'
import { type ModelParts, PARTS, partsOf, VERSION } from './copies.js'
import { called, HalfstepError } from './errors.js'
import type {
  EvaluateConfig,
  EvaluationRecord,
  Generation,
  GenerationConfig,
  Inspection,
  SaveReport,
} from './generated/types.js'
import { GenerationStream } from './generation.js'
import type { Native, NativeModel, NativeTask, Outcome } from './native.js'
import { stopOnAbort } from './signal.js'
import { settle, Task } from './task.js'

/** Token ids are 32-bit numbers. */
const LARGEST_TOKEN = 2 ** 32 - 1

/** Options of {@link Model.load}. */
export interface LoadOptions {
  /** Stops the loading; what was read is dropped. */
  signal?: AbortSignal
  /** Name, in errors, of a model that is loaded from bytes. Default `bytes`. */
  name?: string
}

/** Options of an evaluation. Every field has a default, but `data` or `text` is required. */
export type EvaluateOptions = Partial<EvaluateConfig>

/** Further options of {@link Model.evaluate}. */
export interface EvaluateRunOptions {
  /** Also measure KL and top-1 agreement against this model, over the same positions. */
  against?: Model
  /** Called with the number of tokens that are done and the total. */
  onProgress?: (done: number, total: number) => void
  /** Stops the evaluation. */
  signal?: AbortSignal
}

/** Options of a generation. Every field has a default, but `prompt` or `messages` is required. */
export type GenerateOptions = Partial<GenerationConfig>

/**
 * The build and handle of a model, of whatever copy of this package. Throws `ERR_CONFIG`, which
 * names the argument, for what is none, and `ERR_DISPOSED`.
 */
export function parts(model: Model, argument = 'model'): { native: Native; handle: NativeModel } {
  const found = partsOf(model)
  if (found === undefined) {
    const hint = model instanceof Promise ? '; await it' : ''
    throw refusal(argument, `must be a Model, got ${described(model)}${hint}`)
  }
  const { version, native, handle } = found
  if (version !== VERSION) {
    const reason = `it was loaded by halfstep ${version}, and this is halfstep ${VERSION}`
    throw refusal(argument, reason)
  }
  if (handle === undefined) throw new HalfstepError('ERR_DISPOSED', 'the model was disposed')
  return { native, handle }
}

/** The model that `task` made, of the same class and build as `like`, disposed or not. */
export let adopt: (like: Model, task: NativeTask) => Model

/** The path that a file: URL names; nothing is fetched. */
function filePath(url: URL): string {
  if (url.protocol !== 'file:')
    throw refusal('source', `must be a file: URL; download ${url.href} and pass its path or bytes`)
  try {
    // A drive letter has no slash before it.
    return decodeURIComponent(url.pathname).replace(/^\/([A-Za-z]:)/, '$1')
  } catch {
    throw refusal('source', `${url.href} is not the address of a file`)
  }
}

/** The path or the bytes of a model; throws `ERR_CONFIG` for anything else. */
export function checkedSource(source: string | URL | Uint8Array): string | Uint8Array {
  const from = source instanceof URL ? filePath(source) : source
  if (typeof from === 'string') return checkedText('source', from)
  if (from instanceof Uint8Array) return from
  const got = described(from)
  throw refusal(
    'source',
    `must be a path, a file: URL or the bytes of a file (Uint8Array), got ${got}`,
  )
}

/** Options of loading, checked. */
export function checkedLoad(options: LoadOptions): { signal?: AbortSignal; name: string } {
  const { signal, name } = checkedOptions('options', options, ['signal', 'name'])
  return {
    signal: checkedSignal(signal),
    name: name === undefined ? 'bytes' : checkedText('name', name),
  }
}

/** The signal of the last argument of a method, which has no other option. */
function signalOf(run: { signal?: AbortSignal }): AbortSignal | undefined {
  return checkedSignal(checkedOptions('run', run, ['signal']).signal)
}

/** Token ids, each of which is one. */
function checkedTokens(tokens: ArrayLike<number>): Uint32Array {
  if (!Array.isArray(tokens) && !(ArrayBuffer.isView(tokens) && 'length' in tokens))
    throw refusal('tokens', `must be a list of token ids, got ${described(tokens)}`)
  return Uint32Array.from(tokens, (token, i) =>
    checkedWhole(`tokens[${i}]`, token, 0, LARGEST_TOKEN),
  )
}

/** A model in memory, full precision or quantized, of any entry point of the package. */
export class Model {
  /**
   * The entry point of the class: an object of another copy's class of the same entry point is an
   * instance of it too.
   */
  protected static readonly entry: string = 'any'
  readonly #native: Native
  #handle: NativeModel | undefined

  /** Use {@link Model.load}. */
  protected constructor(native: Native, handle: NativeModel) {
    this.#native = native
    this.#handle = handle
  }

  /**
   * The build of the Rust core behind this class; each entry point of the package names its own.
   */
  protected static native(): Promise<Native> {
    return Promise.reject(
      new HalfstepError('ERR_NO_BUILD', 'import Model from halfstep or halfstep/wasm'),
    )
  }

  /** A model of another copy of this package is one too. */
  static [Symbol.hasInstance](value: unknown): boolean {
    // A class that somebody derived has only its own instances.
    if (!Object.hasOwn(this, 'entry') || this.entry === 'any')
      return Function.prototype[Symbol.hasInstance].call(this, value)
    const found = partsOf(value)
    return found?.entry === this.entry && found.version === VERSION
  }

  /**
   * What other copies of this package may know of the model.
   *
   * @internal
   */
  [PARTS](): ModelParts {
    const { entry } = this.constructor as typeof Model
    return { version: VERSION, entry, native: this.#native, handle: this.#handle }
  }

  /**
   * Reads a model: a GGUF file, a `halfstep` safetensors file or a Hugging Face folder by its path,
   * or one file's bytes.
   *
   * Throws a {@link HalfstepError}: `ERR_IO` (it does not exist), `ERR_FORMAT` (damaged; file,
   * offset, reason), `ERR_UNSUPPORTED` (named), `ERR_MISSING_TENSOR`, `ERR_SHAPE`, `ERR_MEMORY`.
   */
  static async load(source: string | URL | Uint8Array, options: LoadOptions = {}): Promise<Model> {
    const { signal, name } = checkedLoad(options)
    const from = checkedSource(source)
    const native = await this.native()
    const task = called(() =>
      typeof from === 'string' ? native.load(from) : native.loadBytes(name, from),
    )
    const loaded = new Task(task, (_, done) => new this(native, made(done.takeModel())), signal)
      .result
    if (signal === undefined) return loaded
    // Reading has no micro-steps to stop at: the wait ends now, the model when it comes.
    const aborted = new Promise<never>((_, reject) => {
      const stop = () =>
        reject(new HalfstepError('ERR_CANCELLED', 'cancelled', {}, { cause: signal.reason }))
      const release = stopOnAbort(signal, { stop, isOver: () => false })
      loaded.finally(release).catch(() => {})
    })
    return Promise.race([aborted, loaded]).catch((error: unknown) => {
      loaded.then((model) => model.dispose()).catch(() => {})
      throw error
    })
  }

  /** The contents of the model: sizes, storage types, target, provenance. */
  inspect(): Inspection {
    const { handle } = parts(this)
    return settle(fromJson(called(() => handle.inspect())) as Outcome<Inspection>)
  }

  /**
   * Perplexity over a text and, `against` another model with the same vocabulary, mean KL and top-1
   * agreement.
   *
   * Throws `ERR_DATA` for an empty or too short text, `ERR_CONFIG` for an invalid option,
   * `ERR_CANCELLED`.
   */
  async evaluate(
    options: EvaluateOptions = {},
    run: EvaluateRunOptions = {},
  ): Promise<EvaluationRecord> {
    const { native, handle } = parts(this)
    const { against, onProgress, signal } = checkedOptions('run', run, [
      'against',
      'onProgress',
      'signal',
    ])
    checkedFunction('onProgress', onProgress)
    checkedSignal(signal)
    const reference = against === undefined ? undefined : parts(against, 'against')
    if (reference !== undefined && reference.native.core !== native.core)
      throw refusal('against', otherBuild(reference.native, native))
    const config = configJson('options', options)
    const task = new Task<{ done: number; total: number }, EvaluationRecord>(
      called(() => native.evaluate(handle, reference?.handle ?? null, config)),
      (value) => value as EvaluationRecord,
      signal,
    )
    if (onProgress) for await (const { done, total } of task.messages()) onProgress(done, total)
    return task.result
  }

  /**
   * Generates text from a prompt or a conversation: iterate the stream for the text as it comes,
   * await its `result` for the whole.
   * Greedy unless `temperature` is given; the same seed gives the same text.
   */
  generate(options: GenerateOptions = {}, run: { signal?: AbortSignal } = {}): GenerationStream {
    const { native, handle } = parts(this)
    const [signal, config] = [signalOf(run), configJson('options', options)]
    const task = called(() => native.generate(handle, config))
    return new GenerationStream(new Task(task, (value) => value as Generation, signal))
  }

  /**
   * Continues several prompts at once and gives all texts together: faster than one after the
   * other, since every weight that is read serves all of them. Each text is
   * the one that {@link Model.generate} gives for its prompt alone.
   */
  async generateAll(
    prompts: readonly string[],
    options: Omit<GenerateOptions, 'prompt' | 'messages'> = {},
    run: { signal?: AbortSignal } = {},
  ): Promise<Generation[]> {
    const { native, handle } = parts(this)
    if (!Array.isArray(prompts))
      throw refusal('prompts', `must be a list of texts, got ${described(prompts)}`)
    const texts = Array.from(prompts, (prompt, i) => checkedText(`prompts[${i}]`, prompt))
    const [signal, config] = [signalOf(run), configJson('options', options)]
    const task = called(() => native.generateAll(handle, toJson('prompts', texts), config))
    return new Task(task, (value) => value as Generation[], signal).result
  }

  /**
   * Token ids of a text. With `special`, special tokens in the text are recognised and begin and
   * end tokens are added if the model asks for them; without, the text is plain.
   */
  async tokenize(text: string, options: { special?: boolean } = {}): Promise<number[]> {
    const { native, handle } = parts(this)
    const { special } = checkedOptions('options', options, ['special'])
    const [of, marked] = [checkedText('text', text), checkedFlag('special', special)]
    const task = called(() => native.tokenize(handle, of, marked))
    return new Task(task, (value) => value as number[]).result
  }

  /**
   * Logits of a sequence run from position 0: `tokens.length` rows of the vocabulary's size, in the
   * model's own arithmetic.
   */
  async logits(tokens: ArrayLike<number>): Promise<Float32Array> {
    const { native, handle } = parts(this)
    const ids = checkedTokens(tokens)
    const task = called(() => native.logits(handle, ids))
    const bytes = await new Task(task, (_, done) => made(done.takeBytes())).result
    return new Float32Array(
      bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    )
  }

  /**
   * The model's values as a full-precision f32 model: blocks and codes decoded, nothing quantized
   * any more. Saved as .gguf it is an F32 file.
   */
  async dequantize(): Promise<Model> {
    const { native, handle } = parts(this)
    const task = called(() => native.dequantize(handle))
    return new Task(task, (_, done) => adopt(this, done)).result
  }

  /**
   * Writes the model to a file, whole or not at all: GGUF or the `halfstep` layout as its target
   * says; a full-precision model by the path's ending (.gguf or .safetensors).
   * The file of a quantized model is read again and compared with the model first: `ERR_PARITY` if
   * one code, scale or output differs.
   */
  async save(path: string): Promise<SaveReport> {
    const { native, handle } = parts(this)
    const to = checkedText('path', path)
    const task = called(() => native.save(handle, to))
    return new Task(task, (value) => value as SaveReport).result
  }

  /** The bytes {@link Model.save} would write, for where there is no file system. */
  async toBytes(): Promise<Uint8Array> {
    const { native, handle } = parts(this)
    const task = called(() => native.toBytes(handle))
    return new Task(task, (_, done) => made(done.takeBytes())).result
  }

  /**
   * Frees the memory as soon as no run uses the model; without it the garbage collector does,
   * later.
   */
  dispose(): void {
    const handle = this.#handle
    this.#handle = undefined
    called(() => handle?.dispose())
  }

  /** The same as {@link Model.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose()
  }

  static {
    // The class may be another copy's.
    adopt = (like, task) =>
      new (like.constructor as typeof Model)(like[PARTS]().native, made(task.takeModel()))
  }
}

/** Why a model of one build cannot be compared with one of the other. */
function otherBuild(theirs: Native, ours: Native): string {
  const name = ({ build }: Native) => (build === 'wasm' ? 'WebAssembly' : 'the native addon')
  const [one, other] = [name(theirs), name(ours)]
  return one === other
    ? `it was loaded by ${one} of another copy of halfstep; load both by one copy`
    : `it was loaded by ${one} and this model by ${other}; load both by the same entry point`
}

function made<T>(thing: T | null): T {
  if (thing === null) throw new HalfstepError('ERR_INTERNAL', 'a task succeeded without a result')
  return thing
}
