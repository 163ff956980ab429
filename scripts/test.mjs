// npm test: lints, API documentation, Rust tests (the generated TypeScript types among them, and
// every bench once for its answer), TypeScript tests; then each runner's closing lines and the
// skips.
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { buildTests, runTests, totals } from './cargo-test.mjs'
import { chromium } from './chromium.mjs'
import { docsRust, docsTypeScript } from './docs.mjs'
import { lintRust, lintTypeScript } from './lint.mjs'
import { addon, dist, packages, panicAddon, wasm } from './prepare.mjs'
import { bin, root, run } from './shell.mjs'

/**
 * What holds tests. Without `--tests` cargo builds the examples too, which the lints have checked.
 * The crate of the WASM module is tested from JavaScript.
 */
const TESTS = ['--tests', '--workspace', '--exclude', 'halfstep-wasm']

const started = Date.now()
/** Seconds of each part, printed at the end. */
const seconds = {}
let partStarted = started
function ended(part) {
  seconds[part] = Math.round((Date.now() - partStarted) / 1000)
  partStarted = Date.now()
}

await packages()
chromium()
ended('packages')
// One after the other: both are target/release/libhalfstep_node for a moment.
await panicAddon()
await addon()
ended('addons')
// The WASM module has a target folder of its own. What makes it, and what is made of it, keeps one
// core busy for long; the other is left to the rest.
let programs
const rust = async () => {
  const checks = [await lintRust(), await docsRust()]
  programs = await buildTests(TESTS)
  return [...checks, programs !== undefined]
}
const typeScript = async () => {
  await wasm()
  await dist()
  return Promise.all([lintTypeScript(), docsTypeScript()])
}
const clean = (await Promise.all([rust(), typeScript()])).flat().every(Boolean)
ended('lint, documentation, WASM and building Rust tests')
const cargo = await runTests(programs)
ended('Rust tests')

const report = join(root, '.cache', 'vitest.json')
rmSync(report, { force: true })
const vitest = await run(
  bin('vitest'),
  ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
  { keep: true },
)
ended('vitest')
const tests = existsSync(report)
  ? JSON.parse(readFileSync(report, 'utf8'))
  : { numPendingTests: 0, numTodoTests: 0, testResults: [] }
const skippedTests = tests.testResults.flatMap((file) =>
  file.assertionResults.filter(
    ({ status }) => status === 'pending' || status === 'skipped' || status === 'todo',
  ),
)
const plain = stripVTControlCharacters(vitest.output).split('\n')
const closing = plain
  .filter((line) => /^\s*(Test Files|Tests)\s/.test(line))
  .map((line) => line.trim())

console.log('\n-- results --')
console.log(clean ? 'lint and documentation: clean' : 'lint, documentation or build: NOT CLEAN')
for (const line of cargo.results) console.log(`cargo: ${line}`)
console.log(`cargo: ${totals(cargo.results)}`)
console.log(`cargo: slowest: ${cargo.slowest}`)
console.log(`benches: ${cargo.benches ?? 'not all answers right'}`)
for (const line of closing.length > 0
  ? closing
  : [`ended without a summary, exit code ${vitest.code}`])
  console.log(`vitest: ${line}`)
// A property test says the same of each of its cases.
const skips = [...new Set(cargo.skips)]
for (const line of skips) console.log(line)
for (const { fullName } of skippedTests) console.log(`skipped: ${fullName}`)
console.log(`skipped tests: ${skips.length + skippedTests.length}`)
const parts = Object.entries(seconds).map(([part, time]) => `${part} ${time} s`)
console.log(`time: ${parts.join(', ')}`)
const good = clean && cargo.code === 0 && vitest.code === 0
console.log(`${good ? 'all passed' : 'FAILED'} in ${Math.round((Date.now() - started) / 1000)} s`)
process.exitCode = good ? 0 : 1
