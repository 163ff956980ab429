/**
 * The interface that both builds implement: the Node addon (`native-node.ts`) and WebAssembly
 * (`native-wasm.ts`).
 *
 * Configs, events and results cross as JSON strings, models as handles, files as bytes. Nothing
 * here throws for invalid input: every failure arrives as an
 * {@link Outcome} with an {@link ErrorData}, and `errors.ts` makes the JavaScript error of it. The
 * types behind the JSON are in `generated/`.
 */

/** An error as data: what every failure in Rust becomes on its way to JavaScript. */
export interface ErrorData {
  /** A stable code, `ERR_...`. */
  code: string
  /** One sentence for a person. */
  message: string
  /** The fields of the error (file, offset, field, targets, ...). */
  details: Record<string, unknown>
}

/** How a task ended, parsed from {@link NativeTask.result}. */
export type Outcome<T> = { ok: T } | { error: ErrorData }

/** A model in the memory of the build. */
export interface NativeModel {
  /** JSON of `Outcome<Inspection>`. */
  inspect(): string
  /**
   * Frees the model as soon as no task uses it; a second call does nothing. Tasks started on it
   * afterwards end with `ERR_DISPOSED`.
   */
  dispose(): void
}

/**
 * Work in progress. It starts at once and continues whether or not anyone reads its messages.
 *
 * Messages are JSON objects with a `kind`: the events of a run (`phase`, `step`, `eval`,
 * `checkpoint`, `warning`), `{"kind":"text","text":...}` of a generation,
 * `{"kind":"progress","done":...,"total":...}` of an evaluation. At most 1024 wait: beyond that
 * steps are thinned, progress is replaced and text is joined, while
 * `eval`, `checkpoint`, `warning` and the last message always arrive.
 */
export interface NativeTask {
  /**
   * The next message as JSON, or null after the last. Several calls may be pending; they are
   * answered in order.
   */
  next(): Promise<string | null>
  /**
   * JSON of `Outcome<T>`, T being the value named at the function that made the task. Never
   * rejects. May be called again.
   */
  result(): Promise<string>
  /** The model that a `load` or `quantize` made, once, after `result` said ok; else null. */
  takeModel(): NativeModel | null
  /** The bytes that `toBytes` made, once, after `result` said ok; else null. */
  takeBytes(): Uint8Array | null
  /** Whether there is an outcome. */
  isOver(): boolean
  /**
   * Asks the work to stop at its next micro-step; its outcome is then `ERR_CANCELLED` unless it had
   * finished.
   */
  cancel(): void
}

/** A build of the Rust core. */
export interface Native {
  /** Which one it is. */
  readonly build: 'native' | 'wasm'
  /** The loaded addon or module: handles can meet where it is the same. */
  readonly core: object
  /**
   * Reads a GGUF file, a `halfstep` safetensors file or a Hugging Face folder. Outcome: null; then
   * `takeModel`.
   */
  load(path: string): NativeTask
  /**
   * Does the same from the bytes of one file, called `name` in errors. Outcome: null; then
   * `takeModel`.
   */
  loadBytes(name: string, bytes: Uint8Array): NativeTask
  /**
   * Describes the model of a file or folder, whether it can be run or not. Outcome:
   * `FileInspection`.
   */
  inspect(path: string): NativeTask
  /** Does the same from the bytes of one file, called `name` in errors. */
  inspectBytes(name: string, bytes: Uint8Array): NativeTask
  /**
   * `recipe` is JSON of `RecipeInput`, `run` of `RunConfig`. Messages: `Event`. Outcome: `Report`;
   * then `takeModel`.
   */
  quantize(model: NativeModel, recipe: string, run: string): NativeTask
  /**
   * Plans that run, on a machine with `free` bytes of free memory (null: this one). Messages:
   * `Event`. Outcome: `Plan`. The addon only.
   */
  plan?(model: NativeModel, recipe: string, run: string, free: number | null): NativeTask
  /** The same for the model that the config.json at `path` describes. The addon only. */
  planConfig?(path: string, recipe: string, run: string, free: number | null): NativeTask
  /** `config` is JSON of `EvaluateConfig`. Messages: `progress`. Outcome: `EvaluationRecord`. */
  evaluate(model: NativeModel, against: NativeModel | null, config: string): NativeTask
  /** `config` is JSON of `GenerationConfig`. Messages: `text`. Outcome: `Generation`. */
  generate(model: NativeModel, config: string): NativeTask
  /**
   * `prompts` is JSON of `string[]`, `config` of `GenerationConfig` without a prompt. Outcome:
   * `Generation[]`.
   */
  generateAll(model: NativeModel, prompts: string, config: string): NativeTask
  /**
   * Token ids of a text; `special`: special tokens in it are recognised and begin and end tokens
   * added. Outcome: `number[]`.
   */
  tokenize(model: NativeModel, text: string, special: boolean): NativeTask
  /** Logits `[tokens, vocabulary]` as little-endian f32. Outcome: null; then `takeBytes`. */
  logits(model: NativeModel, tokens: Uint32Array): NativeTask
  /** The values of the model in f32, nothing quantized. Outcome: null; then `takeModel`. */
  dequantize(model: NativeModel): NativeTask
  /** Writes the model to a file. Outcome: `SaveReport`. */
  save(model: NativeModel, path: string): NativeTask
  /**
   * The file's bytes, in the format of the model's target (GGUF for a float model). Outcome:
   * `SaveReport`; then `takeBytes`.
   */
  toBytes(model: NativeModel): NativeTask
  /**
   * `config` is JSON of {@link BenchConfig}. Messages: `{"kind":"bench","row":BenchRow}`. Outcome:
   * {@link BenchSummary}. The addon only.
   */
  bench?(config: string): NativeTask
  /**
   * Resolves `recipe` and applies `changes` to it: JSON of pairs of a path
   * (`stages[0].config.samples`) and the new value. JSON of `Outcome<Recipe>`.
   */
  resolve(recipe: string, changes: string): string
  /** JSON of `Doctor`: what this build found on this machine. */
  doctor(): string
}

/** Description of a build and of the machine. */
export interface Doctor {
  build: 'native' | 'wasm'
  version: string
  /** Instruction sets the kernels use here, best first. */
  cpuFeatures: string[]
  /** Threads a run uses by default. */
  threads: number
}

/** Options of the kernel benches. */
export interface BenchConfig {
  /** Number of threads; 0 uses one per core. */
  threads?: number
  /** Text that the names of the cases must contain. */
  only?: string
  /** Check results and measure no times. */
  answers?: boolean
}

/** One contender in one case, as `halfstep-bench` writes it; the machine's fields left out. */
export interface BenchRow {
  bench: string
  case: string
  contender: string
  state: string
  threads: number
  footprintBytes: number
  medianSeconds: number
  leastSeconds: number
  interquartileSeconds: number
  samples: number
  gigabytesPerSecond?: number
  gigaoperationsPerSecond?: number
  /**
   * The limit of the case in the same run, and the share of it that was reached.
   */
  bound?: string
  ofBound?: number
}

/** The machine, and what it could do before and after the benches. */
export interface BenchSummary {
  machine: {
    cpu: string
    flags: string[]
    level: string
    l3: string
    governor: string
    os: string
    rustc: string
    commit: string
  }
  threads: number
  /** Number of cases whose results were checked. */
  checked: number
  /** GB/s or GOP/s; empty when nothing was timed. */
  probe: { name: string; first: number; last: number; drifted: boolean }[]
}
