import type { SilqConfig, TrainConfig } from '../generated/types.js'

/** Options of the training part; every one has a default. */
export type TrainOptions = Partial<TrainConfig>

/** Options of {@link silq}; every one has a default. */
export type SilqOptions = Partial<Omit<SilqConfig, 'train'>> & { train?: TrainOptions }

/**
 * SiLQ: weights, norms and quantization steps learn together from the unquantized model's answers,
 * on the target's grid (arXiv 2507.16933).
 */
export function silq(options: SilqOptions = {}): { kind: 'silq' } & SilqOptions {
  return { kind: 'silq', ...options }
}
