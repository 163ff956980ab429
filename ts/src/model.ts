import { HalfstepError } from './errors.js'
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
import { configJson, settle, Task } from './task.js'

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

/** The build and handle of a model, for the functions of this package; throws `ERR_DISPOSED`. */
export let parts: (model: Model) => { native: Native; handle: NativeModel }
/** The model that `task` made, of the same class and build as `like`. */
export let adopt: (like: Model, task: NativeTask) => Model

/** The path that a file: URL names; nothing is fetched. */
function filePath(url: URL): string {
  if (url.protocol !== 'file:') {
    const reason = `must be a file: URL; download ${url.href} and pass its path or bytes`
    throw new HalfstepError('ERR_CONFIG', `source: ${reason}`, { field: 'source', reason })
  }
  // A drive letter has no slash before it.
  return decodeURIComponent(url.pathname).replace(/^\/([A-Za-z]:)/, '$1')
}

/** The path or the bytes of a model; throws `ERR_CONFIG` for anything else. */
export function checkedSource(source: string | URL | Uint8Array): string | Uint8Array {
  const from = source instanceof URL ? filePath(source) : source
  if (typeof from === 'string' || from instanceof Uint8Array) return from
  const got = from === null ? 'null' : typeof from
  const reason = `must be a path, a file: URL or the bytes of a file (Uint8Array), got ${got}`
  throw new HalfstepError('ERR_CONFIG', `source: ${reason}`, { field: 'source', reason })
}

/** A model in memory, full precision or quantized, of any entry point of the package. */
export class Model {
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

  /**
   * Reads a model: a GGUF file, a `halfstep` safetensors file or a Hugging Face folder by its path,
   * or one file's bytes.
   *
   * Throws a {@link HalfstepError}: `ERR_IO` (it does not exist), `ERR_FORMAT` (damaged; file,
   * offset, reason), `ERR_UNSUPPORTED` (named), `ERR_MISSING_TENSOR`, `ERR_SHAPE`, `ERR_MEMORY`.
   */
  static async load(source: string | URL | Uint8Array, options: LoadOptions = {}): Promise<Model> {
    const { signal, name = 'bytes' } = options
    const native = await this.native()
    const from = checkedSource(source)
    const task = typeof from === 'string' ? native.load(from) : native.loadBytes(name, from)
    const loaded = new Task(task, (_, done) => new this(native, made(done.takeModel())), signal)
      .result
    if (signal === undefined) return loaded
    // Reading has no micro-steps to stop at: the wait ends now, the model when it comes.
    const aborted = new Promise<never>((_, reject) => {
      const stop = () =>
        reject(new HalfstepError('ERR_CANCELLED', 'cancelled', {}, { cause: signal.reason }))
      if (signal.aborted) stop()
      else signal.addEventListener('abort', stop, { once: true })
      loaded.finally(() => signal.removeEventListener('abort', stop)).catch(() => {})
    })
    return Promise.race([aborted, loaded]).catch((error: unknown) => {
      loaded.then((model) => model.dispose()).catch(() => {})
      throw error
    })
  }

  /** The contents of the model: sizes, storage types, target, provenance. */
  inspect(): Inspection {
    const { handle } = parts(this)
    return settle(JSON.parse(handle.inspect()) as Outcome<Inspection>)
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
    const against = run.against === undefined ? null : parts(run.against).handle
    const task = new Task<{ done: number; total: number }, EvaluationRecord>(
      native.evaluate(handle, against, configJson(options)),
      (value) => value as EvaluationRecord,
      run.signal,
    )
    if (run.onProgress)
      for await (const { done, total } of task.messages()) run.onProgress(done, total)
    return task.result
  }

  /**
   * Generates text from a prompt or a conversation: iterate the stream for the text as it comes,
   * await its `result` for the whole.
   * Greedy unless `temperature` is given; the same seed gives the same text.
   */
  generate(options: GenerateOptions = {}, run: { signal?: AbortSignal } = {}): GenerationStream {
    const { native, handle } = parts(this)
    return new GenerationStream(
      new Task(
        native.generate(handle, configJson(options)),
        (value) => value as Generation,
        run.signal,
      ),
    )
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
    const task = native.generateAll(handle, JSON.stringify(prompts), configJson(options))
    return new Task(task, (value) => value as Generation[], run.signal).result
  }

  /**
   * Token ids of a text. With `special`, special tokens in the text are recognised and begin and
   * end tokens are added if the model asks for them; without, the text is plain.
   */
  async tokenize(text: string, options: { special?: boolean } = {}): Promise<number[]> {
    const { native, handle } = parts(this)
    return new Task(
      native.tokenize(handle, text, options.special ?? false),
      (value) => value as number[],
    ).result
  }

  /**
   * Logits of a sequence run from position 0: `tokens.length` rows of the vocabulary's size, in the
   * model's own arithmetic.
   */
  async logits(tokens: readonly number[]): Promise<Float32Array> {
    const { native, handle } = parts(this)
    const bytes = await new Task(native.logits(handle, Uint32Array.from(tokens)), (_, done) =>
      made(done.takeBytes()),
    ).result
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
    return new Task(native.dequantize(handle), (_, done) => adopt(this, done)).result
  }

  /**
   * Writes the model to a file, whole or not at all: GGUF or the `halfstep` layout as its target
   * says; a full-precision model by the path's ending (.gguf or .safetensors).
   * The file of a quantized model is read again and compared with the model first: `ERR_PARITY` if
   * one code, scale or output differs.
   */
  async save(path: string): Promise<SaveReport> {
    const { native, handle } = parts(this)
    return new Task(native.save(handle, path), (value) => value as SaveReport).result
  }

  /** The bytes {@link Model.save} would write, for where there is no file system. */
  async toBytes(): Promise<Uint8Array> {
    const { native, handle } = parts(this)
    return new Task(native.toBytes(handle), (_, done) => made(done.takeBytes())).result
  }

  /**
   * Frees the memory as soon as no run uses the model; without it the garbage collector does,
   * later.
   */
  dispose(): void {
    this.#handle?.dispose()
    this.#handle = undefined
  }

  /** The same as {@link Model.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose()
  }

  static {
    parts = (model) => {
      if (model.#handle === undefined)
        throw new HalfstepError('ERR_DISPOSED', 'the model was disposed')
      return { native: model.#native, handle: model.#handle }
    }
    adopt = (like, task) =>
      new (like.constructor as typeof Model)(like.#native, made(task.takeModel()))
  }
}

function made<T>(thing: T | null): T {
  if (thing === null) throw new HalfstepError('ERR_INTERNAL', 'a task succeeded without a result')
  return thing
}
