import { Command } from 'commander'
import { attempt } from './exit.js'
import { formatNumber, formatPerplexity, formatTable, wrapped } from './format.js'
import { loadModel } from './load.js'
import { addOptions, EVALUATE_OPTIONS, given } from './options.js'
import { Progress } from './progress.js'

const EXAMPLE = `
Example:
  halfstep eval small.gguf --data text.txt --against original.gguf --json`

export function evalCommand(): Command {
  const command = new Command('eval').description(
    [
      'Measures the perplexity of a model on a text; with --against also the KL divergence from',
      'another model and the top-1 agreement with it.',
    ].join(' '),
  )
  command.argument('<model>', 'GGUF or halfstep file, or Hugging Face folder.')
  addOptions(command, EVALUATE_OPTIONS, { needed: 'data' })
  command
    .option(
      '--against <model>',
      'Model to compare with, usually the full-precision one. Default: none.',
    )
    .option('--json', 'Prints the result as one line of JSON.')
    .addHelpText('after', EXAMPLE)
  return command.action((path: string, options: { against?: string; json?: boolean }) =>
    attempt(async (signal) => {
      const model = await loadModel(path, signal)
      const against =
        options.against === undefined ? undefined : await loadModel(options.against, signal)
      const progress = new Progress(options.json === true)
      const started = performance.now()
      const onProgress = (done: number, total: number) => {
        const left =
          done > 0 ? ((performance.now() - started) / 1000) * (total / done - 1) : undefined
        progress.update('eval', done, total, left, `${done} of ${total} tokens`)
      }
      const record = await model
        .evaluate(given(command, EVALUATE_OPTIONS), { against, onProgress, signal })
        .finally(() => progress.end())
      if (options.json) {
        console.log(JSON.stringify(record))
        return
      }
      for (const note of record.reading?.notes ?? []) console.log(note)
      for (const warning of record.reading?.warnings ?? [])
        console.error(wrapped(`warning: ${warning}`).join('\n'))
      const rows = [
        ['perplexity', formatPerplexity(record.perplexity, 4)],
        ['mean negative log-likelihood', formatNumber(record.meanNll, 5)],
        ['predictions', String(record.predictions)],
        ['KL, nats', formatNumber(record.kl, 5)],
        [
          'top-1 agreement, %',
          formatNumber(record.top1Agreement === null ? null : record.top1Agreement * 100, 2),
        ],
        ['tokens/s', formatNumber(record.tokensPerSecond, 1)],
      ]
      console.log(formatTable(rows).join('\n'))
    }, options),
  )
}
