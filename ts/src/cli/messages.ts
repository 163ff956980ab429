import { RECIPES } from '../generated/options.js'
import { flagOf, flagOfField } from './options.js'

/** Flags of fields that the generated ones do not name. */
const OTHERS: Readonly<Record<string, string>> = {
  kind: '--recipe',
  output: '--output',
  messages: '--chat',
}
const OF_TRAINING = new Set(
  RECIPES.flatMap(({ options }) => options)
    .filter(({ path }) => path.includes('.'))
    .map(({ path }) => flagOf(path)),
)

const flag = (field: string) => OTHERS[field] ?? flagOfField(field)

/**
 * The message about a config field in the words of the command line: flags in place of fields. A
 * field of a whole recipe keeps its path.
 */
export function inFlags(
  message: string,
  { field, reason }: Readonly<Record<string, unknown>>,
): string {
  if (typeof field !== 'string' || typeof reason !== 'string' || message !== `${field}: ${reason}`)
    return message
  if (field.includes('[')) return message
  const known = /^unknown option.* Known: (.*)$/.exec(reason)?.[1]?.split(', ')
  const typed = field === 'train' ? typedOfTraining() : flag(field)
  if (known === undefined || typed === undefined)
    return `${typed ?? field}: ${reason.replace(/\b[a-z]+[A-Z]\w*\b/g, (word) => flag(word) ?? word)}`
  const others = known.flatMap((name) => flag(name) ?? [])
  return `${typed}: not an option of this recipe, which has ${others.join(', ')}${known.includes('train') ? ' and those of its training' : ''}`
}

/** Without training all of its flags are one wrong field: the first that was typed. */
function typedOfTraining(): string | undefined {
  return process.argv.map((word) => word.replace(/=.*/, '')).find((word) => OF_TRAINING.has(word))
}
