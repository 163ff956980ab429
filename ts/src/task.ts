import { errorFrom, HalfstepError } from './errors.js'
import type { NativeTask, Outcome } from './native.js'

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
  readonly #onAbort = () => this.#task.cancel()
  #result: Promise<Value> | undefined

  constructor(
    task: NativeTask,
    make: (value: unknown, task: NativeTask) => Value,
    signal?: AbortSignal,
  ) {
    this.#task = task
    this.#make = make
    this.#signal = signal
    if (signal?.aborted) task.cancel()
    else signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  get result(): Promise<Value> {
    if (this.#result === undefined) {
      this.#result = this.#settle()
      // Whoever awaits it sees the failure; nobody awaiting it is no fault.
      this.#result.catch(() => {})
    }
    return this.#result
  }

  cancel(): void {
    this.#task.cancel()
  }

  /** The messages; after the last one, the failure of the task if it failed. */
  async *messages(): AsyncGenerator<Message, void, undefined> {
    for (let json = await this.#task.next(); json !== null; json = await this.#task.next()) {
      yield JSON.parse(json) as Message
    }
    await this.result
  }

  async #settle(): Promise<Value> {
    const outcome = JSON.parse(await this.#task.result()) as Outcome<unknown>
    this.#signal?.removeEventListener('abort', this.#onAbort)
    return this.#make(settle(outcome, this.#signal), this.#task)
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

/**
 * JSON of a config. JSON has no NaN and no infinity and would write null, which means "the
 * default": so they are refused by name.
 */
export function configJson(config: object): string {
  if (typeof config !== 'object' || config === null) {
    const reason = 'must be an object'
    throw new HalfstepError('ERR_CONFIG', `config: ${reason}`, { field: 'config', reason })
  }
  return JSON.stringify(config, (field, value: unknown) => {
    if (typeof value === 'number' && !Number.isFinite(value)) {
      const reason = `must be a finite number, got ${value}`
      throw new HalfstepError('ERR_CONFIG', `${field}: ${reason}`, { field, reason })
    }
    return value
  })
}
