import type { ERROR_CODES } from './generated/errors.js'
import type { ErrorData } from './native.js'

export { ERROR_CODES } from './generated/errors.js'

/** A stable code, for `switch`. */
export type ErrorCode = (typeof ERROR_CODES)[number]

/**
 * What the errors of all copies of this package have: a program that imports it and requires it has
 * two.
 */
const BRAND = Symbol.for('halfstep.HalfstepError')

/**
 * Every failure of halfstep: a stable `code`, the fields in `details`, one sentence in `message`.
 */
export class HalfstepError extends Error {
  /** Name of the class, the same for every error of halfstep. */
  override readonly name = 'HalfstepError'
  /** What went wrong, for programs. */
  readonly code: ErrorCode
  /** The fields of the error: file, offset, field, targets, ... */
  readonly details: Readonly<Record<string, unknown>>

  constructor(
    code: ErrorCode,
    message: string,
    details: Record<string, unknown> = {},
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.code = code
    this.details = details
    Object.defineProperty(this, BRAND, { value: true })
  }

  /** An error of another copy of this package is one too. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (this === HalfstepError) return typeof value === 'object' && value !== null && BRAND in value
    return Function.prototype[Symbol.hasInstance].call(this, value)
  }
}

/**
 * The JavaScript error of an error that crossed as data. `cause` is the reason of the signal that
 * cancelled, if one did.
 */
export function errorFrom(data: ErrorData, cause?: unknown): HalfstepError {
  const options = data.code === 'ERR_CANCELLED' && cause !== undefined ? { cause } : undefined
  return new HalfstepError(data.code as ErrorCode, data.message, data.details, options)
}

/**
 * Calls into the core. What that throws is a panic on this thread or the end of WebAssembly, since
 * every failure of the core is data: `ERR_INTERNAL`.
 */
export function called<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    if (error instanceof HalfstepError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    throw new HalfstepError('ERR_INTERNAL', `internal error: ${reason}`, { reason })
  }
}
