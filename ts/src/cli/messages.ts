import { RECIPES } from '../generated/options.js'
import { flagOf, flagOfField } from './options.js'

/** Flags of fields that are not among the generated options. */
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
 * The message about a config field, or about a text, in the words of the command line: flags in place
 * of fields. A field of a whole recipe keeps its path.
 */
export function inFlags(
  message: string,
  { field, data, reason }: Readonly<Record<string, unknown>>,
): string {
  if (typeof data === 'string' && message === `${data}: ${reason}`)
    return `${data}: ${inFlagNames(`${reason}`)}`
  if (typeof field !== 'string' || typeof reason !== 'string' || message !== `${field}: ${reason}`)
    return message
  if (field.includes('[')) return message
  const known = /^unknown option.* Known: (.*)$/.exec(reason)?.[1]?.split(', ')
  const typed = field === 'train' ? typedOfTraining() : flag(field)
  if (known === undefined || typed === undefined) return `${typed ?? field}: ${inFlagNames(reason)}`
  const others = known.flatMap((name) => flag(name) ?? [])
  const ofTraining = known.includes('train') ? ' and those of its training' : ''
  return `${typed}: not an option of this recipe, which has ${others.join(', ')}${ofTraining}`
}

/** A text with flags in place of the fields that have one. */
const inFlagNames = (text: string) =>
  text.replace(/\b[a-z]+[A-Z]\w*\b/g, (word) => flag(word) ?? word)

/**
 * The first flag of the training that was typed. A recipe without training refuses all of them as
 * one field.
 */
function typedOfTraining(): string | undefined {
  return process.argv.map((word) => word.replace(/=.*/, '')).find((word) => OF_TRAINING.has(word))
}
