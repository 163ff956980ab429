// npm run test:golden: every test against reference numbers (folder: HALFSTEP_GOLDEN, default
// test/golden; tiny models of every family: HALFSTEP_GOLDEN_ARCH, default test/golden/arch).
import { buildTests, runTests, totals } from './cargo-test.mjs'

// Those that name the engine's generic types are modules of its program.
const programs = await buildTests(['--test', 'golden_*', '--test', 'engine'])
const { code, results, slowest, skips } = await runTests(programs, 'golden_')
console.log('\n-- golden --')
for (const line of skips) console.log(line)
console.log(`cargo: ${totals(results)}`)
console.log(`cargo: slowest: ${slowest}`)
console.log(`skipped topics: ${skips.length}`)
process.exitCode = code
