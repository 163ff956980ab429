import type { ApiqConfig, BlockOptions } from '../generated/types.js'

/** Options of {@link apiq}; every one has a default. */
export type ApiqOptions = Partial<Omit<ApiqConfig, 'train'>> & { train?: Partial<BlockOptions> }

/**
 * ApiQ: learned clips, and low-rank factors that stay beside the weights, block by block (arXiv
 * 2402.05147).
 */
export function apiq(options: ApiqOptions = {}): { kind: 'apiq' } & ApiqOptions {
  return { kind: 'apiq', ...options }
}
