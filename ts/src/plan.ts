import {
  checkedFunction,
  checkedSignal,
  checkedText,
  checkedWhole,
  configJson,
  plainObject,
} from './arguments.js'
import { called, HalfstepError } from './errors.js'
import type { RecipeInput } from './generated/recipes.js'
import type { Event, Plan, RunConfig } from './generated/types.js'
import { type Model, parts } from './model.js'
import { nodeNative } from './native-node.js'
import { Task } from './task.js'

/** Options of {@link plan}: those of the run, and of the planning. */
export interface PlanOptions extends Partial<RunConfig> {
  /** Free memory, in bytes, of the machine that the run is for. Default: that of this one. */
  freeMemoryBytes?: number
  /** Stops the planning. */
  signal?: AbortSignal
  /** Called with a `phase` event for each part that is tried. */
  onEvent?: (event: Event) => void
}

/**
 * Estimates what `quantize` with the same arguments will need (time, peak memory, disk), the size
 * of the file, and whether the machine has enough memory. A few real steps are run on the real
 * text; nothing is written. Times are those of this machine.
 *
 * Instead of a model it takes the path of a config.json, before anything else is downloaded: then
 * models of the same widths with few layers and tokens are tried on random numbers, and what they
 * take is extended to all. Texts are not read, and reading one is not part of the plan. A stage
 * that trains the whole model is planned with all forwards kept if they fit, otherwise with none.
 *
 * @example
 * const { fits, seconds, peakMemoryBytes } = await plan(model, recipes.apiq(), { data: 'corpus.txt'
 * })
 * const later = await plan('Qwen2.5-3B/config.json', recipes.gptq(), { freeMemoryBytes: 12e9 })
 *
 * Rejected as the run itself would be: `ERR_CONFIG`, `ERR_TARGET`, `ERR_DATA`, ...; `ERR_IO`,
 * `ERR_FORMAT` or `ERR_UNSUPPORTED` for the config; `ERR_UNSUPPORTED` in WebAssembly, which does not
 * train.
 */
export async function plan(
  model: Model | string,
  recipe: RecipeInput,
  options: PlanOptions = {},
): Promise<Plan> {
  const { freeMemoryBytes, signal, onEvent, ...run } = plainObject('options', options)
  checkedSignal(signal)
  checkedFunction('onEvent', onEvent)
  const free =
    freeMemoryBytes === undefined
      ? null
      : checkedWhole('freeMemoryBytes', freeMemoryBytes, 1, Number.MAX_SAFE_INTEGER)
  const [of, as] = [configJson('recipe', recipe), configJson('options', run)]
  const begin = async () => {
    if (typeof model === 'string') {
      const path = checkedText('model', model)
      const native = await nodeNative()
      return called(() => native.planConfig?.(path, of, as, free))
    }
    const { native, handle } = parts(model)
    return called(() => native.plan?.(handle, of, as, free))
  }
  const begun = await begin()
  const task = new Task<Event, Plan>(begun ?? refused(), (value) => value as Plan, signal)
  if (onEvent) for await (const event of task.messages()) onEvent(event)
  return task.result
}

function refused(): never {
  const reason = 'this build does not train; use the native addon'
  throw new HalfstepError('ERR_UNSUPPORTED', `plan is not supported: ${reason}`, {
    file: 'halfstep',
    name: 'plan',
    reason,
  })
}
