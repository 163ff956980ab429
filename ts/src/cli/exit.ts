import { HalfstepError } from '../errors.js'
import { inFlags } from './messages.js'
import { note } from './output.js'

/** Exit codes of every command. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const

export const EXIT_HELP = `
Exit codes: ${EXIT.ok} success; ${EXIT.failed} failure, with "error ERR_CODE: message" on stderr;
${EXIT.usage} unknown command or option; ${EXIT.interrupted} interrupted.
Run halfstep <command> --help for the options of a command and an example, and
halfstep explain ERR_CODE for what an error means and what to do.`

/** What asks a process to end: Ctrl-C, a service manager, a terminal or ssh that is closed. */
const ENDING: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']

/**
 * Runs the work of a command with a signal that the first Ctrl-C (SIGTERM, SIGHUP) aborts; the
 * second ends the process at once. A failure becomes one line on stderr, with `json` also an object
 * on stdout, and the exit code.
 */
export async function attempt(
  work: (signal: AbortSignal) => Promise<void>,
  options: { json?: boolean; resume?: string } = {},
): Promise<void> {
  const controller = new AbortController()
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted)
    // First: the terminal may be gone.
    controller.abort()
    note('\nstopping after this step; press Ctrl-C again to stop immediately\n')
  }
  for (const name of ENDING) process.on(name, interrupt)
  try {
    await work(controller.signal)
  } catch (error) {
    report(error, options)
  } finally {
    for (const name of ENDING) process.off(name, interrupt)
  }
}

function report(error: unknown, options: { json?: boolean; resume?: string }): void {
  const known = error instanceof HalfstepError ? error : systemError(error)
  if (known === undefined) throw error
  const { code, message, details } = known
  if (options.json) console.log(JSON.stringify({ kind: 'error', code, message, details }))
  if (code !== 'ERR_CANCELLED') {
    console.error(`error ${code}: ${inFlags(message, details)}`)
    process.exitCode = EXIT.failed
    return
  }
  const saved = typeof details.resume === 'string'
  console.error(
    saved
      ? `interrupted; state saved in ${details.resume}`
      : 'interrupted before there was anything to save',
  )
  if (saved && options.resume) console.error(`to resume: ${options.resume}`)
  process.exitCode = EXIT.interrupted
}

/** A failed system call of Node's (a folder that cannot be made) as one of our errors. */
function systemError(error: unknown): HalfstepError | undefined {
  const { syscall, path, message } = error as NodeJS.ErrnoException
  return syscall === undefined ? undefined : new HalfstepError('ERR_IO', message, { path })
}
