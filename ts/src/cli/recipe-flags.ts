import { access, constants } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { Command } from 'commander'
import { HalfstepError } from '../errors.js'
import type { Recipe } from '../recipes/index.js'
import { reportPaths } from '../report/files.js'
import {
  addFlags,
  BLOCK_FLAGS,
  given,
  METHOD_FLAGS,
  RUN_FLAGS,
  SITE_FLAGS,
  TRAIN_FLAGS,
} from './flags.js'

const RECIPES =
  'rtn, gptq, awq (round); silq, llm-qat (train all; the latter needs no data); omniquant, apiq, sapr, efficientqat (train block by block)'

/** The flags of a run: the recipe and all that it can be told. */
export function addRecipeFlags(command: Command): void {
  command.option('--recipe <name>', RECIPES, 'silq')
  addFlags(command, SITE_FLAGS, 'sites', 'Grid:')
  addFlags(command, RUN_FLAGS, 'run', 'Run:')
  addFlags(command, TRAIN_FLAGS, 'train', 'Training (defaults of silq):')
  addFlags(
    command,
    BLOCK_FLAGS,
    'block',
    'Training block by block (window, batch, min-ratio, weight-decay, seed too):',
  )
  addFlags(command, METHOD_FLAGS, 'method', 'Of single recipes:')
}

/** The recipe as data. Which names and options there are, Rust knows and says. */
export function recipeOf(command: Command): Recipe {
  const train = { ...given(command, TRAIN_FLAGS), ...given(command, BLOCK_FLAGS) }
  const nested = Object.keys(train).length > 0 ? { train } : {}
  return {
    kind: command.opts().recipe,
    ...given(command, SITE_FLAGS),
    ...given(command, METHOD_FLAGS),
    ...nested,
  } as Recipe
}

/** Where a run keeps its state unless it is told where. */
export function defaultRunFolder(output: string): string {
  return `${output}.run`
}

/** How it is carried out; training keeps its state beside the output unless told where. */
export function runOf(command: Command) {
  const { output } = command.opts() as { output?: string }
  const runFolder = output === undefined ? {} : { runFolder: defaultRunFolder(output) }
  return { ...runFolder, ...given(command, RUN_FLAGS), output }
}

/**
 * Hours of training are not to end at a folder that is not there; nor is a plan of them to say that
 * they fit.
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
    const folder = dirname(resolve(file))
    try {
      await access(folder, constants.W_OK)
    } catch (error) {
      const reason =
        (error as NodeJS.ErrnoException).code === 'ENOENT'
          ? 'the folder is not there; make it first'
          : 'the folder cannot be written to'
      throw new HalfstepError('ERR_IO', `${flag}: ${folder}: ${reason}`, { path: folder, reason })
    }
  }
}
