import type { RtnConfig } from '../generated/types.js'

/** Options of {@link rtn}; every one has a default. */
export type RtnOptions = Partial<RtnConfig>

/**
 * Round to nearest on the target's grid, without training; `start` chooses how the scales are
 * found. Seconds, and the baseline of every table.
 */
export function rtn(options: RtnOptions = {}): { kind: 'rtn' } & RtnOptions {
  return { kind: 'rtn', ...options }
}
