import { HalfstepError } from './errors.js'
import type { ErrorData, NativeModel, NativeTask } from './native.js'

/** The generated glue around the WebAssembly module (crates/wasm). */
export type Glue = typeof import('../wasm/halfstep.js')
/** A model in the memory of the module. */
export type WasmModel = import('../wasm/halfstep.js').WasmModel
/** Work in the memory of the module: it moves when its `step` is called. */
export type WasmTask = import('../wasm/halfstep.js').WasmTask

/** What happens to the outcome of a task in JavaScript, before it counts. */
export type Finish = (outcome: string, task: WasmTask) => Promise<string>

/** A handle on a model. */
export class WasmHandle implements NativeModel {
  readonly #glue: Glue
  readonly #model: WasmModel

  constructor(glue: Glue, model: WasmModel) {
    this.#glue = glue
    this.#model = model
  }

  /** A handle of its own for a task, which may begin after this one is disposed. */
  share(): WasmModel {
    return this.#model.share()
  }

  inspect(): string {
    try {
      return this.#model.inspect()
    } catch (error) {
      return JSON.stringify({ error: errorData(this.#glue, error) })
    }
  }

  dispose(): void {
    this.#model.dispose()
  }
}

/** Takes the steps of a task one by one on this thread; the event loop has its turn after each. */
export class WasmRun implements NativeTask {
  readonly #glue: Glue
  readonly #readers: ((message: string | null) => void)[] = []
  readonly #outcome: Promise<string>
  #task: WasmTask | undefined
  #cancelled = false
  #ended = false

  constructor(glue: Glue, start: () => WasmTask | Promise<WasmTask>, finish?: Finish) {
    this.#glue = glue
    this.#outcome = this.#work(start, finish)
  }

  next(): Promise<string | null> {
    const message = this.#task?.message()
    if (message !== undefined) return Promise.resolve(message)
    if (this.#ended) return Promise.resolve(null)
    return new Promise((resolve) => this.#readers.push(resolve))
  }

  result(): Promise<string> {
    return this.#outcome
  }

  takeModel(): NativeModel | null {
    const model = this.#task?.takeModel()
    return model ? new WasmHandle(this.#glue, model) : null
  }

  takeBytes(): Uint8Array | null {
    return this.#task?.takeBytes() ?? null
  }

  isOver(): boolean {
    return this.#ended
  }

  cancel(): void {
    this.#cancelled = true
    this.#task?.cancel()
  }

  /** Never rejects: its value is the outcome, whatever happens. */
  async #work(
    start: () => WasmTask | Promise<WasmTask>,
    finish: Finish | undefined,
  ): Promise<string> {
    try {
      // Whoever started the task goes on first.
      await turn()
      const task = await start()
      if (this.#cancelled) task.cancel()
      await this.#steps(task)
      const outcome = task.outcome() ?? ''
      return finish === undefined ? outcome : await finish(outcome, task)
    } catch (error) {
      // A trap leaves the task as it was in the middle of a step: it is not touched again.
      if (!(error instanceof HalfstepError)) this.#task = undefined
      return JSON.stringify({ error: errorData(this.#glue, error) })
    } finally {
      this.#ended = true
      for (const reader of this.#readers.splice(0)) reader(null)
    }
  }

  async #steps(task: WasmTask): Promise<void> {
    this.#task = task
    for (let done = false; !done; ) {
      done = task.step()
      while (this.#readers.length > 0) {
        const message = task.message()
        if (message === undefined) break
        this.#readers.shift()?.(message)
      }
      if (!done) await turn()
    }
  }
}

/** Lets everything else that waits on this thread run once. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === 'function') {
      setImmediate(resolve)
      return
    }
    // A timer would wait four milliseconds in a browser.
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(null)
  })
}

/**
 * An error as data. What the module throws itself is a trap: the end of a panic, or of the memory.
 */
function errorData(glue: Glue, error: unknown): ErrorData {
  if (error instanceof HalfstepError)
    return { code: error.code, message: error.message, details: { ...error.details } }
  const panic = glue.takePanic()
  const text = error instanceof Error ? error.message : String(error)
  if (
    panic === undefined &&
    error instanceof WebAssembly.RuntimeError &&
    text.includes('unreachable')
  ) {
    // A panic says something first; a failed allocation cannot.
    return {
      code: 'ERR_MEMORY',
      message: 'out of memory: WebAssembly holds at most 4 GiB',
      details: { what: 'WebAssembly memory' },
    }
  }
  const reason = panic ?? text
  return { code: 'ERR_INTERNAL', message: `internal error: ${reason}`, details: { reason } }
}
