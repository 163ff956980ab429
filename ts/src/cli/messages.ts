import type { Option } from 'commander'
import {
  BLOCK_FLAGS,
  EVALUATE_FLAGS,
  GENERATE_FLAGS,
  METHOD_FLAGS,
  RUN_FLAGS,
  SITE_FLAGS,
  TRAIN_FLAGS,
} from './flags.js'

const OF_TRAINING = flagsOf(TRAIN_FLAGS, BLOCK_FLAGS)
/** The flag of every config field. */
const FLAGS: Readonly<Record<string, string>> = {
  ...flagsOf(SITE_FLAGS, RUN_FLAGS, METHOD_FLAGS, EVALUATE_FLAGS, GENERATE_FLAGS),
  ...OF_TRAINING,
  kind: '--recipe',
  output: '--output',
  messages: '--chat',
}

function flagsOf(...groups: Readonly<Record<string, Option>>[]): Record<string, string> {
  return Object.fromEntries(
    groups.flatMap((group) =>
      Object.entries(group).map(([field, option]) => [field, option.long ?? option.flags]),
    ),
  )
}

/** The message about a config field in the words of the command line: flags in place of fields. */
export function inFlags(
  message: string,
  { field, reason }: Readonly<Record<string, unknown>>,
): string {
  if (typeof field !== 'string' || typeof reason !== 'string' || message !== `${field}: ${reason}`)
    return message
  const known = /^unknown option.* Known: (.*)$/.exec(reason)?.[1]?.split(', ')
  const flag = field === 'train' ? typedOfTraining() : FLAGS[field.split('.').at(-1) ?? '']
  if (known === undefined || flag === undefined)
    return `${flag ?? field}: ${reason.replace(/\b[a-z]+[A-Z]\w*\b/g, (word) => FLAGS[word] ?? word)}`
  const others = known.flatMap((name) => FLAGS[name] ?? [])
  return `${flag}: not an option of this recipe, which has ${others.join(', ')}${known.includes('train') ? ' and those of its training' : ''}`
}

/** Without training all of its flags are one wrong field: the first that was typed. */
function typedOfTraining(): string | undefined {
  return process.argv
    .map((word) => word.replace(/=.*/, ''))
    .find((word) => Object.values(OF_TRAINING).includes(word))
}
