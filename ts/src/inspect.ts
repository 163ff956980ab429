import type { FileInspection } from './generated/types.js'
import { checkedSource, type LoadOptions } from './model.js'
import type { Native } from './native.js'
import { Task } from './task.js'

/** The description of a model by one of the builds. */
export async function inspectIn(
  native: Native,
  source: string | URL | Uint8Array,
  { signal, name = 'bytes' }: LoadOptions,
): Promise<FileInspection> {
  const from = checkedSource(source)
  const task = typeof from === 'string' ? native.inspect(from) : native.inspectBytes(name, from)
  return new Task(task, (value) => value as FileInspection, signal).result
}
