import { HalfstepError } from './errors.js'

/**
 * Checks of what callers pass, before it crosses into the core: there nothing of another type
 * arrives, and nothing that JavaScript would have changed on the way without a word (a fraction cut
 * off, half a character replaced, a function left out). Both builds are entered through them.
 */

/** Nested deeper than this, a config is a mistake; the core stops reading at 128. */
const DEEPEST = 100
/** What whole numbers in the core can be, signed and unsigned. */
const [LEAST, MOST] = [-(2n ** 63n), 2n ** 64n - 1n]
/** Half of a pair of UTF-16 units without the other half: no text has it, and UTF-8 cannot. */
const LONE_SURROGATE = /\p{Surrogate}/u

/** The refusal of an argument, by the name or path that the caller gave it. */
export function refusal(field: string, reason: string): HalfstepError {
  return new HalfstepError('ERR_CONFIG', `${field}: ${reason}`, { field, reason })
}

/** A value in words: what it is, and its text where that is short. */
export function described(value: unknown): string {
  if (typeof value === 'string') return 'a text'
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'symbol') return 'a symbol'
  if (Array.isArray(value)) return 'a list'
  if (typeof value !== 'object' || value === null) return String(value)
  const name: unknown = Object.getPrototypeOf(value)?.constructor?.name
  return typeof name === 'string' && name !== '' && name !== 'Object'
    ? `an object of the class ${name}`
    : 'an object'
}

/** A text that UTF-8 can hold. */
export function checkedText(field: string, value: unknown): string {
  if (typeof value !== 'string') throw refusal(field, `must be a text, got ${described(value)}`)
  const at = value.search(LONE_SURROGATE)
  if (at < 0) return value
  const unit = value.charCodeAt(at).toString(16)
  const reason = `the text has half a character (the lone surrogate U+${unit}) at position ${at}`
  throw refusal(field, reason)
}

/** A whole number from `least` to `most`, which are exact in JavaScript. */
export function checkedWhole(field: string, value: unknown, least: number, most: number): number {
  const isWhole = typeof value === 'bigint' || Number.isInteger(value)
  if (isWhole && (value as number) >= least && (value as number) <= most) return Number(value)
  throw refusal(field, `must be a whole number from ${least} to ${most}, got ${described(value)}`)
}

/** True or false; undefined is false. */
export function checkedFlag(field: string, value: unknown): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false
  throw refusal(field, `must be true or false, got ${described(value)}`)
}

/** A function that is called back; it may be left out. */
export function checkedFunction<F>(field: string, value: F): F {
  if (value === undefined || typeof value === 'function') return value
  throw refusal(field, `must be a function, got ${described(value)}`)
}

/** An `AbortSignal`, of whatever realm; it may be left out. */
export function checkedSignal(value: AbortSignal | undefined): AbortSignal | undefined {
  if (value === undefined) return value
  const signal = Object(value) as Partial<AbortSignal>
  if (
    typeof signal.aborted === 'boolean' &&
    typeof signal.addEventListener === 'function' &&
    typeof signal.removeEventListener === 'function'
  )
    return value
  const hint = 'signal' in signal ? '; pass its signal' : ''
  throw refusal('signal', `must be an AbortSignal, got ${described(value)}${hint}`)
}

/** An object whose fields count; `name` is that of the argument. */
export function plainObject<T extends object>(name: string, value: T): T {
  if (isPlain(value)) return value
  throw refusal(name, `must be an object of options, got ${described(value)}`)
}

/** Options of which all are `known`. */
export function checkedOptions<T extends object>(
  name: string,
  value: T,
  known: readonly (keyof T & string)[],
): T {
  for (const field of Object.keys(plainObject(name, value)))
    if (!(known as readonly string[]).includes(field))
      throw refusal(field, `unknown option. Known: ${known.join(', ')}`)
  return value
}

/** Options of a built-in recipe, whose name the function says. */
export function recipeOptions<T extends object>(options: T): T {
  if (Object.hasOwn(plainObject('options', options), 'kind'))
    throw refusal('kind', 'the function says which recipe it is')
  return options
}

/** Whether the object is one of this realm's or another's literals, or has no prototype. */
function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/**
 * JSON of data, as `JSON.stringify` writes it, but with an error for everything that it would
 * change or leave out: NaN and infinities, whole numbers that JavaScript does not hold
 * exactly, lone surrogates, functions, holes in lists, objects that are more than their fields. A
 * BigInt is written as the whole number it is. `name` stands in errors for the whole.
 */
export function toJson(name: string, data: unknown): string {
  try {
    return written(data, '', name, new Set())
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new HalfstepError('ERR_MEMORY', `${name}: its JSON is longer than a text may be`, {
      what: name,
    })
  }
}

/** JSON of the options in `config`, the argument `name`. */
export function configJson(name: string, config: object): string {
  return toJson(name, plainObject(name, config))
}

function written(value: unknown, path: string, name: string, above: Set<unknown>): string {
  const field = path === '' ? name : path
  switch (typeof value) {
    case 'string':
      return JSON.stringify(checkedText(field, value))
    case 'number':
      return writtenNumber(field, value)
    case 'bigint':
      if (value < LEAST || value > MOST)
        throw refusal(field, `must be a whole number of at most 64 bits, got ${value}n`)
      return String(value)
    case 'boolean':
      return String(value)
  }
  if (value === null) return 'null'
  if (typeof value !== 'object' || !(Array.isArray(value) || isPlain(value)))
    throw refusal(field, `must be data as JSON has it, got ${described(value)}`)
  if (above.has(value) || above.size === DEEPEST) {
    const reason = above.has(value) ? 'contains itself' : `is nested deeper than ${DEEPEST} levels`
    throw refusal(field, reason)
  }
  above.add(value)
  const at = (key: string | number) =>
    typeof key === 'number' ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`
  const json = Array.isArray(value)
    ? `[${Array.from(value, (item, i) => written(item, at(i), name, above)).join()}]`
    : `{${Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => {
          const inside = at(key)
          return `${JSON.stringify(checkedText(inside, key))}:${written(item, inside, name, above)}`
        })
        .join()}}`
  above.delete(value)
  return json
}

function writtenNumber(field: string, value: number): string {
  if (!Number.isFinite(value)) throw refusal(field, `must be a finite number, got ${value}`)
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    const reason = `${value} is beyond 2^53, where numbers are not exact; give it as a BigInt`
    throw refusal(field, reason)
  }
  return JSON.stringify(value)
}

/** A text in JSON, or a number; and the whole numbers that may be too large to be exact. */
const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g
const LONG_WHOLE = /[\s:,[-]\d{16,}(?![\d.eE])/
const WHOLE = /^-?\d+$/

/** The data of JSON; whole numbers that a number does not hold exactly are BigInts. */
export function fromJson(json: string): unknown {
  const inexact = (part: string) => WHOLE.test(part) && !Number.isSafeInteger(Number(part))
  if (!LONG_WHOLE.test(json)) return JSON.parse(json)
  // They go through the parser as texts with a mark that no text of this JSON has.
  let mark = '#'
  while (json.includes(`"${mark}`)) mark += '#'
  const marked = json.replace(TEXT_OR_NUMBER, (part) => (inexact(part) ? `"${mark}${part}"` : part))
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === 'string' && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  )
}

/**
 * For `JSON.stringify`, where people read what it writes: BigInts, which it refuses, as text.
 */
export function exactly(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}
