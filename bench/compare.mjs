// npm run bench:compare: an earlier revision and the working tree, measured in turns (A B, B A,
// A B, ...) by the programs of bench/run.mjs. Nothing else should run meanwhile.
//
//     npm run bench:compare -- [--against <git revision>] [--rounds <n>] [--only <regex>] [--full]
//         [--threads <n>] [--model <full-precision model>] [--text <file>]
//
// --only chooses among decode, prefill, step and gemv; --full takes every chosen GEMV, not only
// those of the quick subset. Ends with 1 when a row takes more than 3 % longer than before.
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { BASELINE, twoBuilds } from '../scripts/revision.mjs'
import { fail, root } from '../scripts/shell.mjs'
import { inputs } from './inputs.mjs'
import { jsonRows } from './kernels.mjs'
import { stepRow } from './train.mjs'

/** Share of the time before by which a row may be slower. */
const TOLERANCE = 0.03
const STEPS = 3
const NAME_WIDTH = 44

/** What is measured, by the names that --only matches: programs to build, rows of a build. */
const MEASUREMENTS = {
  'decode, prefill': { programs: [], rows: modelRows },
  step: {
    programs: [['--example', 'step_time']],
    rows: (build) =>
      ['gguf:q4_0', 'halfstep'].map((setting) =>
        stepRow(program(build, 'examples/step_time'), { ...settings, setting, steps: STEPS }),
      ),
  },
  gemv: {
    programs: [['--bin', 'halfstep-bench']],
    rows: (build) =>
      jsonRows(program(build, 'halfstep-bench'), [
        ...['--only', 'c.gemv', '--threads', String(settings.threads)],
        ...(values.full ? [] : ['--quick']),
      ]),
  },
}

const values = options()
const settings = { ...inputs(values), threads: Number(values.threads), full: false }
const chosen = Object.entries(MEASUREMENTS).filter(([name]) => values.only.test(name))
if (chosen.length === 0) fail(`--only: some of ${Object.keys(MEASUREMENTS).join(', ')}`)

const programs = chosen.flatMap(([, measurement]) => measurement.programs)
const { old, now } = await twoBuilds(values.against, programs)
/** Row -> milliseconds of each build, one of a round. */
const times = new Map()
for (let round = 0; round < values.rounds; round++) {
  const pair = round % 2 === 0 ? [old, now] : [now, old]
  for (const [name, measurement] of chosen) {
    for (const build of pair) {
      console.error(`round ${round + 1} of ${values.rounds}: ${name}, ${build.name}`)
      for (const row of await measurement.rows(build)) keep(row, build)
    }
  }
}
print()

function options() {
  try {
    const { values } = parseArgs({
      options: {
        against: { type: 'string', default: BASELINE },
        rounds: { type: 'string', default: '5' },
        only: { type: 'string', default: '' },
        full: { type: 'boolean', default: false },
        threads: { type: 'string', default: '2' },
        model: { type: 'string' },
        text: { type: 'string' },
      },
    })
    const rounds = Number(values.rounds)
    if (!(rounds >= 1)) fail('--rounds: a number from 1 on')
    return { ...values, rounds, only: new RegExp(values.only) }
  } catch (error) {
    return fail(error.message)
  }
}

function program(build, name) {
  return join(build.target, 'release', name)
}

function modelRows(build) {
  const told = JSON.stringify({ ...settings, benches: ['e.decode', 'e.prefill'] })
  return jsonRows(process.execPath, [join(root, 'bench/model-rows.mjs'), build.root, told])
}

function keep(row, build) {
  if (row.contender !== 'halfstep') return
  const milliseconds = 1000 * (row.tokensPerSecond ? 1 / row.tokensPerSecond : row.medianSeconds)
  const name = `${row.bench} ${row.case} ${row.state}`
  if (!times.has(name)) times.set(name, { old: [], now: [] })
  times.get(name)[build === old ? 'old' : 'now'].push(milliseconds)
}

function print() {
  const line = (name, ...cells) =>
    console.log(name.padEnd(NAME_WIDTH) + cells.map((cell) => cell.padStart(11)).join(''))
  console.log('\nMedians in milliseconds, of a token or of a product.\n')
  line('row', values.against, 'now', 'ratio')
  let slower = 0
  for (const [name, { old, now }] of times) {
    if (old.length !== now.length) fail(`${name} was measured in one of the builds alone`)
    const [before, after] = [median(old), median(now)]
    const isSlower = after > before * (1 + TOLERANCE)
    if (isSlower) slower++
    const mark = isSlower ? ' *' : ''
    line(name + mark, before.toFixed(4), after.toFixed(4), (after / before).toFixed(3))
  }
  const percent = `${100 * TOLERANCE} %`
  console.log(
    slower === 0
      ? `\n${times.size} rows, none more than ${percent} slower`
      : `\n${slower} of ${times.size} rows more than ${percent} slower (*)`,
  )
  process.exitCode = slower === 0 ? 0 : 1
}

/** The middle one, or the mean of the two in the middle. */
function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b)
  const half = sorted.length / 2
  return (sorted[Math.ceil(half) - 1] + sorted[Math.floor(half)]) / 2
}
