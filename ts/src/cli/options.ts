import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  EVALUATE,
  GENERATE,
  type OptionDoc,
  RECIPES,
  RENAMED,
  RENAMED_SINCE,
  RUN,
} from '../generated/options.js'

/**
 * Flags generated from the config fields in Rust. Defaults, ranges and the names of choices are
 * defined there; a flag that is absent is not sent.
 */

/** Placeholders of text values in the help. */
const PLACEHOLDERS: Readonly<Record<string, string>> = {
  data: 'file',
  validation: 'file',
  runFolder: 'folder',
  prompt: 'text',
}

/** `learningRate` of `train.learningRate`. */
export const fieldOf = (path: string) => path.split('.').at(-1) ?? path

/** `--learning-rate` of `train.learningRate`. */
export const flagOf = (path: string) =>
  `--${fieldOf(path).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Flags of earlier versions and those of today. */
const RENAMED_FLAGS: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(RENAMED).flatMap(([before, now]) => [
    [flagOf(before), flagOf(now)],
    [flagOf(before).replace('--', '--no-'), flagOf(now).replace('--', '--no-')],
  ]),
)

/**
 * The parser's message about an unknown flag, if that is the earlier name of one of `options`, with
 * its name of today.
 */
export function renamedFlag(message: string, options: readonly Option[]): string | undefined {
  const before = /unknown option '(--[\w-]+)/.exec(message)?.[1]
  const now = before === undefined ? undefined : RENAMED_FLAGS[before]
  if (now === undefined || !options.some(({ long }) => long === now)) return undefined
  return `error: ${before} is called ${now} since ${RENAMED_SINCE}\n`
}

export function parseNumber(value: string): number {
  const parsed = Number(value)
  if (value.trim() === '' || !Number.isFinite(parsed))
    throw new InvalidArgumentError('it must be a number.')
  if (Number.isInteger(parsed) && !Number.isSafeInteger(parsed))
    throw new InvalidArgumentError('it must be below 2^53.')
  return parsed
}

function parseOnOff(value: string): boolean {
  if (value !== 'on' && value !== 'off') throw new InvalidArgumentError('it must be on or off.')
  return value === 'on'
}

/** The fields that the command line has flags for; it takes texts from files only. */
export const RUN_OPTIONS = without(RUN, ['text', 'validationText', 'output', 'record'])
export const EVALUATE_OPTIONS = without(EVALUATE, ['text'])
export const GENERATE_OPTIONS = GENERATE

function without(docs: readonly OptionDoc[], paths: readonly string[]): OptionDoc[] {
  return docs.filter(({ path }) => !paths.includes(path))
}

/** Fields that have a flag, by their paths and their names. */
const FLAGS: Readonly<Record<string, string>> = Object.fromEntries(
  [
    ...RECIPES.flatMap(({ options }) => options),
    ...RUN_OPTIONS,
    ...EVALUATE_OPTIONS,
    ...GENERATE_OPTIONS,
  ].flatMap(({ path }) => [
    [path, flagOf(path)],
    [fieldOf(path), flagOf(path)],
  ]),
)

/** The flag of a config field; undefined where there is none. */
export const flagOfField = (field: string): string | undefined =>
  Object.hasOwn(FLAGS, field) ? FLAGS[field] : undefined

/** The text of an option with flags in place of fields. */
export const inWords = (doc: string) =>
  doc.replace(/`([^`]*)`/g, (_, quoted: string) => flagOfField(quoted) ?? quoted)

/** The flag of a field. */
export function optionOf({ path, type, choices, default: value, doc }: OptionDoc): Option {
  const [flag, help] = [flagOf(path), inWords(doc)]
  if (type === 'number') return new Option(`${flag} <n>`, help).argParser(parseNumber)
  if (type === 'string') {
    const placeholder = choices ? 'name' : (PLACEHOLDERS[fieldOf(path)] ?? 'text')
    return new Option(`${flag} <${placeholder}>`, help)
  }
  if (value === true) return new Option(flag.replace('--', '--no-'), `Turns this off: ${help}`)
  if (value === false) return new Option(flag, help)
  // The flag without a value means true.
  return new Option(`${flag} [on]`, help).argParser(parseOnOff)
}

/** Adds the flags of some fields to a command; the one of `needed` is required. */
export function addOptions(
  command: Command,
  docs: readonly OptionDoc[],
  { heading, needed }: { heading?: string; needed?: string } = {},
): void {
  for (const doc of docs) {
    const option = optionOf(doc)
    if (heading !== undefined) option.helpGroup(heading)
    if (doc.path === needed) {
      option.makeOptionMandatory()
      option.description = option.description.replace('Default: none.', 'Required.')
    }
    command.addOption(option)
  }
}

/** The config fields whose flags are on the command line. */
export function given(command: Command, docs: readonly OptionDoc[]): Record<string, unknown> {
  const values = command.opts()
  const names = docs.map(({ path }) => fieldOf(path))
  return Object.fromEntries(
    names
      .filter((name) => command.getOptionValueSource(name) === 'cli')
      .map((name) => [name, values[name]]),
  )
}
