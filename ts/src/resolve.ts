import { configJson, fromJson, plainObject, toJson } from './arguments.js'
import { called } from './errors.js'
import type { RecipeInput } from './generated/recipes.js'
import type { Recipe } from './generated/types.js'
import type { Native, Outcome } from './native.js'
import { settle } from './task.js'

/** {@link Recipe} of a recipe in one of the builds. */
export function resolveIn(
  native: Native,
  recipe: RecipeInput,
  changes: Readonly<Record<string, unknown>>,
): Recipe {
  const of = configJson('recipe', recipe)
  const pairs = Object.entries(plainObject('changes', changes))
  // Each by itself, so that an error names the path that the caller wrote.
  const json = pairs.map(([path, value]) => `[${toJson('changes', path)},${toJson(path, value)}]`)
  const resolved = called(() => native.resolve(of, `[${json.join()}]`))
  return settle(fromJson(resolved) as Outcome<Recipe>)
}
