import type { ErrorData } from './native.js'

/** Every code a {@link HalfstepError} can carry. */
export const ERROR_CODES = [
  /**
   * Stopped by an `AbortSignal`, `cancel()` or Ctrl-C; `details.resume` names the checkpoint to go
   * on from, if there is one.
   */
  'ERR_CANCELLED',
  /** A checkpoint is absent, damaged or of another run. */
  'ERR_CHECKPOINT',
  /** An option is unknown, out of range or in conflict with another; `details.field` names it. */
  'ERR_CONFIG',
  /** The text cannot be used (empty, shorter than a window). */
  'ERR_DATA',
  /** The model was used after `dispose()`. */
  'ERR_DISPOSED',
  /**
   * The bytes of a file are not what its format promises; `details` has file, offset and reason.
   */
  'ERR_FORMAT',
  /** A fault of halfstep's: please report it. */
  'ERR_INTERNAL',
  /** A file could not be read or written. */
  'ERR_IO',
  /** A size passes its cap, or memory is short. */
  'ERR_MEMORY',
  /** A tensor that the architecture needs is not in the file. */
  'ERR_MISSING_TENSOR',
  /** Neither the native addon nor WebAssembly could be loaded. */
  'ERR_NO_BUILD',
  /** A loss, gradient or activation is not a number; nothing was updated. */
  'ERR_NON_FINITE',
  /** The written file differs from the trained model; it was removed. */
  'ERR_PARITY',
  /** A tensor has another shape than the config says. */
  'ERR_SHAPE',
  /**
   * The target cannot hold the grid the recipe asks for; `details.targets` names those that can.
   */
  'ERR_TARGET',
  /** A chat template failed. */
  'ERR_TEMPLATE',
  /** A chat template used more than it may. */
  'ERR_TEMPLATE_FUEL',
  /** The tokenizer is damaged or absent. */
  'ERR_TOKENIZER',
  /** A value that the block format cannot hold. */
  'ERR_UNENCODABLE',
  /** The file is sound but asks for something halfstep does not do; `details.name` names it. */
  'ERR_UNSUPPORTED',
] as const

/** A stable code, for `switch`. */
export type ErrorCode = (typeof ERROR_CODES)[number]

/**
 * Every failure of halfstep: a stable `code`, the fields in `details`, one sentence in `message`.
 */
export class HalfstepError extends Error {
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
