// npm run test:golden: every test against reference numbers (folder: HALFSTEP_GOLDEN, default
// test/golden; tiny models of every family: HALFSTEP_GOLDEN_ARCH, default test/golden/arch).
import { buildTests, runTests, totals } from './cargo-test.mjs'

const { code, results, skips } = await runTests(await buildTests(['--test', 'golden_*']))
console.log('\n-- golden --')
for (const line of skips) console.log(line)
console.log(`cargo: ${totals(results)}`)
console.log(`skipped topics: ${skips.length}`)
process.exitCode = code
