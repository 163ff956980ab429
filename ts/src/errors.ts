import type { ERROR_CODES } from './generated/errors.js'
import type { ErrorData } from './native.js'

export { ERROR_CODES } from './generated/errors.js'

/** A stable code, for `switch`. */
export type ErrorCode = (typeof ERROR_CODES)[number]

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
