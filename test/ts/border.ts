/**
 * Everything that can be passed wrongly, to whatever build: each function of the package, each of its
 * arguments and each option that the types name, with values of every wrong kind. All of them are
 * refused by a typed error that names the argument; none is understood as something else.
 */
import { EVALUATE, GENERATE, type OptionDoc, RECIPES, RUN } from '../../ts/src/generated/options.js'
import type * as node from '../../ts/src/index.js'
import type * as web from '../../ts/src/wasm.js'

export type Halfstep = typeof node | typeof web

/** What is passed, in words, and whether an option of a kind may be it. */
type Wrong = [words: string, value: unknown]

const LONE = 'half \ud83d of a smiley'
const never: Wrong[] = [
  ['a function', () => 1],
  ['a symbol', Symbol('seed')],
  ['a date', new Date(0)],
  ['a map', new Map([['tokens', 4]])],
  ['NaN', Number.NaN],
  ['infinity', Number.POSITIVE_INFINITY],
  ['a number beyond 2^53', 2 ** 53],
  ['a BigInt beyond 64 bits', 2n ** 64n],
  ['a BigInt far below zero', -(2n ** 63n) - 1n],
  ['half a character', LONE],
  ['a list', [1]],
  ['an object', { a: 1 }],
  ['a typed array', new Float32Array(1)],
]
const text: Wrong[] = [
  ['a text', '4'],
  ['an empty text', ''],
]
const flag: Wrong[] = [['true', true]]
const number: Wrong[] = [
  ['a number', 4],
  ['a BigInt', 4n],
]
const WRONG: Record<OptionDoc['type'], Wrong[]> = {
  number: [...never, ...text, ...flag],
  boolean: [...never, ...text, ...number],
  string: [...never, ...flag, ...number],
}
/** Whole numbers that no option can be, where it is one. */
const NEVER_WHOLE: Wrong[] = [
  ['a fraction', 1.5],
  ['a number below zero', -1],
  ['a BigInt below zero', -1n],
]
/** Numbers that are no whole ones; every other number option counts something. */
const FRACTIONS =
  /temperature|topP|rate|multiplier|warmup|ratio|beta|eps$|decay|norm$|weight$|anchor|damping|alpha|lambda|growth|clip/i
/** Where there is none, a list or an object may be right. */
const ANY = /^(messages)$/

export interface Case {
  name: string
  /** The argument that the error names. */
  field: string
  act: () => unknown
}

/** An object with one field, or with one in another. */
function nested(path: string, value: unknown): Record<string, unknown> {
  const [outer, inner] = path.split('.') as [string, string?]
  return { [outer]: inner === undefined ? value : { [inner]: value } }
}

function ofOptions(
  name: string,
  docs: readonly OptionDoc[],
  act: (options: object) => unknown,
): Case[] {
  return docs.flatMap(({ path, type, choices }) => {
    if (ANY.test(path)) return []
    const whole = type === 'number' && !FRACTIONS.test(path)
    const wrong = [
      ...WRONG[type],
      ...(whole ? NEVER_WHOLE : []),
      ...(choices ? [['a word', 'banana'] as Wrong] : []),
      ...(path === 'threads' ? [['more than a system starts', 100_000] as Wrong] : []),
    ]
    return wrong.map(([words, value]) => ({
      name: `${name}: ${path} is ${words}`,
      // What is in a list or an object is found where it is.
      field: path,
      act: () => act(nested(path, value)),
    }))
  })
}

/** Values that an argument cannot be, in cases. */
function ofArgument(
  name: string,
  field: string,
  wrong: readonly Wrong[],
  act: (value: never) => unknown,
): Case[] {
  return wrong.map(([words, value]) => ({
    name: `${name}: ${field} is ${words}`,
    field,
    act: () => act(value as never),
  }))
}

const nothing: Wrong[] = [
  ['null', null],
  ['undefined', undefined],
]
const NO_TEXT: Wrong[] = [
  ...never.filter(([words]) => words !== 'half a character'),
  ...flag,
  ...number,
  ...nothing,
]
const TEXTS_BUT: Wrong[] = [...NO_TEXT, ['half a character', LONE]]
const NO_OPTIONS: Wrong[] = [
  ['null', null],
  ...text,
  ...flag,
  ...number,
  ...never.filter(([words]) => words !== 'an object'),
]
const controller = new AbortController()
const NO_SIGNAL: Wrong[] = [
  ['null', null],
  ...text,
  ...flag,
  ...number,
  ...never,
  ['its controller', controller],
  ['an event target', new EventTarget()],
]
const NO_FUNCTION: Wrong[] = [
  ['null', null],
  ...text,
  ...flag,
  ...number,
  ...never.filter(([words]) => words !== 'a function'),
]

/** All cases, with the names of the functions that have some; `source` is the path of a model. */
export async function cases(
  halfstep: Halfstep,
  source: string,
): Promise<{ all: Case[]; covered: Set<string> }> {
  const { Model, quantize, recipes, resolve, inspect, reportPage } = halfstep
  const model = await Model.load(source)
  const rtn = recipes.rtn()
  const words = { text: 'the half step '.repeat(20), sequenceLength: 16 }
  const NO_MODEL: Wrong[] = [
    ...nothing,
    ...text,
    ...number,
    ...never,
    ['a promise of one', Promise.resolve(model)],
    ['its class', Model],
  ]
  /** What quantize refuses at once, it throws; what the core refuses, its result says. */
  const run = (...args: never[]) =>
    (quantize as (...args: never[]) => { result: Promise<unknown> })(...args).result
  const cases: Case[] = [
    ...ofArgument('load', 'source', TEXTS_BUT, (value) => Model.load(value)),
    ...ofArgument('load', 'options', NO_OPTIONS, (value) => Model.load(source, value)),
    ...ofArgument('load', 'name', TEXTS_BUT.slice(0, -2), (name) => Model.load(source, { name })),
    ...ofArgument('load', 'signal', NO_SIGNAL, (signal) => Model.load(source, { signal })),
    ...ofArgument('load', 'sginal', number, (sginal) => Model.load(source, { sginal } as never)),
    ...ofArgument('inspect', 'source', TEXTS_BUT, (value) => inspect(value)),
    ...ofArgument('inspect', 'options', NO_OPTIONS, (value) => inspect(source, value)),
    ...ofArgument('inspect', 'signal', NO_SIGNAL, (signal) => inspect(source, { signal })),
    ...ofArgument('quantize', 'model', NO_MODEL, (value) => run(value, rtn as never)),
    ...ofArgument('quantize', 'recipe', [...NO_OPTIONS, ...nothing.slice(1)], (value) =>
      run(model as never, value),
    ),
    ...ofArgument('quantize', 'options', NO_OPTIONS, (value) =>
      run(model as never, rtn as never, value),
    ),
    ...ofArgument('quantize', 'signal', NO_SIGNAL, (signal) =>
      run(model as never, rtn as never, { signal } as never),
    ),
    ...ofOptions('quantize', RUN, (options) => run(model as never, rtn as never, options as never)),
    ...ofArgument('resolve', 'recipe', [...NO_OPTIONS, ...nothing.slice(1)], (value) =>
      resolve(value),
    ),
    ...ofArgument('resolve', 'changes', NO_OPTIONS, (value) => resolve(rtn, value)),
    ...ofArgument('resolve', 'rules[0].quantizer.observer', WRONG.string, (value) =>
      resolve(rtn, { 'rules[0].quantizer.observer': value }),
    ),
    ...ofArgument('reportPage', 'report', NO_OPTIONS, (value) => reportPage(value)),
    ...ofOptions('evaluate', EVALUATE, (options) => model.evaluate({ ...words, ...options })),
    ...ofArgument('evaluate', 'options', NO_OPTIONS, (value) => model.evaluate(value)),
    ...ofArgument('evaluate', 'run', NO_OPTIONS, (value) => model.evaluate(words, value)),
    ...ofArgument('evaluate', 'signal', NO_SIGNAL, (signal) => model.evaluate(words, { signal })),
    ...ofArgument('evaluate', 'onProgress', NO_FUNCTION, (onProgress) =>
      model.evaluate(words, { onProgress }),
    ),
    ...ofArgument(
      'evaluate',
      'against',
      NO_MODEL.filter(([of]) => of !== 'undefined'),
      (against) => model.evaluate(words, { against }),
    ),
    ...ofOptions(
      'generate',
      GENERATE,
      (options) => model.generate({ prompt: 'a', maxTokens: 1, ...options }).result,
    ),
    ...ofArgument('generate', 'options', NO_OPTIONS, (value) => model.generate(value).result),
    ...ofArgument(
      'generate',
      'run',
      NO_OPTIONS,
      (value) => model.generate({ prompt: 'a', maxTokens: 1 }, value).result,
    ),
    ...ofArgument(
      'generate',
      'signal',
      NO_SIGNAL,
      (signal) => model.generate({ prompt: 'a', maxTokens: 1 }, { signal }).result,
    ),
    ...ofArgument(
      'generate',
      'messages[0].content',
      TEXTS_BUT.slice(0, -2),
      (content) => model.generate({ messages: [{ role: 'user', content }] }).result,
    ),
    ...ofArgument('generateAll', 'prompts', [...NO_OPTIONS, ...nothing].filter(isNoList), (value) =>
      model.generateAll(value),
    ),
    ...ofArgument('generateAll', 'prompts[1]', TEXTS_BUT, (value) =>
      model.generateAll(['a', value]),
    ),
    ...ofOptions(
      'generateAll',
      GENERATE.filter(({ path }) => path !== 'prompt'),
      (options) => model.generateAll(['a'], { maxTokens: 1, ...options }),
    ),
    ...ofArgument('generateAll', 'signal', NO_SIGNAL, (signal) =>
      model.generateAll(['a'], { maxTokens: 1 }, { signal }),
    ),
    ...ofArgument('tokenize', 'text', TEXTS_BUT, (value) => model.tokenize(value)),
    ...ofArgument('tokenize', 'options', NO_OPTIONS, (value) => model.tokenize('a', value)),
    ...ofArgument('tokenize', 'special', [...WRONG.boolean, ['null', null]], (special) =>
      model.tokenize('a', { special }),
    ),
    ...ofArgument('logits', 'tokens', [...NO_OPTIONS, ...nothing].filter(isNoList), (value) =>
      model.logits(value),
    ),
    ...ofArgument('logits', 'tokens[1]', [...WRONG.number, ...NEVER_WHOLE, ...nothing], (value) =>
      model.logits([0, value]),
    ),
    ...ofArgument('logits', 'tokens[1]', [['beyond 32 bits', 2 ** 32]], (value) =>
      model.logits([0, value]),
    ),
    ...ofArgument('save', 'path', TEXTS_BUT, (value) => model.save(value)),
    ...Object.entries(recipes).flatMap(([name, recipe]) => [
      ...ofArgument(`recipes.${name}`, 'options', NO_OPTIONS, (value) => recipe(value)),
      ...ofArgument(`recipes.${name}`, 'kind', text, (kind) => recipe({ kind } as never)),
    ]),
    ...RECIPES.flatMap(({ kind, options }) =>
      ofOptions(kind, options, (given) => resolve({ kind, ...given } as never)),
    ),
  ]
  if ('plan' in halfstep) {
    const { plan } = halfstep
    const free = 'freeMemoryBytes'
    cases.push(
      ...ofArgument(
        'plan',
        'model',
        NO_MODEL.filter(([of]) => !of.includes('text')),
        (value) => plan(value, rtn),
      ),
      ...ofArgument('plan', 'options', NO_OPTIONS, (value) => plan(model, rtn, value)),
      ...ofArgument('plan', free, [...WRONG.number, ...NEVER_WHOLE, ['none', 0]], (value) =>
        plan(model, rtn, { freeMemoryBytes: value }),
      ),
      ...ofArgument('plan', 'signal', NO_SIGNAL, (signal) => plan(model, rtn, { signal })),
      ...ofArgument('plan', 'onEvent', NO_FUNCTION, (onEvent) => plan(model, rtn, { onEvent })),
      ...ofOptions('plan', RUN, (options) => plan(model, rtn, options)),
    )
  }
  if ('loadWasm' in halfstep) {
    const { loadWasm } = halfstep
    const wrong = [...nothing.slice(0, 1), ...text, ...number, ...never].filter(
      ([of]) => of !== 'a typed array',
    )
    cases.push(...ofArgument('loadWasm', 'source', wrong, (value) => loadWasm(value)))
  }
  // Nothing is passed to these; or they are what the others give.
  const WITHOUT_ARGUMENTS = ['dequantize', 'toBytes', 'dispose', 'constructor']
  const covered = new Set(cases.map(({ name }) => name.replace(/:.*/, '')))
  for (const name of WITHOUT_ARGUMENTS) covered.add(name)
  for (const name of ['Model', 'recipes', 'HalfstepError', 'ERROR_CODES']) covered.add(name)
  return { all: cases, covered }
}

function isNoList([words]: Wrong): boolean {
  return words !== 'a list' && words !== 'a typed array'
}

/** What is wrong with the answers to all cases, and how many there were. */
export async function answers(
  halfstep: Halfstep,
  source: string,
): Promise<{ failures: string[]; count: number; missing: string[] }> {
  const { all, covered } = await cases(halfstep, source)
  const failures: string[] = []
  for (const { name, field, act } of all) {
    let error: unknown
    try {
      await act()
      failures.push(`${name}: it was accepted`)
      continue
    } catch (thrown) {
      error = thrown
    }
    if (!(error instanceof halfstep.HalfstepError)) {
      failures.push(`${name}: ${error}`)
      continue
    }
    // Of a list or an object the part is named that cannot be.
    const named = String(error.details.field)
    if (error.code !== 'ERR_CONFIG' || !named.startsWith(field))
      failures.push(`${name}: ${error.code} ${error.message}`)
    if (error.message !== `${named}: ${error.details.reason}`) failures.push(`${name}: its words`)
  }
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(halfstep.Model.prototype))
  const missing = [...Object.keys(halfstep), ...methods].filter((name) => !covered.has(name))
  return { failures, count: all.length, missing }
}

/** What is right stays exactly what it is, though JavaScript's own conversions would change it. */
export async function exact(halfstep: Halfstep, source: string): Promise<object> {
  const { Model, recipes, resolve } = halfstep
  const model = await Model.load(source)
  const said = async (seed: number | bigint) =>
    (await model.generate({ prompt: 'ab', maxTokens: 12, temperature: 1.5, seed }).result).text
  const seeds = async (seed: number | bigint) => {
    const whole = await resolve(recipes.silq({ train: { seed } }))
    const seedOf = ({ stages }: typeof whole) =>
      (stages[0] as { config: object }).config as { seed: unknown }
    return [seedOf(whole).seed, seedOf(await resolve(whole)).seed]
  }
  const [huge, next] = [2n ** 64n - 2n, 2n ** 64n - 1n]
  const logits = async (tokens: ArrayLike<number>) => [...(await model.logits(tokens))]
  const once = await logits([97, 98])
  const bigints = await logits([97n, 98n] as unknown as number[])
  const [first, again] = [await said(huge), await said(huge)]
  const smiley = await model.tokenize('\ud83d\ude00 \u0000')
  return {
    seeds: [await seeds(huge), await seeds(next), await seeds(123n), await seeds(2 ** 53 - 1)],
    sameSeed: [again === first, (await said(123n)) === (await said(123))],
    otherSeed: (await said(next)) === first,
    sameLogits: [
      String(await logits(Uint32Array.of(97, 98))) === String(once),
      String(bigints) === String(once),
    ],
    smiley: smiley.length,
    bare: (
      await model.evaluate(
        Object.assign(Object.create(null), { text: 'the half step', sequenceLength: 13 }),
      )
    ).predictions,
  }
}

export const EXACT = {
  seeds: [
    [2n ** 64n - 2n, 2n ** 64n - 2n],
    [2n ** 64n - 1n, 2n ** 64n - 1n],
    [123, 123],
    [2 ** 53 - 1, 2 ** 53 - 1],
  ],
  sameSeed: [true, true],
  otherSeed: false,
  sameLogits: [true, true],
  smiley: 6,
  bare: 12,
}
