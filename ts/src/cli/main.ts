import { createRequire } from 'node:module'
import { Command, CommanderError } from 'commander'
import { benchCommand } from './bench.js'
import { demoCommand } from './demo.js'
import { doctorCommand } from './doctor.js'
import { evalCommand } from './eval.js'
import { EXIT, EXIT_HELP } from './exit.js'
import { explainCommand } from './explain.js'
import { generateCommand } from './generate.js'
import { inspectCommand } from './inspect.js'
import { renamedFlag } from './options.js'
import { watchOutput } from './output.js'
import { planCommand } from './plan.js'
import { quantizeCommand } from './quantize.js'
import { recipesCommand } from './recipes.js'

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string }

const program = new Command('halfstep')
  .description('Quantizes, trains, evaluates and runs small language models at 2 to 8 bits.')
  .version(version)
  .addHelpText('after', EXIT_HELP)
const COMMANDS = [
  quantizeCommand,
  planCommand,
  recipesCommand,
  explainCommand,
  evalCommand,
  generateCommand,
  inspectCommand,
  demoCommand,
  benchCommand,
  doctorCommand,
]
for (const make of COMMANDS) program.addCommand(make())
for (const command of [program, ...program.commands])
  command
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(renamedFlag(text, command.options) ?? text),
    })
    .helpOption('-h, --help', 'Shows this help.')
    .configureHelp({ helpWidth: Math.min(process.stdout.columns ?? 80, 100) })

watchOutput(EXIT)

try {
  await program.parseAsync()
} catch (error) {
  // Commander has printed its message; help and version are not errors.
  if (!(error instanceof CommanderError)) throw error
  process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage
}
