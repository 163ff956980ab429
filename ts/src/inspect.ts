import { called } from './errors.js'
import type { FileInspection } from './generated/types.js'
import { checkedLoad, checkedSource, type LoadOptions } from './model.js'
import type { Native } from './native.js'
import { Task } from './task.js'

/** The description of a model by one of the builds. */
export async function inspectIn(
  native: Native,
  source: string | URL | Uint8Array,
  options: LoadOptions,
): Promise<FileInspection> {
  const { signal, name } = checkedLoad(options)
  const from = checkedSource(source)
  const task = called(() =>
    typeof from === 'string' ? native.inspect(from) : native.inspectBytes(name, from),
  )
  return new Task(task, (value) => value as FileInspection, signal).result
}
