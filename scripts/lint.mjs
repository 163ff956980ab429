// npm run lint: formatting and lints of Rust and TypeScript; warnings are errors.
import { packages } from './prepare.mjs'
import { bin, run } from './shell.mjs'

const CHECKS = [
  ['cargo', ['fmt', '--all', '--check']],
  [
    'cargo',
    ['clippy', '--release', '--workspace', '--all-targets', '--quiet', '--', '-D', 'warnings'],
  ],
  [bin('tsc'), ['-p', '.']],
  [bin('biome'), ['check', '--error-on-warnings']],
]

/** Runs every check; true when all are clean. */
export async function lint() {
  let clean = true
  for (const [program, args] of CHECKS) {
    const { code } = await run(program, args)
    if (code !== 0)
      console.error(`lint: ${program.split('/').pop()} ${args.join(' ')} found something`)
    clean &&= code === 0
  }
  console.log(clean ? 'lint: clean' : 'lint: not clean')
  return clean
}

if (process.argv[1]?.endsWith('lint.mjs')) {
  await packages()
  process.exitCode = (await lint()) ? 0 : 1
}
