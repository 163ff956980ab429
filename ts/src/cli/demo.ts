import { Command } from 'commander'
import { type DemoRow, runDemo } from '../demo.js'
import { attempt } from './exit.js'
import { formatNumber, formatSeconds, formatTable } from './format.js'
import { printingIsCourtesy } from './output.js'
import { Progress } from './progress.js'

const EXAMPLE = `
Example:
  halfstep demo`

export function demoCommand(): Command {
  const command = new Command('demo').description(
    'Quantizes a small model trained on Shakespeare in several ways and shows the quality of each.',
  )
  command
    .option('--folder <folder>', 'Folder to write the files to.', 'halfstep-demo')
    .option('--json', 'Prints the result as one line of JSON.')
    .addHelpText('after', EXAMPLE)
  return command.action((options: { folder: string; json?: boolean }) =>
    attempt(async (signal) => {
      printingIsCourtesy()
      const progress = new Progress(options.json === true)
      const result = await runDemo({
        folder: options.folder,
        signal,
        onStep: (name, step) =>
          progress.update(
            name,
            step.step,
            step.steps,
            step.etaSeconds,
            `loss ${step.loss.toFixed(4)}`,
          ),
        onRow: (row) =>
          progress.line(`${row.name}: perplexity ${formatNumber(row.evaluation.perplexity, 2)}`),
      })
      progress.end()
      if (options.json) {
        console.log(JSON.stringify(result))
        return
      }
      console.log(demoTable(result.rows).join('\n'))
      for (const note of result.rows[0]?.evaluation.reading?.notes ?? []) console.log(note)
      console.log(
        [
          `\n${result.file} was written, read again and found equal to the model in memory.`,
          `It continues ${JSON.stringify(result.prompt)}:\n`,
        ].join(' '),
      )
      console.log(`${result.prompt}${result.text}\n\ndone in ${formatSeconds(result.seconds)}`)
    }, options),
  )
}

/** The rows as lines of at most 80 columns. */
export function demoTable(rows: readonly DemoRow[]): string[] {
  const header = ['', 'bytes', 'bits/weight', 'perplexity', 'KL', 'top-1 %']
  const cells = rows.map(({ name, bytes, bitsPerWeight, evaluation }) => [
    name,
    String(bytes),
    formatNumber(bitsPerWeight, 2),
    formatNumber(evaluation.perplexity, 2),
    formatNumber(evaluation.kl, 4),
    formatNumber(evaluation.top1Agreement === null ? null : evaluation.top1Agreement * 100, 1),
  ])
  return formatTable([header, ...cells])
}
