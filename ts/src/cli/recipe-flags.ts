import { existsSync } from 'node:fs'
import { access, constants, readFile } from 'node:fs/promises'
import { dirname, resolve as resolvePath } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { fromJson } from '../arguments.js'
import { HalfstepError } from '../errors.js'
import { type OptionDoc, RECIPES } from '../generated/options.js'
import type { RecipeInput } from '../generated/recipes.js'
import type { RunConfig } from '../generated/types.js'
import { nodeNative } from '../native-node.js'
import { reportPaths } from '../report/files.js'
import { resolve } from '../resolve-node.js'
import { addOptions, fieldOf, flagOf, given, optionOf, RUN_OPTIONS } from './options.js'

const DEFAULT_RECIPE = 'silq'

/** All options of all recipes, each flag once; those of `first` come first. */
function allOptions(first: string): OptionDoc[] {
  const ordered = [...RECIPES].sort((a, b) => Number(b.kind === first) - Number(a.kind === first))
  const byField = new Map<string, OptionDoc>()
  for (const doc of ordered.flatMap(({ options }) => options))
    if (!byField.has(fieldOf(doc.path))) byField.set(fieldOf(doc.path), doc)
  return [...byField.values()]
}

/** The recipe that is named among the words of a command line. */
export function recipeAmong(words: readonly string[]): string {
  const at = words.findIndex((word) => word === '--recipe' || word.startsWith('--recipe='))
  if (at < 0) return DEFAULT_RECIPE
  const [, value] = words[at]?.split('=') ?? []
  return value ?? words[at + 1] ?? DEFAULT_RECIPE
}

/**
 * The flags of a run: the recipe, its options, how the run is carried out. The help shows the
 * options of the recipe that was named, and the parser knows those of all.
 */
export function addRecipeFlags(command: Command): void {
  const named = recipeAmong(process.argv)
  const shown = RECIPES.find(({ kind }) => kind === named)
  command
    .option(
      '--recipe <name>',
      'Built-in recipe (halfstep recipes lists them), or path of a .json file with a recipe.',
      DEFAULT_RECIPE,
    )
    .option(
      '--set <path=value>',
      'Changes a field of the whole recipe, such as stages[0].config.samples=8; may be repeated.',
      collectChange,
    )
  for (const doc of allOptions(named)) {
    const option = optionOf(doc)
    if (shown?.options.some(({ path }) => path === doc.path))
      option.helpGroup(`${doc.path.includes('.') ? 'Training options' : 'Options'} of ${named}:`)
    else option.hideHelp()
    command.addOption(option)
  }
  addOptions(command, RUN_OPTIONS, { heading: 'Options of the run:' })
  command.addHelpText(
    'after',
    `\nEvery recipe has its own options: halfstep ${command.name()} --recipe <name> --help`,
  )
}

/** `path=value`, the value being JSON or else a text. */
function collectChange(change: string, before: Record<string, unknown> = {}) {
  const at = change.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('it must be path=value.')
  const text = change.slice(at + 1)
  let value: unknown = text
  try {
    value = fromJson(text)
  } catch {
    // A word needs no quotes.
  }
  return { ...before, [change.slice(0, at)]: value }
}

/** The recipe as data. Rust checks the names and options. */
export async function recipeOf(command: Command): Promise<RecipeInput> {
  const { recipe, set } = command.opts() as { recipe: string; set?: Record<string, unknown> }
  const options = nested(command, recipe)
  const input = recipe.endsWith('.json')
    ? await recipeFile(recipe, options)
    : ({ kind: recipe, ...options } as RecipeInput)
  return set === undefined ? input : resolve(input, set)
}

/** The recipe options that were given, nested as the recipe has them. */
function nested(command: Command, recipe: string): Record<string, unknown> {
  const docs = allOptions(recipe)
  const values = given(command, docs)
  const out: Record<string, unknown> = {}
  for (const { path } of docs) {
    const field = fieldOf(path)
    if (!(field in values)) continue
    const [outer, inner] = path.split('.') as [string, string?]
    out[outer] =
      inner === undefined ? values[field] : { ...(out[outer] as object), [inner]: values[field] }
  }
  return out
}

/** A recipe from a file: a whole one, or a built-in one, which the flags then add options to. */
async function recipeFile(path: string, options: Record<string, unknown>): Promise<RecipeInput> {
  const refuse = (code: 'ERR_IO' | 'ERR_CONFIG', reason: string) =>
    new HalfstepError(code, `--recipe: ${path}: ${reason}`, { path, reason })
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw refuse('ERR_IO', error.code === 'ENOENT' ? 'the file does not exist' : error.message)
  })
  let recipe: RecipeInput
  try {
    recipe = fromJson(text) as RecipeInput
  } catch (error) {
    throw refuse('ERR_CONFIG', (error as Error).message)
  }
  const [first] = Object.entries(options).flatMap(([name, value]) =>
    typeof value === 'object' ? Object.keys(value as object) : [name],
  )
  if (first === undefined) return recipe
  if (typeof recipe !== 'object' || recipe === null || !('kind' in recipe))
    throw refuse(
      'ERR_CONFIG',
      `a whole recipe has no ${flagOf(first)}; use --set to change its fields`,
    )
  const train = { ...(recipe as { train?: object }).train, ...(options.train as object) }
  return { ...recipe, ...options, ...('train' in options ? { train } : {}) } as RecipeInput
}

/** The folder that a run keeps its state in by default. */
export function defaultRunFolder(output: string): string {
  return `${output}.run`
}

/** The options of the run; by default training keeps its state next to the output. */
export function runOf(command: Command): Partial<RunConfig> {
  const { output } = command.opts() as { output?: string }
  const runFolder = output === undefined ? {} : { runFolder: defaultRunFolder(output) }
  return { ...runFolder, ...given(command, RUN_OPTIONS), output }
}

/**
 * Refuses a report, or an output where WebAssembly cannot look, that would take the place of a file.
 */
export async function mustBeNew({
  output,
  report,
  overwrite,
}: {
  output: string
  report?: string
  overwrite?: boolean
}): Promise<void> {
  if (overwrite) return
  const unseen = (await nodeNative()).build === 'wasm' ? [output] : []
  const pages = report === undefined ? [] : Object.values(reportPaths(report))
  for (const [field, files] of Object.entries({ output: unseen, report: pages })) {
    const there = files.find((file) => existsSync(file))
    if (there === undefined) continue
    const reason = `${there} is there already; use another name, or --overwrite`
    throw new HalfstepError('ERR_CONFIG', `--${field}: ${reason}`, { field, reason })
  }
}

/**
 * Checks that the folders of output and report can be written to, before hours of training end at
 * one that does not exist, or a plan of them says that they fit.
 */
export async function mustBeWritable({
  output,
  report,
}: {
  output?: string
  report?: string
}): Promise<void> {
  const page = report === undefined ? undefined : reportPaths(report).page
  for (const [flag, file] of Object.entries({ '--output': output, '--report': page })) {
    if (file === undefined) continue
    const folder = dirname(resolvePath(file))
    try {
      await access(folder, constants.W_OK)
    } catch (error) {
      const reason =
        (error as NodeJS.ErrnoException).code === 'ENOENT'
          ? 'the folder does not exist; create it first'
          : 'the folder cannot be written to'
      throw new HalfstepError('ERR_IO', `${flag}: ${folder}: ${reason}`, { path: folder, reason })
    }
  }
}
