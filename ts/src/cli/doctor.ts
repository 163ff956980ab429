import { availableParallelism, freemem, totalmem } from 'node:os'
import { Command } from 'commander'
import { called } from '../errors.js'
import type { Doctor, Native } from '../native.js'
import { loadAddon } from '../native-node.js'
import { EXIT } from './exit.js'
import { formatBytes, formatPairs } from './format.js'

const EXAMPLE = `
Example:
  halfstep doctor`

export function doctorCommand(): Command {
  const command = new Command('doctor').description(
    'Shows what halfstep found on this machine (Node.js, CPU, memory, builds) and what is missing.',
  )
  command.option('--json', 'Prints the result as one line of JSON.').addHelpText('after', EXAMPLE)
  return command.action(async (options: { json?: boolean }) => {
    const addon = loadAddon()
    const wasm = await loadWasm()
    const builds = [describe('native addon', addon), describe('WebAssembly', wasm)]
    const found = [addon, wasm].find((build) => typeof build !== 'string') as Native | undefined
    const doctor = found && (JSON.parse(called(() => found.doctor())) as Doctor)
    if (options.json)
      console.log(
        JSON.stringify({
          node: process.version,
          platform: process.platform,
          arch: process.arch,
          memory: totalmem(),
          ...doctor,
          builds,
        }),
      )
    else {
      const rows: [string, string][] = [
        ['halfstep', doctor?.version ?? 'no build could be loaded'],
        ['Node.js', `${process.version} on ${process.platform}-${process.arch}`],
        ['CPU', doctor?.cpuFeatures.join(', ') || 'baseline'],
        ['threads', String(doctor?.threads ?? availableParallelism())],
        ['memory', `${formatBytes(totalmem())}, ${formatBytes(freemem())} free`],
        ...builds.map(({ name, state }): [string, string] => [name, state]),
      ]
      console.log(formatPairs(rows).join('\n'))
      if (typeof addon === 'string')
        console.log(
          '\nWithout the native addon models cannot be trained. To build it: npm run build',
        )
    }
    process.exitCode = found === undefined ? EXIT.failed : EXIT.ok
  })
}

async function loadWasm(): Promise<Native | string> {
  try {
    return await (await import('../native-wasm.js')).wasmNative()
  } catch (error) {
    if ((error as { code?: string }).code === 'ERR_MODULE_NOT_FOUND')
      return 'not built (npm run build:wasm)'
    return error instanceof Error ? error.message : String(error)
  }
}

function describe(
  name: string,
  build: Native | string,
): { name: string; found: boolean; state: string } {
  return typeof build === 'string'
    ? { name, found: false, state: `missing: ${build}` }
    : { name, found: true, state: 'found' }
}
