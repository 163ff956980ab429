import type { BlockOptions, EfficientqatConfig } from '../generated/types.js'

/** Options of {@link efficientqat}; every one has a default. */
export type EfficientqatOptions = Partial<Omit<EfficientqatConfig, 'train'>> & {
  train?: Partial<BlockOptions>
}

/**
 * EfficientQAT: weights, steps and zero points learn block by block, then the steps end to end
 * (arXiv 2407.11062).
 */
export function efficientqat(
  options: EfficientqatOptions = {},
): { kind: 'efficientqat' } & EfficientqatOptions {
  return { kind: 'efficientqat', ...options }
}
