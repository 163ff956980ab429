import { existsSync } from 'node:fs'
import { readdir, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { exactly } from '../arguments.js'
import type { EvaluationRecord, Event, Report, SaveReport } from '../generated/types.js'
import type { Model } from '../model.js'
import { quantize } from '../quantize.js'
import { reportPaths, writeReport } from '../report/files.js'
import { attempt } from './exit.js'
import { calibrationOf } from './experts.js'
import {
  formatBytes,
  formatNumber,
  formatPairs,
  formatPerplexity,
  formatSeconds,
  formatTable,
} from './format.js'
import { loadModel } from './load.js'
import { printingIsCourtesy } from './output.js'
import { Progress } from './progress.js'
import {
  addRecipeFlags,
  defaultRunFolder,
  mustBeNew,
  mustBeWritable,
  recipeOf,
  runOf,
} from './recipe-flags.js'

const EXAMPLE = `
Examples:
  halfstep quantize big.gguf --target gguf:q4_0 --data corpus.txt -o small.gguf
  halfstep quantize big.gguf --recipe rtn --target gguf:q8_0 -o small.gguf
  halfstep quantize big.gguf --recipe apiq --data corpus.txt -o tiny.safetensors
  halfstep quantize big.gguf --recipe llm-qat -o own.safetensors
  halfstep quantize big.gguf --recipe mine.json --data corpus.txt -o mine.gguf

Ctrl-C saves the state into the run folder; the same command with --resume
continues.`

/** What a report has measured, in the order to read it. */
const SUBJECTS = ['fp', 'rtn', 'result']

interface Options {
  output: string
  overwrite?: boolean
  report?: string
  json?: boolean
}

export function quantizeCommand(): Command {
  const command = new Command('quantize').description(
    'Quantizes a model and, if the recipe trains, trains it on exactly the grid of the result.',
  )
  command
    .argument('<model>', 'GGUF file or Hugging Face folder.')
    .requiredOption('-o, --output <file>', 'File to write the result to.')
  command.option(
    '--report <page>',
    'Writes a report of the run as an .html page, and its data as .json next to it.',
  )
  command.option('--json', 'Prints the events as JSON lines and the result in the last line.')
  addRecipeFlags(command)
  command.addHelpText('after', EXAMPLE)
  return command.action((path: string, options: Options) =>
    attempt(
      async (signal) => {
        printingIsCourtesy()
        await mustBeWritable(options)
        await mustBeNew(options)
        const model = await loadModel(path, signal)
        const record = options.report !== undefined
        const settings = { ...runOf(command), record }
        const run = quantize(model, await recipeOf(command), { ...settings, signal })
        const progress = new Progress(options.json === true)
        try {
          for await (const event of run) {
            if (options.json) console.log(JSON.stringify(event))
            else show(event, progress)
          }
        } finally {
          progress.end()
        }
        const { model: small, report } = await run.result
        // The file is read again when it is written: without this three models would be in memory.
        model.dispose()
        const file = await saved(small, options.output, settings.runFolder)
        if (options.report !== undefined) await writeReport(options.report, report, file)
        await discardState(defaultRunFolder(options.output))
        if (options.json) console.log(JSON.stringify({ kind: 'result', report, file }, exactly))
        else console.log(summary(report, file, options.report).join('\n'))
      },
      { json: options.json, resume: resumeCommand() },
    ),
  )
}

/** Saves the result; where that fails, says on stderr where the training is kept. */
async function saved(small: Model, output: string, runFolder?: string): Promise<SaveReport> {
  try {
    return await small.save(output)
  } catch (error) {
    if (runFolder !== undefined && existsSync(runFolder))
      console.error(
        `the training is kept in ${runFolder}; to write the file only: ${resumeCommand()}` +
          ` (elsewhere: another --output and --run-folder ${runFolder})`,
      )
    throw error
  }
}

/**
 * Removes what only an unfinished run needs: states of the trainer, and the folder if nothing else
 * is in it. Finished layers and generated texts stay for runs that share them.
 */
async function discardState(folder: string): Promise<void> {
  const isState = (name: string) => /^(step-\d+|LATEST|run\.lock)$/.test(name)
  const names = await readdir(folder).catch(() => [] as string[])
  const inside = names.filter((name) => /^stage-\d+$/.test(name)).map((name) => join(folder, name))
  // It is no failure of the run: what is left can be deleted by hand.
  for (const stage of inside) await discardState(stage)
  for (const name of names.filter(isState))
    await rm(join(folder, name), { recursive: true, force: true }).catch(() => {})
  await rmdir(folder).catch(() => {})
}

function show(event: Event, progress: Progress): void {
  if (event.kind === 'step') {
    const detail = `loss ${event.loss.toFixed(4)} ${event.tokensPerSecond.toFixed(0)} tokens/s`
    progress.update('train', event.step, event.steps, event.etaSeconds, detail)
  } else if (event.kind === 'generate') {
    const { tokens, total, tokensPerSecond } = event
    progress.update(
      'generate',
      tokens,
      total,
      (total - tokens) / tokensPerSecond,
      `${tokensPerSecond.toFixed(0)} tokens/s`,
    )
  } else {
    progress.line(eventLine(event))
  }
}

function eventLine(event: Exclude<Event, { kind: 'step' | 'generate' }>): string {
  switch (event.kind) {
    case 'phase':
      return event.detail ? `${event.name}: ${event.detail}` : event.name
    case 'eval':
      return evaluationLine(event.subject, event.evaluation)
    case 'block':
      return `layer ${event.block + 1} of ${event.blocks}: error ${event.loss.toPrecision(4)}`
    case 'checkpoint':
      return `checkpoint ${event.path}`
    case 'warning':
      return `warning: ${event.message}`
  }
}

function evaluationLine(subject: string, { perplexity, kl }: EvaluationRecord): string {
  return `${subject}: perplexity ${formatPerplexity(perplexity)}, KL ${formatNumber(kl, 4)}`
}

function summary(report: Report, file: SaveReport, page?: string): string[] {
  const pairs: [string, string][] = [
    ['file', `${file.path}, ${formatBytes(file.bytes)}`],
    ['recipe', `${report.recipe} for ${report.target}`],
    ['bits per weight', `${report.bitsPerWeight.toFixed(3)} in the linears of the layers`],
    [
      'parity',
      file.parity
        ? 'the file, read again, equals the model in memory'
        : 'not checked: not a quantized file',
    ],
    ['time', formatSeconds(report.seconds)],
  ]
  const speed = report.tokensPerSecond > 0 ? `, ${report.tokensPerSecond.toFixed(1)} tokens/s` : ''
  if (report.steps > 0)
    pairs.push(['training', `${report.steps} steps, ${report.tokens} tokens${speed}`])
  const experts = calibrationOf(report.experts)
  if (experts !== null) pairs.push(['experts', experts])
  if (report.memoryBytes > 0) pairs.push(['peak memory', formatBytes(report.memoryBytes)])
  if (report.clientFlags.length > 0) pairs.push(['run it with', report.clientFlags.join(' ')])
  if (page !== undefined) pairs.push(['report', page], ['report data', reportPaths(page).data])
  // Only the default folder: one that the user chose may hold more.
  const runFolder = defaultRunFolder(file.path)
  if (existsSync(runFolder)) pairs.push(['run folder', `${runFolder}, which can be deleted`])
  const lines = formatPairs(pairs)
  const evaluations = SUBJECTS.flatMap((name) =>
    report.evaluations[name] ? [evaluationRow(name, report.evaluations[name])] : [],
  )
  if (evaluations.length === 0) return lines
  const notes = Object.values(report.evaluations).find(({ reading }) => reading)?.reading?.notes
  const rows = formatTable([['', 'perplexity', 'KL', 'top-1 %'], ...evaluations])
  return [...lines, '', ...rows, ...(notes ?? [])]
}

function evaluationRow(name: string, record: EvaluationRecord): string[] {
  const top1 = record.top1Agreement === null ? null : record.top1Agreement * 100
  return [
    name,
    formatPerplexity(record.perplexity),
    formatNumber(record.kl, 4),
    formatNumber(top1, 2),
  ]
}

/** The command that was typed with --resume added, through npx if it was run so. */
function resumeCommand(): string {
  const words = process.argv.slice(2).filter((word) => word !== '--resume')
  const quoted = words.map((word) =>
    /^[\w./:=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`,
  )
  const name = process.env.npm_command === 'exec' ? 'npx halfstep' : 'halfstep'
  return [name, ...quoted, '--resume'].join(' ')
}
