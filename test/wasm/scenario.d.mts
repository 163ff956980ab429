/** What the scenario found out, as JSON. */
export interface Findings {
  inspection: { parameters: number }
  pieces: string[]
  generation: { text: string; tokens: number[] }
  damaged: { code: string }
  impossible: { code: string }
  isTimed: boolean
}

export function scenario(build: unknown, bytes: Uint8Array, text: string): Promise<Findings>
