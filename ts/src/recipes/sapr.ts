import type { BlockOptions, SaprConfig } from '../generated/types.js'

/** Options of {@link sapr}; every one has a default. */
export type SaprOptions = Partial<Omit<SaprConfig, 'train'>> & { train?: Partial<BlockOptions> }

/**
 * SAPR: ApiQ with rounding errors weighted by the squared gradients of the unquantized model (arXiv
 * 2504.13932).
 */
export function sapr(options: SaprOptions = {}): { kind: 'sapr' } & SaprOptions {
  return { kind: 'sapr', ...options }
}
