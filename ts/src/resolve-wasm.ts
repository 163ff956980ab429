import type { RecipeInput } from './generated/recipes.js'
import type { Recipe } from './generated/types.js'
import { wasmNative } from './native-wasm.js'
import { resolveIn } from './resolve.js'

/**
 * Resolves a recipe: returns the whole recipe, every default filled in, to be read, saved or
 * changed. `changes` are applied one after the other, each the path of a field and its new value.
 *
 * @example
 * const recipe = await resolve(recipes.efficientqat(), { 'stages[0].config.samples': 8 })
 *
 * Rejected with `ERR_CONFIG` or `ERR_TARGET`, `details.field` naming the path.
 */
export async function resolve(
  recipe: RecipeInput,
  changes: Readonly<Record<string, unknown>> = {},
): Promise<Recipe> {
  return resolveIn(await wasmNative(), recipe, changes)
}
