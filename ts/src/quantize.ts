import type { RecipeInput } from './generated/recipes.js'
import type { Event, Report, RunConfig } from './generated/types.js'
import { adopt, type Model, parts } from './model.js'
import { configJson, Task } from './task.js'

/**
 * How a run is carried out: data, validation text, checkpoints, threads; and the signal that stops
 * it.
 */
export interface RunOptions extends Partial<RunConfig> {
  /**
   * Stops the run within one micro-step. With a `runFolder` a checkpoint is written first (a recipe
   * of blocks has one of every finished block); run again with `resume: true` to go on.
   */
  signal?: AbortSignal
}

/** What a run gives. */
export interface RunResult {
  /** The quantized model, ready to evaluate, generate and save. */
  model: Model
  /** What was done and measured. */
  report: Report
}

/**
 * A run under way. It goes on whether or not anyone listens.
 *
 * Iterate it for its {@link Event}s (slow listeners miss steps and `generate`s, never an `eval`,
 * `checkpoint`, `phase` or `warning`). The loop throws when the run fails. Leaving the
 * loop stops the listening and not the run, hours of training being easier lost than repeated: use
 * the signal or {@link Run.cancel} for that.
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

  [Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    return this.#task.messages()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.result.catch(() => {})
  }
}

/**
 * Quantizes a model by a recipe (a built-in one or a whole `Recipe`) and, if the recipe trains, trains it on `data` (a path), `text`,
 * what the model generates itself (`selfGenerated`) or both, simulating exactly the grids of the
 * recipe's target.
 *
 * @example
 * const run = quantize(model, recipes.silq({ target: 'gguf:q4_0' }), { data: 'corpus.txt' })
 * for await (const event of run) if (event.kind === 'step') console.log(event.loss)
 * const { model: small, report } = await run.result
 *
 * `result` is rejected with `ERR_CONFIG` or `ERR_TARGET` (an impossible option, before any work),
 * `ERR_DATA`, `ERR_NON_FINITE`, `ERR_CHECKPOINT` or `ERR_CANCELLED`.
 */
export function quantize(model: Model, recipe: RecipeInput, options: RunOptions = {}): Run {
  const { signal, ...run } = options
  const { native, handle } = parts(model)
  const task = native.quantize(handle, configJson(recipe), configJson(run))
  return new Run(
    new Task(
      task,
      (report, done) => ({ model: adopt(model, done), report: report as Report }),
      signal,
    ),
  )
}
