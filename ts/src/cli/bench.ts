import { Command, Option } from 'commander'
import { type BenchOptions, type BenchResult, runBench, type SpeedRow } from '../bench.js'
import type { BenchRow } from '../native.js'
import { attempt } from './exit.js'
import { formatNumber, formatPairs, formatSeconds, formatTable } from './format.js'
import { parseNumber } from './options.js'
import { Progress } from './progress.js'

const EXAMPLE = `
Examples:
  halfstep bench
  halfstep bench --model small.gguf --json`

type BenchFlags = Pick<BenchOptions, 'model' | 'only' | 'answers' | 'threads'>

export function benchCommand(): Command {
  const command = new Command('bench').description(
    [
      'Measures the speed of this machine and of the kernels on it: memory bandwidth, peak rates,',
      'matrix products, reading a prompt and generating tokens.',
      'It takes two minutes and 2 GB of memory.',
    ].join(' '),
  )
  command
    .option('--model <path>', 'Model to run. Default: the demo model, rounded for gguf:q4_0.')
    .option('--only <part>', 'Runs only the cases whose name contains this text, such as c.gemv.')
    .option('--answers', 'Checks the result of every case and measures no times.')
    .addOption(
      new Option('--threads <n>', 'Number of threads; 0 uses one per core. Default 0.').argParser(
        parseNumber,
      ),
    )
    .option('--json', 'Prints the result as one line of JSON.')
    .addHelpText('after', EXAMPLE)
  return command.action((options: BenchFlags & { json?: boolean }) =>
    attempt(async (signal) => {
      const { json, ...flags } = options
      const progress = new Progress(json === true)
      const onRow = (row: BenchRow) => progress.line(`${row.bench} ${row.case}: ${speed(row)}`)
      const onSpeed = (row: SpeedRow) =>
        progress.line(`${row.bench} ${row.model}: ${formatNumber(row.tokensPerSecond, 0)} tokens/s`)
      const result = await runBench({ ...flags, signal, onRow, onSpeed }).finally(() =>
        progress.end(),
      )
      console.log(json ? JSON.stringify(result) : benchReport(result).join('\n'))
    }, options),
  )
}

/** The speed of a case in GB/s, or in operations if bytes do not limit it. */
function speed(row: BenchRow): string {
  if (row.gigabytesPerSecond !== undefined) return `${formatNumber(row.gigabytesPerSecond, 1)} GB/s`
  return `${formatNumber(row.gigaoperationsPerSecond, 0)} GOP/s`
}

/** The result as lines of at most 80 columns. */
export function benchReport({
  machine,
  threads,
  checked,
  probe,
  rows,
  speeds,
  seconds,
}: BenchResult): string[] {
  const about = formatPairs(
    [
      ['CPU', machine.cpu || machine.os],
      ['kernels', machine.level],
      ['threads', String(threads)],
    ],
    80,
  )
  const sections = [about]
  const figures = probe.map(({ name, first, last, drifted }) => [
    name,
    formatNumber(first, 1),
    formatNumber(last, 1),
    drifted ? 'drifted' : '',
  ])
  if (figures.length > 0)
    sections.push(formatTable([['machine, GB/s or GOP/s', 'first', 'last', ''], ...figures]))
  const percent = (share: number | undefined) =>
    formatNumber(share === undefined ? null : share * 100, 0)
  const cases = rows.map((row) => [
    `${row.bench} ${row.case}`,
    microseconds(row.medianSeconds),
    speed(row),
    percent(row.ofBound),
  ])
  if (cases.length > 0)
    sections.push(formatTable([['kernel', 'us', 'speed', '% of bound'], ...cases]))
  const runs = speeds.map(({ bench, promptTokens, tokensPerSecond, gigabytesPerSecond }) => [
    bench === 'e.prefill' ? `read ${promptTokens} tokens` : `generate after ${promptTokens} tokens`,
    formatNumber(tokensPerSecond, 0),
    formatNumber(gigabytesPerSecond, 2),
  ])
  if (runs.length > 0)
    sections.push(formatTable([[speeds[0]?.model.slice(-40) ?? '', 'tokens/s', 'GB/s'], ...runs]))
  if (probe.some((figure) => figure.drifted))
    sections.push([
      "The machine's speed changed during the run: close other programs and run it again.",
    ])
  sections.push([`${checked} results checked, all correct; ${formatSeconds(seconds)}`])
  return sections.flatMap((lines, i) => (i === 0 ? lines : ['', ...lines]))
}

function microseconds(seconds: number): string {
  return (seconds * 1e6).toFixed(seconds < 1e-3 ? 1 : 0)
}
