/**
 * What a closed or full stdout does to a command. Most exist for what they print, and end: a reader
 * that closes the pipe early, as `head` does, has all it wants; any other failure is one of the
 * command. One that makes a file goes on, and its exit code says whether the file is there.
 */
let printing = true

/** From here on the command is worth more than what it prints. */
export function printingIsCourtesy(): void {
  printing = false
}

/** Listens for failures of stdout and stderr, which would end the process; `exit` has its codes. */
export function watchOutput(exit: { ok: number; failed: number }): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (!printing) return
    if (error.code === 'EPIPE') process.exit(exit.ok)
    note(`error ERR_IO: stdout: ${error.message}\n`)
    process.exit(exit.failed)
  })
  // Nothing is printed there but progress and why a command failed, which its exit code says too.
  process.stderr.on('error', () => {})
}

/** Writes to stderr, or not: a full disk there is no reason to end. */
export function note(text: string, stream: NodeJS.WritableStream = process.stderr): void {
  try {
    stream.write(text)
  } catch {
    // A file is written to at once, and throws.
  }
}
