// Runs other programs, and says plainly which one is missing. Only Node's own modules: this runs
// before node_modules exists.
import { spawn } from 'node:child_process'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')

const NEEDED = {
  cargo: 'stable Rust (rustup) is needed to build halfstep',
  npm: 'npm, which comes with Node.js, is needed',
}
const MINIMUM_NODE = 20

if (Number(process.versions.node.split('.')[0]) < MINIMUM_NODE) {
  fail(`Node.js ${MINIMUM_NODE} or newer is needed; this is ${process.version}`)
}

// Test data named by relative paths is meant from where the command was typed, while tests run in
// their crates.
for (const name of ['HALFSTEP_GOLDEN', 'HALFSTEP_GOLDEN_ARCH', 'HALFSTEP_SHARED']) {
  if (process.env[name])
    process.env[name] = resolve(process.env.INIT_CWD ?? process.cwd(), process.env[name])
}

/** Ends with one line on stderr. */
export function fail(message) {
  console.error(`\n${message}`)
  process.exit(1)
}

/**
 * Runs a program in the repository's root, or in `cwd`, with its output shown. Resolves to
 * { code, output }; `keep` also returns the output, `quiet` shows only the errors and returns the
 * rest, with `errors` nothing and returns all.
 * @param {string} program
 * @param {string[]} args
 * @param {{ keep?: boolean, quiet?: boolean, errors?: boolean, cwd?: string, env?: Record<string, string> }} options
 */
export function run(
  program,
  args,
  { keep = false, quiet = false, errors = false, cwd = root, env = {} } = {},
) {
  return new Promise((done) => {
    const windows = process.platform === 'win32'
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: quiet
        ? ['inherit', 'pipe', errors ? 'pipe' : 'inherit']
        : keep
          ? ['inherit', 'pipe', 'pipe']
          : 'inherit',
      shell: windows,
    })
    let output = ''
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      // A letter may be cut in two by the pieces.
      from?.setEncoding('utf8')
      from?.on('data', (piece) => {
        output += piece
        if (!quiet) to.write(piece)
      })
    }
    child.on('error', (error) => fail(NEEDED[program] ?? `${program}: ${error.message}`))
    child.on('close', (code, signal) => done({ code: signal ? 1 : (code ?? 1), output }))
  })
}

/** The same, and the end of everything if it fails. */
export async function must(program, args, options) {
  const { code, output } = await run(program, args, options)
  if (code !== 0) fail(`${[program, ...args].join(' ')} failed`)
  return output
}

/** A program of node_modules/.bin, run by this Node. */
export function bin(name) {
  return resolve(root, 'node_modules', '.bin', process.platform === 'win32' ? `${name}.cmd` : name)
}
