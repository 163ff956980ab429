// Runs of the command line whose loss trace is kept and compared.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { root } from './shell.mjs'

/**
 * Runs `halfstep <args> --json` of a build. With `kill` the process is ended by SIGKILL at the
 * first step after a checkpoint, so that there is something to go on from and something to lose.
 * @returns {Promise<{ error?: string, trace: Entry[], killed: boolean }>} an entry is
 * { of, numbers }
 */
export function tracedRun(cli, args, { kill = false } = {}) {
  return new Promise((done, refuse) => {
    const child = spawn(process.execPath, [cli, ...args, '--json'], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [stderr, saved] = ['', false]
    const trace = []
    createInterface({ input: child.stdout }).on('line', (line) => {
      const event = JSON.parse(line)
      if (kill && saved && event.kind === 'step') child.kill('SIGKILL')
      saved ||= event.kind === 'checkpoint'
      const entry = traced(event)
      if (entry) trace.push(entry)
    })
    child.stderr.on('data', (piece) => (stderr += piece))
    child.on('error', refuse)
    child.on('close', (code, signal) => {
      const killed = signal === 'SIGKILL'
      const said = stderr.trim().split('\n').at(-1) || `ended with ${signal ?? code}`
      done({ trace, killed, error: code === 0 || killed ? undefined : said })
    })
  })
}

/** What of an event depends on arithmetic alone: no time, speed or memory. */
function traced({ kind, step, loss, learningRate, gradientNorm, block }) {
  if (kind === 'step') return { of: `step ${step}`, numbers: { loss, learningRate, gradientNorm } }
  if (kind === 'block') return { of: `block ${block}`, numbers: { loss } }
  return undefined
}

/** The first difference of two traces, numbers exactly as they were printed; undefined if none. */
export function compareTraces(before, after) {
  for (const [i, entry] of before.entries()) {
    const other = after[i]
    if (other?.of !== entry.of) return `${entry.of} is ${other ? `${other.of} instead` : 'missing'}`
    for (const [name, number] of Object.entries(entry.numbers))
      if (!Object.is(number, other.numbers[name]))
        return `${name} of ${entry.of}: ${number} became ${other.numbers[name]}`
  }
  return after.length > before.length ? `${after[before.length].of} is new` : undefined
}
