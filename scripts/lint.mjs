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

/** Checks the Rust sources; true when they are clean. Needs nothing that is built. */
export const lintRust = () => all(RUST)

/** Checks the TypeScript sources against the types of the built package; true when clean. */
export const lintTypeScript = () => all(TYPESCRIPT)

if (process.argv[1]?.endsWith('lint.mjs')) {
  await packages()
  const clean = (await lintRust()) && (await lintTypeScript())
  console.log(clean ? 'lint: clean' : 'lint: not clean')
  process.exitCode = clean ? 0 : 1
}
