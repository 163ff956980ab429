import { readdir, statfs } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import type { Plan, PlanStage } from '../generated/types.js'
import { plan } from '../plan.js'
import { attempt } from './exit.js'
import { expertPairs } from './experts.js'
import { formatBytes, formatPairs, formatSeconds, formatTable, wrapped } from './format.js'
import { loadModel } from './load.js'
import { Progress } from './progress.js'
import { addRecipeFlags, mustBeWritable, recipeOf, runOf } from './recipe-flags.js'

const EXAMPLE = `
Examples:
  halfstep plan big.gguf --target gguf:q4_0 --data corpus.txt -o small.gguf
  halfstep plan big.gguf --recipe apiq --data corpus.txt -o tiny.safetensors
  halfstep plan config.json --recipe gptq --free-memory 12

The flags are those of quantize; nothing is written. With a config.json alone,
small models of the same widths are tried on random numbers; no text is read.`

export function planCommand(): Command {
  const command = new Command('plan').description(
    [
      'Estimates what quantize will need (time, memory, disk) from a few real training steps, and',
      'whether this machine has it.',
    ].join(' '),
  )
  command
    .argument(
      '<model>',
      'GGUF file, Hugging Face folder, or a config.json before there are weights.',
    )
    .option('-o, --output <file>', 'File that quantize will write the result to.')
  command
    .option(
      '--free-memory <GB>',
      'Free memory of the machine that the run is for. Default: that of this one.',
      gigabytes,
    )
    .option('--report <page>', 'Includes what quantize --report needs.')
    .option('--json', 'Prints the result as one line of JSON.')
  addRecipeFlags(command)
  command.addHelpText('after', EXAMPLE)
  return command.action((path: string, options: PlanFlags) =>
    attempt(async (signal) => {
      await mustBeWritable(options)
      const config = await configOf(path)
      const model = config ?? (await loadModel(path, signal))
      const progress = new Progress(options.json === true)
      const onEvent = (event: { kind: string; detail?: string }) =>
        event.kind === 'phase' && progress.line(`plan: ${event.detail}`)
      const run = { ...runOf(command), record: options.report !== undefined }
      const freeMemoryBytes = options.freeMemory
      const recipe = await recipeOf(command)
      const made = await plan(model, recipe, {
        ...run,
        ...(freeMemoryBytes === undefined ? {} : { freeMemoryBytes }),
        signal,
        onEvent,
      }).finally(() => progress.end())
      const freeDiskBytes = await freeDisk(run.runFolder ?? run.output ?? '.')
      if (options.json) console.log(JSON.stringify({ ...made, freeDiskBytes }))
      else console.log(planLines(made, freeDiskBytes, config).join('\n'))
    }, options),
  )
}

interface PlanFlags {
  output?: string
  report?: string
  json?: boolean
  /** In bytes. */
  freeMemory?: number
}

function gigabytes(text: string): number {
  const bytes = Number(text) * 1e9
  if (!(bytes >= 1 && Number.isFinite(bytes)))
    throw new InvalidArgumentError('it must be a number of gigabytes above 0.')
  return bytes
}

const WEIGHTS = /\.(safetensors|gguf|bin|pt|pth)$|\.index\.json$/

/** The config.json that `path` is, or that a folder has without any weights; else undefined. */
async function configOf(path: string): Promise<string | undefined> {
  if (path.endsWith('.json')) return path
  const names: string[] = await readdir(path).catch(() => [])
  const isConfigAlone = names.includes('config.json') && !names.some((name) => WEIGHTS.test(name))
  return isConfigAlone ? join(path, 'config.json') : undefined
}

/** Free bytes where `path` is or will be; null if the system does not report them. */
async function freeDisk(path: string): Promise<number | null> {
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    try {
      const { bavail, bsize } = await statfs(folder)
      return bavail * bsize
    } catch {
      if (folder === dirname(folder)) return null
    }
  }
}

/** The plan as lines of at most 80 columns; `config`: the file that all of it comes from. */
export function planLines(made: Plan, freeDiskBytes: number | null, config?: string): string[] {
  const header = ['', 'steps', 's/step', 'time', 'memory', 'disk']
  const row = (
    name: string,
    steps: number,
    perStep: number | null,
    seconds: number,
    memory: number,
    disk: number,
  ) => {
    const [count, each] = [
      steps > 0 ? String(steps) : '-',
      steps > 0 && perStep !== null ? perStep.toPrecision(3) : '-',
    ]
    return [
      name,
      count,
      each,
      formatSeconds(seconds),
      formatBytes(memory),
      disk > 0 ? formatBytes(disk) : '-',
    ]
  }
  const stages = made.stages.map((s: PlanStage) =>
    row(s.name, s.steps, s.secondsPerStep, s.seconds, s.peakMemoryBytes, s.diskBytes),
  )
  const all = row('total', made.steps, null, made.seconds, made.peakMemoryBytes, made.diskBytes)
  const bits = made.bitsPerWeight.toFixed(3)
  const pairs = formatPairs([
    ['recipe', `${made.recipe} for ${made.target}`],
    [
      'result',
      `${formatBytes(made.outputBytes)}, ${bits} bits per weight in the linears of the layers`,
    ],
    ...expertPairs(made.experts),
  ])
  const about = `From ${config} alone: weights as its dtype says, times of this machine.`
  return [
    ...pairs,
    '',
    ...formatTable([header, ...stages, all]),
    '',
    ...wrapped(verdict(made, freeDiskBytes)),
    ...(config === undefined ? [] : wrapped(about)),
  ]
}

function verdict(made: Plan, freeDiskBytes: number | null): string {
  const about = made.memoryMeasured ? '' : ' (estimated: this system does not report the peak)'
  const needed = `${formatBytes(made.peakMemoryBytes)} of memory${about}`
  const disk = made.diskBytes + made.outputBytes
  const isDiskShort = freeDiskBytes !== null && disk > freeDiskBytes
  const shortDisk = isDiskShort
    ? ` It needs ${formatBytes(disk)} on disk, and ${formatBytes(freeDiskBytes)} are free: ` +
      'use another folder.'
    : ''
  if (made.fits === null)
    return `It needs ${needed}; this system does not report how much is free.${shortDisk}`
  const free = formatBytes(made.freeMemoryBytes)
  if (made.fits) {
    const verdict = isDiskShort ? 'There is enough memory' : 'It fits'
    return `${verdict}: it needs ${needed}, and ${free} are free.${shortDisk}`
  }
  const short = `It does not fit: it needs ${needed}, and ${free} are free.`
  return `${short} To need less: ${made.advice}.${shortDisk}`
}
