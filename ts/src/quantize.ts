import { checkedSignal, configJson, plainObject } from './arguments.js'
import { called } from './errors.js'
import type { RecipeInput } from './generated/recipes.js'
import type { Event, Report, RunConfig } from './generated/types.js'
import { adopt, type Model, parts } from './model.js'
import { Task } from './task.js'

/** Options of a run: data, validation text, checkpoints, threads, and the signal that stops it. */
export interface RunOptions extends Partial<RunConfig> {
  /**
   * Stops the run within one micro-step. With a `runFolder` a checkpoint is written first (a recipe
   * that trains layer by layer has saved every finished layer); run it again with `resume: true` to
   * continue.
   */
  signal?: AbortSignal
}

/** The result of a run. */
export interface RunResult {
  /** The quantized model, ready to evaluate, generate and save. */
  model: Model
  /** What was done and measured. */
  report: Report
}

/**
 * A run in progress. It continues whether or not anyone iterates it.
 *
 * Iterate it for its {@link Event}s (a slow consumer misses `step` and `generate` events, never an
 * `eval`, `checkpoint`, `phase` or `warning`). The loop throws when the run fails. Leaving the loop
 * does not stop the run, so that hours of training are not lost by accident: use the signal or
 * {@link Run.cancel} to stop it.
 */
export class Run implements AsyncIterable<Event>, AsyncDisposable {
  readonly #task: Task<Event, RunResult>

  constructor(task: Task<Event, RunResult>) {
    this.#task = task
  }

  /** The quantized model and the report, when the run is finished. */
  get result(): Promise<RunResult> {
    return this.#task.result
  }

  /** Stops the run within one micro-step, as its signal would. */
  cancel(): void {
    this.#task.cancel()
  }

  /** The events from here on; after the last one, the failure of the run if it failed. */
  [Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    return this.#task.messages()
  }

  /** Cancels the run and waits until it has ended, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.result.catch(() => {})
  }
}

/**
 * Quantizes a model by a recipe (a built-in one or a whole `Recipe`). If the recipe trains, it does
 * so on `data` (a path) or `text`, on text that the model generates itself (`selfGenerated`), or on
 * both, simulating exactly the grids of the recipe's target.
 *
 * @example
 * const run = quantize(model, recipes.silq({ target: 'gguf:q4_0' }), { data: 'corpus.txt' })
 * for await (const event of run) if (event.kind === 'step') console.log(event.loss)
 * const { model: small, report } = await run.result
 *
 * `result` is rejected with `ERR_CONFIG` or `ERR_TARGET` (an invalid option, before any work),
 * `ERR_DATA`, `ERR_NON_FINITE`, `ERR_CHECKPOINT` or `ERR_CANCELLED`.
 */
export function quantize(model: Model, recipe: RecipeInput, options: RunOptions = {}): Run {
  const { signal, ...run } = plainObject('options', options)
  checkedSignal(signal)
  const { native, handle } = parts(model)
  const [of, as] = [configJson('recipe', recipe), configJson('options', run)]
  const task = called(() => native.quantize(handle, of, as))
  return new Run(
    new Task(
      task,
      (report, done) => ({ model: adopt(model, done), report: report as Report }),
      signal,
    ),
  )
}
