import { formatSeconds } from './format.js'
import { note } from './output.js'

const BAR_WIDTH = 20
/** Without a terminal a line is printed each time this share of the work is done. */
const SHARE_PER_LINE = 0.1

/**
 * Progress on stderr: one line that is overwritten on a terminal, and a line for every tenth of the
 * work elsewhere.
 */
export class Progress {
  readonly #stream: NodeJS.WriteStream
  readonly #quiet: boolean
  #nextShare = 0
  #open = false

  constructor(quiet: boolean, stream: NodeJS.WriteStream = process.stderr) {
    this.#quiet = quiet
    this.#stream = stream
  }

  /** Shows `done` of `total`, the seconds left and a detail. */
  update(
    label: string,
    done: number,
    total: number,
    etaSeconds: number | undefined,
    detail: string,
  ): void {
    if (this.#quiet || total <= 0) return
    const share = Math.min(1, done / total)
    const percent = `${Math.floor(share * 100)}%`.padStart(4)
    const eta = etaSeconds === undefined ? '' : ` ETA ${formatSeconds(etaSeconds)}`
    if (this.#stream.isTTY) {
      const filled = Math.round(share * BAR_WIDTH)
      const bar = '#'.repeat(filled) + '-'.repeat(BAR_WIDTH - filled)
      const line = `${label} [${bar}] ${percent}${eta} ${detail}`
      note(`\r${line.slice(0, (this.#stream.columns || 80) - 1)}\x1b[K`, this.#stream)
      this.#open = true
    } else if (share >= this.#nextShare) {
      this.#nextShare = (Math.floor(share / SHARE_PER_LINE) + 1) * SHARE_PER_LINE
      note(`${label} ${percent}${eta} ${detail}\n`, this.#stream)
    }
  }

  /** Writes a line of its own. */
  line(text: string): void {
    if (this.#quiet) return
    this.end()
    note(`${text}\n`, this.#stream)
  }

  /** Clears the line that is overwritten; the next update begins a new one. */
  end(): void {
    if (this.#open) note('\r\x1b[K', this.#stream)
    this.#open = false
    this.#nextShare = 0
  }
}
