import { Command } from 'commander'
import { Model } from '../model-node.js'
import { attempt } from './exit.js'
import { formatBytes, formatPairs } from './format.js'

const EXAMPLE = `
Example:
  halfstep inspect small.gguf`

export function inspectCommand(): Command {
  const command = new Command('inspect')
    .description('Shows what a model file contains.')
    .argument('<model>', 'GGUF or halfstep file, or Hugging Face folder.')
  command.option('--json', 'Prints the result as one line of JSON.').addHelpText('after', EXAMPLE)
  return command.action((path: string, options: { json?: boolean }) =>
    attempt(async (signal) => {
      const model = await Model.load(path, { signal })
      const found = model.inspect()
      if (options.json) {
        console.log(JSON.stringify(found))
        return
      }
      const tokenizer = found.tokenizer ?? 'no tokenizer'
      const rows: [string, string][] = [
        ['name', found.name],
        ['parameters', found.parameters.toLocaleString('en')],
        ['file', formatBytes(found.fileBytes)],
        ['bits per weight', `${found.bitsPerWeight.toFixed(3)} in the whole file`],
        ['target', found.target ?? 'none (full precision)'],
        [
          'vocabulary',
          `${found.vocabSize} (${tokenizer}${found.hasChatTemplate ? ', chat template' : ''})`,
        ],
        ['hidden, intermediate size', `${found.hiddenSize}, ${found.intermediateSize}`],
        ['layers', String(found.layers)],
        ['heads', `${found.heads} of ${found.headDim}, ${found.kvHeads} for keys and values`],
        ['positions', String(found.maxPositions)],
        ['head', found.tiedHead ? 'tied to the embedding' : 'its own'],
        ...Object.entries(found.tensorTypes).map(([type, count]): [string, string] => [
          `${type} tensors`,
          String(count),
        ]),
        ...Object.entries(found.provenance),
      ]
      // A whole recipe is longer than a line and is cut: --json prints all of it.
      console.log(formatPairs(rows, process.stdout.columns ?? 80).join('\n'))
    }, options),
  )
}
