import type { Generation } from './generated/types.js'
import type { Task } from './task.js'

/**
 * A generation under way: the pieces of text as they come, then the whole. Leaving the loop early
 * stops it.
 */
export class GenerationStream implements AsyncIterable<string> {
  readonly #task: Task<{ text: string }, Generation>

  constructor(task: Task<{ text: string }, Generation>) {
    this.#task = task
  }

  /** Text, token ids and speed, when it is finished. */
  get result(): Promise<Generation> {
    return this.#task.result
  }

  /** Stops after the token under way; `result` is then rejected with `ERR_CANCELLED`. */
  cancel(): void {
    this.#task.cancel()
  }

  /** The text, piece by piece; leaving the loop cancels the generation. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    try {
      for await (const { text } of this.#task.messages()) yield text
    } finally {
      this.#task.cancel()
    }
  }
}
