// cargo test with its closing lines and its skips kept.
import { run } from './shell.mjs'

/**
 * Runs cargo test in release mode and shows the output.
 * @returns {Promise<{ code: number, results: string[], skips: string[], benches?: string }>}
 * `results`: cargo's closing lines of the test programs that held a test;
 * `skips`: the lines by which tests say that they had nothing to run on;
 * `benches`: the closing line of the benches, where their test ran.
 */
export async function cargoTest(args) {
  // --show-output: a test that passes by skipping says so on its captured output.
  const { code, output } = await run(
    'cargo',
    ['test', '--release', '--no-fail-fast', ...args, '--', '--show-output'],
    { keep: true },
  )
  const lines = output.split(/\r?\n/).map((line) => line.trim())
  const results = lines.filter(
    (line) => line.startsWith('test result:') && !/ 0 passed; 0 failed; 0 ignored/.test(line),
  )
  return {
    code,
    results,
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
