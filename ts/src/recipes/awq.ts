import type { AwqRecipeConfig, SolverOptions } from '../generated/types.js'

/** Options of {@link awq}; every one has a default. */
export type AwqOptions = Partial<Omit<AwqRecipeConfig, 'train'>> & {
  train?: Partial<SolverOptions>
}

/**
 * AWQ: channels that carry much made larger before rounding, and clipped ranges (arXiv 2306.00978).
 * Minutes, no training.
 */
export function awq(options: AwqOptions = {}): { kind: 'awq' } & AwqOptions {
  return { kind: 'awq', ...options }
}
