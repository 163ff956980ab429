/** Something that a signal stops. */
export interface Stoppable {
  /** Must not throw: nobody would catch it. */
  stop(): void
  /** Whether there is nothing to stop any more. */
  isOver(): boolean
}

/** What a signal stops, and its one listener. */
interface Stops {
  works: Set<Stoppable>
  listener(): void
}

const STOPS = new WeakMap<AbortSignal, Stops>()

/**
 * Stops `work` when the signal aborts, at once if it has; the function that is returned ends that.
 *
 * A signal has one listener however much it stops, and none while it stops nothing. Work that is
 * over although nobody took its result is let go of when the next one comes.
 */
export function stopOnAbort(signal: AbortSignal, work: Stoppable): () => void {
  if (signal.aborted) {
    work.stop()
    return () => {}
  }
  const { works, listener } = stopsOf(signal)
  for (const earlier of works) if (earlier.isOver()) works.delete(earlier)
  if (works.size === 0) signal.addEventListener('abort', listener, { once: true })
  works.add(work)
  return () => {
    if (works.delete(work) && works.size === 0) signal.removeEventListener('abort', listener)
  }
}

function stopsOf(signal: AbortSignal): Stops {
  const there = STOPS.get(signal)
  if (there !== undefined) return there
  const works = new Set<Stoppable>()
  const listener = () => {
    const all = [...works]
    works.clear()
    for (const work of all) work.stop()
  }
  const made = { works, listener }
  STOPS.set(signal, made)
  return made
}
