// npm run docs: the API documentation of the Rust crates (target/doc) and of the npm package
// (.cache/typedoc); warnings are errors, a public item without a comment among them.
import { packages, wasm } from './prepare.mjs'
import { bin, run } from './shell.mjs'

/** Runs a program; true when it found nothing. */
async function clean(program, args, options) {
  const { code } = await run(program, args, options)
  if (code !== 0)
    console.error(`docs: ${program.split('/').pop()} ${args.join(' ')} found something`)
  return code === 0
}

/** Documents the crates; true when there was no warning. Needs nothing that is built. */
export const docsRust = () =>
  // In the profile of everything else, so that no dependency is checked a second time.
  clean('cargo', ['doc', '--release', '--workspace', '--no-deps', '--quiet'], {
    env: { RUSTDOCFLAGS: '-D warnings' },
  })

/** Documents the package; true when there was no warning. Needs the WASM module's types. */
export const docsTypeScript = () => clean(bin('typedoc'), ['--logLevel', 'Warn'])

if (process.argv[1]?.endsWith('docs.mjs')) {
  await packages()
  const [rust] = await Promise.all([docsRust(), wasm()])
  const typeScript = await docsTypeScript()
  console.log(rust && typeScript ? 'docs: clean' : 'docs: not clean')
  process.exitCode = rust && typeScript ? 0 : 1
}
