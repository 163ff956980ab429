import type { GptqRecipeConfig, SolverOptions } from '../generated/types.js'

/** Options of {@link gptq}; every one has a default. */
export type GptqOptions = Partial<Omit<GptqRecipeConfig, 'train'>> & {
  train?: Partial<SolverOptions>
}

/**
 * GPTQ: columns rounded one after the other, the free ones making up for each error (arXiv
 * 2210.17323). Minutes, no training.
 */
export function gptq(options: GptqOptions = {}): { kind: 'gptq' } & GptqOptions {
  return { kind: 'gptq', ...options }
}
