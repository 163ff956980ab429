import { Command } from 'commander'
import type { FileInspection } from '../generated/types.js'
import { inspect } from '../inspect-node.js'
import { attempt } from './exit.js'
import { expertPairs } from './experts.js'
import { cut, formatBytes, formatPairs } from './format.js'

const EXAMPLE = `
Example:
  halfstep inspect small.gguf`

export function inspectCommand(): Command {
  const command = new Command('inspect')
    .description('Shows what a model file contains, and whether its model can be run.')
    .argument('<model>', 'GGUF or safetensors file, config.json or Hugging Face folder.')
  command.option('--json', 'Prints the result as one line of JSON.').addHelpText('after', EXAMPLE)
  return command.action((path: string, options: { json?: boolean }) =>
    attempt(async (signal) => {
      const found = await inspect(path, { signal })
      if (options.json) {
        console.log(JSON.stringify(found))
        return
      }
      for (const warning of found.warnings) console.error(`warning: ${warning}`)
      console.log(lines(found, process.stdout.columns ?? 80).join('\n'))
    }, options),
  )
}

const RUNS = 'can be run'

function lines(found: FileInspection, columns: number): string[] {
  const known = (value: number | null) => (value === null ? 'unknown' : String(value))
  const { heads, kvHeads, headDim, refusal, tensorBytes } = found
  const rows: [string, string][] = [
    ['name', found.name],
    ['architecture', found.architecture ?? 'unknown'],
    [RUNS, refusal === null ? 'yes' : `no: ${refusal.message}`],
    ['parameters', found.parameters.toLocaleString('en')],
    ...expertPairs(found.experts),
    ['file', formatBytes(found.fileBytes)],
    ['bits per weight', `${found.bitsPerWeight.toFixed(3)} in the whole file`],
    ['target', found.target ?? 'none'],
    ['vocabulary', vocabulary(found)],
    ['hidden, intermediate size', `${known(found.hiddenSize)}, ${known(found.intermediateSize)}`],
    ['layers', known(found.layers)],
    ['heads', `${known(heads)} of ${known(headDim)}, ${known(kvHeads)} for keys and values`],
    ['positions', known(found.maxPositions)],
    ['head', found.tiedHead === null ? 'unknown' : headOf(found.tiedHead)],
    ...Object.entries(found.tensorTypes).map(([type, count]): [string, string] => [
      `${type} tensors`,
      `${count}, ${formatBytes(tensorBytes[type] ?? 0)}`,
    ]),
    ...Object.entries(found.provenance),
  ]
  // A whole recipe is longer than a line and is cut: --json prints all of it. The reason is not.
  return formatPairs(rows).map((line, i) => (rows[i]?.[0] === RUNS ? line : cut(line, columns)))
}

const headOf = (tied: boolean) => (tied ? 'tied to the embedding' : 'its own')

function vocabulary(found: FileInspection): string {
  const { tokenizer, preTokenizer } = found
  const about = [
    tokenizer ?? 'no tokenizer',
    ...(preTokenizer === null ? [] : [`pre-tokenizer ${preTokenizer}`]),
    ...(found.hasChatTemplate ? ['chat template'] : []),
  ]
  return `${found.vocabSize ?? 'unknown'} (${about.join(', ')})`
}
