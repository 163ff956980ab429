// npm run lint: formatting and lints of Rust and TypeScript; warnings are errors.
import { packages } from './prepare.mjs'
import { bin, run } from './shell.mjs'

const RUST = [
  ['cargo', ['fmt', '--all', '--check']],
  [
    'cargo',
    ['clippy', '--release', '--workspace', '--all-targets', '--quiet', '--', '-D', 'warnings'],
  ],
]
const TYPESCRIPT = [
  [bin('tsc'), ['-p', '.']],
  [bin('biome'), ['check', '--error-on-warnings']],
]

/** Runs every check; true when all are clean. */
async function all(checks) {
  let clean = true
  for (const [program, args] of checks) {
    const { code } = await run(program, args)
    if (code !== 0)
      console.error(`lint: ${program.split('/').pop()} ${args.join(' ')} found something`)
    clean &&= code === 0
  }
  return clean
}

/** Each package in a tree of dependencies once, with its features where `format` has them. */
async function packagesOf(format, ...args) {
  const tree = ['tree', '--prefix', 'none', '--no-dedupe', '--format', format, ...args]
  const { code, output } = await run('cargo', tree, { quiet: true })
  return code === 0 ? [...new Set(output.split('\n').filter(Boolean))] : []
}

/**
 * True when tests leave the packages of the addon the features that it has. A dependency of tests
 * alone that asks one of them for another feature makes cargo compile it, and all that depend on
 * it, a second time.
 */
async function compiledOnce() {
  const addon = await packagesOf('{p}', '--edges', 'normal', '--package', 'halfstep-node')
  const alone = await packagesOf('{p} {f}', '--edges', 'normal')
  const tests = await packagesOf('{p} {f}', '--workspace', '--exclude', 'halfstep-wasm')
  const twice = alone.filter(
    (line) => !tests.includes(line) && addon.some((name) => line.startsWith(`${name} `)),
  )
  for (const line of twice) console.error(`lint: tests do not compile with the features of ${line}`)
  return addon.length > 0 && twice.length === 0
}

/** Checks the Rust sources; true when they are clean. Needs nothing that is built. */
export const lintRust = async () => (await all(RUST)) && (await compiledOnce())

/** Checks the TypeScript sources against the types of the built package; true when clean. */
export const lintTypeScript = () => all(TYPESCRIPT)

if (process.argv[1]?.endsWith('lint.mjs')) {
  await packages()
  const clean = (await lintRust()) && (await lintTypeScript())
  console.log(clean ? 'lint: clean' : 'lint: not clean')
  process.exitCode = clean ? 0 : 1
}
