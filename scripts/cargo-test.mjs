// The Rust tests: built by cargo, their programs run two or more at a time. Cargo would run one
// after the other, and many of them end with one long test on one core.
import { statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, relative } from 'node:path'
import { root, run } from './shell.mjs'

/**
 * Builds the test programs that cargo's arguments `args` choose, in release mode.
 * @returns {Promise<{ name: string, program: string, folder: string }[] | undefined>} `program`:
 * the file to run; `folder`: that of its crate, where cargo runs it; undefined if they do not build
 */
export async function buildTests(args) {
  const { code, output } = await run(
    'cargo',
    [
      'test',
      '--release',
      '--no-run',
      '--quiet',
      '--message-format=json-render-diagnostics',
      ...args,
    ],
    { quiet: true },
  )
  if (code !== 0) return undefined
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .filter(({ executable, profile }) => executable && profile?.test)
    .map(({ executable, manifest_path, target }) => {
      const folder = dirname(manifest_path)
      const source = relative(root, target.src_path)
      return { name: source, program: executable, folder }
    })
}

/** So many programs are named that took the longest. */
const SLOWEST = 10

/** Runs one test program; its output comes as one piece. */
async function runTest({ name, program, folder }, only) {
  // --show-output: a test that passes by skipping says so on its captured output.
  const started = Date.now()
  const { code, output } = await run(program, ['--show-output', ...only], {
    quiet: true,
    cwd: folder,
    env: { CARGO_MANIFEST_DIR: folder },
  })
  const seconds = Math.round((Date.now() - started) / 1000)
  console.log(`\n     Running ${name} (${seconds} s)${output}`)
  if (code !== 0) console.log(`${name} ended with code ${code}`)
  return { name, good: code === 0, output, seconds }
}

/**
 * Runs what `buildTests` gave, of its tests those whose names hold one of `only`, and shows its
 * output.
 * @returns {Promise<{ code: number, results: string[], slowest: string, skips: string[], benches?: string }>}
 * `results`: the closing lines of the test programs that held a test;
 * `slowest`: names and seconds of those that took the longest;
 * `skips`: the lines by which tests say that they had nothing to run on;
 * `benches`: the closing line of the benches, where their test ran.
 */
export async function runTests(programs, ...only) {
  if (!programs) return { code: 1, results: [], slowest: 'none ran', skips: [] }
  const ended = []
  // The largest first, which tend to take long: a long one that began last would run alone.
  const size = ({ program }) => statSync(program).size
  const waiting = [...programs].sort((a, b) => size(b) - size(a))
  const one = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift())
      ended.push(await runTest(next, only))
  }
  await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, one))
  const slowest = ended.toSorted((a, b) => b.seconds - a.seconds).slice(0, SLOWEST)
  const lines = ended.flatMap(({ output }) => output.split(/\r?\n/).map((line) => line.trim()))
  return {
    code: ended.every(({ good }) => good) ? 0 : 1,
    results: lines.filter(
      (line) => line.startsWith('test result:') && !/ 0 passed; 0 failed; 0 ignored/.test(line),
    ),
    slowest: slowest.map(({ name, seconds }) => `${name} ${seconds} s`).join(', '),
    skips: lines.filter((line) => line.startsWith('skipped:')),
    benches: lines.find((line) => line.endsWith('every answer right')),
  }
}

/** Passed, failed and ignored over all test programs. */
export function totals(results) {
  const sum = (word) =>
    results.reduce(
      (total, line) => total + Number(line.match(new RegExp(`(\\d+) ${word}`))?.[1] ?? 0),
      0,
    )
  return `${results.length} test programs: ${sum('passed')} passed; ${sum('failed')} failed; ${sum('ignored')} ignored`
}
