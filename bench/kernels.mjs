// The kernel benches: the program halfstep-bench, its rows as objects.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { root } from '../scripts/shell.mjs'

const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target')

/** Rows of a program that writes JSON lines; what it says besides is shown. */
export function jsonRows(program, args, options = {}) {
  return new Promise((done, fail) => {
    const child = spawn(program, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'inherit'],
      ...options,
    })
    let output = ''
    child.stdout.on('data', (piece) => (output += piece))
    child.on('error', fail)
    child.on('close', (code) => {
      if (code !== 0) return fail(new Error(`${program} ${args.join(' ')} ended with ${code}`))
      done(
        output
          .split('\n')
          .filter((line) => line.startsWith('{'))
          .map((line) => JSON.parse(line)),
      )
    })
  })
}

/** The path of a program that cargo built. */
export const built = (...names) => join(target, 'release', ...names)

export function kernelRows({ full, only, threads, commit, model }) {
  const file = model.endsWith('.gguf') ? ['--load', model] : []
  return jsonRows(built('halfstep-bench'), [
    '--threads',
    String(threads),
    '--commit',
    commit,
    '--only',
    only,
    ...(full ? ['--full'] : []),
    ...file,
  ])
}
