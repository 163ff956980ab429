import type { LlmQatConfig } from '../generated/types.js'
import type { TrainOptions } from './silq.js'

/** Options of {@link llmQat}; every one has a default. */
export type LlmQatOptions = Partial<Omit<LlmQatConfig, 'train'>> & { train?: TrainOptions }

/**
 * LLM-QAT: all weights learn on text that the unquantized model generates itself; scales follow the
 * weights (arXiv 2305.17888). Needs no data.
 */
export function llmQat(options: LlmQatOptions = {}): { kind: 'llm-qat' } & LlmQatOptions {
  return { kind: 'llm-qat', ...options }
}
