import { Command } from 'commander'
import { exactly } from '../arguments.js'
import { RECIPES } from '../generated/options.js'
import type { BuiltInRecipe } from '../generated/recipes.js'
import { resolve } from '../resolve-node.js'
import { attempt } from './exit.js'
import { recipeLines } from './explain.js'
import { wrapped } from './format.js'

const EXAMPLE = `
Examples:
  halfstep recipes
  halfstep recipes gptq --json > mine.json
  halfstep quantize big.gguf --recipe mine.json --data t.txt -o my.safetensors`

export function recipesCommand(): Command {
  const command = new Command('recipes')
    .description('Lists the built-in recipes, or shows one of them.')
    .argument('[name]', 'Recipe to show.')
    .option(
      '--json',
      'Prints JSON: the list, or the named recipe as a whole, which can be saved and edited.',
    )
    .addHelpText('after', EXAMPLE)
  return command.action((name: string | undefined, options: { json?: boolean }) =>
    attempt(async () => {
      if (name === undefined) {
        const all = RECIPES.map(({ kind, summary }) => ({ kind, summary }))
        console.log(options.json ? JSON.stringify(all) : listLines().join('\n'))
        return
      }
      // This also refuses an unknown name.
      const recipe = await resolve({ kind: name } as BuiltInRecipe)
      const shown = RECIPES.find(({ kind }) => kind === name)
      if (options.json || shown === undefined) console.log(JSON.stringify(recipe, exactly, 2))
      else console.log(recipeLines(shown).join('\n'))
    }, options),
  )
}

/** Names on the left, summaries on the right, within 80 columns. */
function listLines(): string[] {
  const width = Math.max(...RECIPES.map(({ kind }) => kind.length)) + 2
  return RECIPES.flatMap(({ kind, summary }) =>
    wrapped(summary, 80 - width).map((line, i) => (i === 0 ? kind : '').padEnd(width) + line),
  )
}
