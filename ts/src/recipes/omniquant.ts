import type { BlockOptions, OmniquantConfig } from '../generated/types.js'

/** Options of {@link omniquant}; every one has a default. */
export type OmniquantOptions = Partial<Omit<OmniquantConfig, 'train'>> & {
  train?: Partial<BlockOptions>
}

/**
 * OmniQuant: learned clips of groups with zero points, block by block (arXiv 2308.13137). Laptop
 * memory, 2 and 3 bits.
 */
export function omniquant(
  options: OmniquantOptions = {},
): { kind: 'omniquant' } & OmniquantOptions {
  return { kind: 'omniquant', ...options }
}
