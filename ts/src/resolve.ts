import type { RecipeInput } from './generated/recipes.js'
import type { Recipe } from './generated/types.js'
import type { Native, Outcome } from './native.js'
import { configJson, settle } from './task.js'

/** {@link Recipe} of a recipe in one of the builds. */
export function resolveIn(
  native: Native,
  recipe: RecipeInput,
  changes: Readonly<Record<string, unknown>>,
): Recipe {
  const json = native.resolve(configJson(recipe), JSON.stringify(Object.entries(changes)))
  return settle(JSON.parse(json) as Outcome<Recipe>)
}
