import { Command } from 'commander'
import type { GenerationConfig } from '../generated/types.js'
import { attempt } from './exit.js'
import { loadModel } from './load.js'
import { addOptions, GENERATE_OPTIONS, given } from './options.js'

const EXAMPLE = `
Example:
  halfstep generate small.gguf --chat --prompt "What is a half step?" --seed 7`

export function generateCommand(): Command {
  const command = new Command('generate')
    .description('Continues a text, or with --chat answers a message.')
    .argument('<model>', 'GGUF or halfstep file, or Hugging Face folder.')
  addOptions(command, GENERATE_OPTIONS, { needed: 'prompt' })
  command
    .option(
      '--chat',
      'Treats the prompt as a message and answers it; the model must have a chat template.',
    )
    .option(
      '--json',
      'Prints the text as JSON lines, piece by piece, and the whole text in the last line.',
    )
  command.addHelpText('after', EXAMPLE)
  return command.action((path: string, options: { chat?: boolean; json?: boolean }) =>
    attempt(async (signal) => {
      const { prompt, ...rest } = given(command, GENERATE_OPTIONS) as Partial<GenerationConfig>
      const start = options.chat
        ? { messages: [{ role: 'user', content: prompt ?? '' }] }
        : { prompt }
      const model = await loadModel(path, signal)
      const stream = model.generate({ ...start, ...rest }, { signal })
      // The prompt is printed before its continuation, and not before an error.
      let before = options.json || options.chat ? '' : (prompt ?? '')
      for await (const text of stream) {
        if (options.json) console.log(JSON.stringify({ kind: 'text', text }))
        else process.stdout.write(before + text)
        before = ''
      }
      const result = await stream.result
      process.stdout.write(before)
      if (options.json) console.log(JSON.stringify({ kind: 'result', ...result }))
      else process.stdout.write('\n')
      if (process.stderr.isTTY && !options.json)
        console.error(
          `${result.tokens.length} tokens, ${result.tokensPerSecond.toFixed(1)} tokens/s`,
        )
    }, options),
  )
}
