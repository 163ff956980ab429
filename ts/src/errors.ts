import type { ErrorData } from './native.js'

/** Every code a {@link HalfstepError} can carry. */
export const ERROR_CODES = [
  /**
   * Stopped by an `AbortSignal`, `cancel()` or Ctrl-C; `details.resume` names the folder to resume
   * from, if state was saved.
   */
  'ERR_CANCELLED',
  /** A checkpoint is absent, damaged or of another run. */
  'ERR_CHECKPOINT',
  /** An option is unknown, out of range or in conflict with another; `details.field` names it. */
  'ERR_CONFIG',
  /** The text cannot be used, because it is empty or shorter than a sequence. */
  'ERR_DATA',
  /**
   * An operation of the device that trains failed; `details` has device, operation and reason.
   */
  'ERR_DEVICE',
  /** The model was used after `dispose()`. */
  'ERR_DISPOSED',
  /**
   * The bytes of a file do not conform to its format; `details` has file, offset and reason.
   */
  'ERR_FORMAT',
  /** A bug in halfstep: please report it. */
  'ERR_INTERNAL',
  /** A file could not be read or written. */
  'ERR_IO',
  /** A size exceeds its limit, or there is not enough memory. */
  'ERR_MEMORY',
  /** A tensor that the architecture needs is not in the file. */
  'ERR_MISSING_TENSOR',
  /** Neither the native addon nor WebAssembly could be loaded. */
  'ERR_NO_BUILD',
  /** A loss, gradient or activation is NaN or infinite; nothing was updated. */
  'ERR_NON_FINITE',
  /** The written file differs from the trained model; it was removed. */
  'ERR_PARITY',
  /** The shape of a tensor is not the one that the config gives. */
  'ERR_SHAPE',
  /**
   * The target cannot hold the grid of the recipe; `details.targets` names those that can.
   */
  'ERR_TARGET',
  /** A chat template failed. */
  'ERR_TEMPLATE',
  /** A chat template used more steps or memory than it may. */
  'ERR_TEMPLATE_FUEL',
  /** The tokenizer is damaged or absent. */
  'ERR_TOKENIZER',
  /** A value that the block format cannot hold. */
  'ERR_UNENCODABLE',
  /** The file is valid but needs something that halfstep does not support: `details.name`. */
  'ERR_UNSUPPORTED',
] as const

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
