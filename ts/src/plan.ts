import { HalfstepError } from './errors.js'
import type { RecipeInput } from './generated/recipes.js'
import type { Event, Plan, RunConfig } from './generated/types.js'
import { type Model, parts } from './model.js'
import { configJson, Task } from './task.js'

/** Options of {@link plan}: those of the run, and of the planning. */
export interface PlanOptions extends Partial<RunConfig> {
  /** Stops the planning. */
  signal?: AbortSignal
  /** Called with a `phase` event for each part that is tried. */
  onEvent?: (event: Event) => void
}

/**
 * Estimates what `quantize` with the same arguments will need (time, peak memory, disk), the size
 * of the file, and whether the machine has enough memory. A few real steps are run on the real
 * text; nothing is written.
 *
 * @example
 * const { fits, seconds, peakMemoryBytes } = await plan(model, recipes.apiq(), { data: 'corpus.txt'
 * })
 *
 * Rejected as the run itself would be: `ERR_CONFIG`, `ERR_TARGET`, `ERR_DATA`, ...;
 * `ERR_UNSUPPORTED` in WebAssembly, which does not train.
 */
export async function plan(
  model: Model,
  recipe: RecipeInput,
  options: PlanOptions = {},
): Promise<Plan> {
  const { signal, onEvent, ...run } = options
  const { native, handle } = parts(model)
  if (native.plan === undefined) {
    const reason = 'this build does not train; use the native addon'
    throw new HalfstepError('ERR_UNSUPPORTED', `plan is not supported: ${reason}`, {
      file: 'halfstep',
      name: 'plan',
      reason,
    })
  }
  const task = new Task<Event, Plan>(
    native.plan(handle, configJson(recipe), configJson(run)),
    (value) => value as Plan,
    signal,
  )
  if (onEvent) for await (const event of task.messages()) onEvent(event)
  return task.result
}
