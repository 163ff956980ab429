/** What the scenario found out, as JSON. */
export interface Findings {
  inspection: { parameters: number }
  pieces: string[]
  generation: { text: string; tokens: number[] }
  evaluation: { kl: number }
  damaged: { code: string }
  impossible: { code: string }
  isTimed: boolean
}

/** `grid`: the options of `rtn`; 4 bits for llama.cpp if left out. */
export function scenario(
  build: unknown,
  bytes: Uint8Array,
  text: string,
  grid?: unknown,
): Promise<Findings>
