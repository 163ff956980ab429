import { fromJson } from './arguments.js'
import { called, errorFrom } from './errors.js'
import type { NativeTask, Outcome } from './native.js'
import { stopOnAbort } from './signal.js'

/**
 * A {@link NativeTask} for JavaScript: messages as an async iterable, the outcome as one promise,
 * an `AbortSignal` that cancels.
 *
 * The work continues by itself. Only a pending `next()` or `result` keeps the process alive, and a
 * failure that nobody awaits is not an unhandled rejection.
 */
export class Task<Message, Value> {
  readonly #task: NativeTask
  readonly #signal: AbortSignal | undefined
  readonly #make: (value: unknown, task: NativeTask) => Value
  /** Ends the wait for the signal. */
  readonly #release: (() => void) | undefined
  #result: Promise<Value> | undefined
  /** Why the signal could not stop the work. */
  #unstoppable: unknown

  constructor(
    task: NativeTask,
    make: (value: unknown, task: NativeTask) => Value,
    signal?: AbortSignal,
  ) {
    this.#task = task
    this.#make = make
    this.#signal = signal
    const stop = () => {
      try {
        this.cancel()
      } catch (error) {
        // Thrown here it would end the process.
        this.#unstoppable = error
      }
    }
    const isOver = () => called(() => task.isOver())
    this.#release = signal && stopOnAbort(signal, { stop, isOver })
  }

  get result(): Promise<Value> {
    if (this.#result === undefined) {
      this.#result = this.#settle()
      // Whoever awaits it sees the failure; nobody awaiting it is no fault.
      this.#result.catch(() => {})
    }
    return this.#result
  }

  /** Asks the work to stop. There is nothing left for the signal to do then. */
  cancel(): void {
    this.#release?.()
    called(() => this.#task.cancel())
  }

  /** The messages; after the last one, the failure of the task if it failed. */
  async *messages(): AsyncGenerator<Message, void, undefined> {
    const next = () => called(() => this.#task.next())
    for (let json = await next(); json !== null; json = await next()) {
      yield fromJson(json) as Message
    }
    await this.result
  }

  async #settle(): Promise<Value> {
    try {
      const outcome = fromJson(await called(() => this.#task.result())) as Outcome<unknown>
      const value = settle(outcome, this.#signal)
      if (this.#unstoppable !== undefined) throw this.#unstoppable
      return called(() => this.#make(value, this.#task))
    } finally {
      this.#release?.()
    }
  }
}

/**
 * The value of an outcome, or its error thrown; a cancelled one has the signal's reason as its
 * cause.
 */
export function settle<T>(outcome: Outcome<T>, signal?: AbortSignal): T {
  if ('error' in outcome)
    throw errorFrom(outcome.error, signal?.aborted ? signal.reason : undefined)
  return outcome.ok
}
