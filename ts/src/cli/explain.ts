import { Command } from 'commander'
import { type ErrorCode, HalfstepError } from '../errors.js'
import { ERROR_CODES, ERROR_TEXTS } from '../generated/errors.js'
import { FIELDS, type OptionDoc, RECIPES, type RecipeDoc } from '../generated/options.js'
import { attempt } from './exit.js'
import { wrapped } from './format.js'
import {
  EVALUATE_OPTIONS,
  fieldOf,
  flagOf,
  GENERATE_OPTIONS,
  inWords,
  RUN_OPTIONS,
} from './options.js'

const EXAMPLE = `
Examples:
  halfstep explain efficientqat
  halfstep explain learning-rate
  halfstep explain stages[].from
  halfstep explain ERR_CHECKPOINT`

export function explainCommand(): Command {
  const command = new Command('explain')
    .description(
      [
        'Explains a recipe (what it does, what it costs and why it has its defaults), an option,',
        'a field of a whole recipe, or the code of an error.',
      ].join(' '),
    )
    .argument('<word>', 'Name of a recipe, an option, a field or a code.')
    .allowUnknownOption()
    .addHelpText('after', EXAMPLE)
  return command.action((word: string) =>
    attempt(async () => {
      console.log(explanation(word).join('\n'))
    }),
  )
}

/** The lines about a word, of at most 80 columns. */
function explanation(word: string): string[] {
  const recipe = RECIPES.find(({ kind }) => kind === word)
  if (recipe !== undefined) return recipeLines(recipe)
  const code = ERROR_CODES.find((name) => name === word.toUpperCase())
  if (code !== undefined) return codeLines(code)
  const wanted = plain(word)
  const sections = [...optionSections(wanted), ...fieldSections(wanted)]
  if (sections.length > 0) return sections.flatMap((lines, i) => (i === 0 ? lines : ['', ...lines]))
  const near = NAMES.filter((name) => plain(name).includes(wanted) || wanted.includes(plain(name)))
  const hint = near.length > 0 ? `; similar names: ${near.slice(0, 8).join(', ')}` : ''
  const reason = `there is no recipe, option, field or code of this name${hint}`
  throw new HalfstepError('ERR_CONFIG', `${word}: ${reason}`, { field: word, reason })
}

/** `--learning-rate`, `learningRate` and `learning_rate` are the same word. */
const plain = (word: string) => word.replace(/^--(no-)?|[-_]|\[\d*\]/g, '').toLowerCase()

const NAMES: readonly string[] = [
  ...new Set([
    ...RECIPES.map(({ kind }) => kind),
    ...[
      ...RECIPES.flatMap(({ options }) => options),
      ...RUN_OPTIONS,
      ...EVALUATE_OPTIONS,
      ...GENERATE_OPTIONS,
    ].map(({ path }) => flagOf(path).slice(2)),
    ...FIELDS.map(({ path }) => path),
  ]),
]

/** What a recipe does and costs, why it has its defaults, and what to read next. */
export function recipeLines({ kind, doc }: RecipeDoc): string[] {
  const paragraphs = doc.split('\n\n').flatMap((text) => ['', ...wrapped(inWords(text))])
  return [
    kind,
    ...paragraphs,
    '',
    `Its options: halfstep quantize --recipe ${kind} --help`,
    `The whole recipe: halfstep recipes ${kind} --json`,
  ]
}

/** What a code means, and what to do. */
function codeLines(code: ErrorCode): string[] {
  const { meaning, remedy } = ERROR_TEXTS[code]
  return [code, ...wrapped(bare(meaning)), '', ...wrapped(`What to do: ${bare(remedy)}`)]
}

/** An option with the same meaning in several places, and its default in each. */
interface Shared {
  option: OptionDoc
  places: { name: string; value: OptionDoc['default'] }[]
}

function optionSections(wanted: string): string[][] {
  const groups: [string, readonly OptionDoc[]][] = [
    ...RECIPES.map(({ kind, options }): [string, readonly OptionDoc[]] => [kind, options]),
    ['every run', RUN_OPTIONS],
    ['halfstep eval', EVALUATE_OPTIONS],
    ['halfstep generate', GENERATE_OPTIONS],
  ]
  const shared: Shared[] = []
  for (const [name, options] of groups)
    for (const option of options) {
      if (plain(option.path) !== wanted && plain(fieldOf(option.path)) !== wanted) continue
      const same = shared.find((known) => known.option.doc === option.doc)
      const place = { name, value: option.default }
      if (same) same.places.push(place)
      else shared.push({ option, places: [place] })
    }
  return shared.map(({ option, places }) => [
    `${flagOf(option.path)}, in TypeScript ${option.path}: ${typeOf(option)}`,
    ...wrapped(inWords(option.doc)),
    ...wrapped(`In ${places.map(({ name, value }) => withDefault(name, value)).join(', ')}.`),
  ])
}

const withDefault = (name: string, value: OptionDoc['default']) =>
  value === undefined ? name : `${name} (${value})`

const typeOf = ({ type, choices }: OptionDoc) =>
  choices ? 'a name' : { number: 'a number', boolean: 'true or false', string: 'text' }[type]

function fieldSections(wanted: string): string[][] {
  return FIELDS.filter(
    ({ path, doc }) => doc !== '' && (plain(path) === wanted || plain(fieldOf(path)) === wanted),
  ).map(({ path, doc, choices = [], meanings }) => [
    `${path}, field of a whole recipe`,
    ...wrapped(bare(doc)),
    ...(meanings
      ? ['One of:', ...choices.flatMap((name) => choiceLines(name, meanings[name]))]
      : choices.length > 0
        ? wrapped(`One of ${choices.join(', ')}.`)
        : []),
  ])
}

/** A text whose names are those of fields and values, as they are. */
const bare = (text: string) => text.replaceAll('`', '')

/** A value of a field and what it means, indented. */
const choiceLines = (name: string, meaning?: string) =>
  wrapped(meaning ? `${name}: ${bare(meaning)}` : name, 78).map((line) => `  ${line}`)
