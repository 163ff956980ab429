import type { FileInspection } from './generated/types.js'
import { inspectIn } from './inspect.js'
import type { LoadOptions } from './model.js'
import { nodeNative } from './native-node.js'

/**
 * Describes the model of a file or folder, or of one file's bytes, whether it can be run or not:
 * any sound GGUF or safetensors file, Hugging Face folder or config.json. Only headers and small
 * files are read, never the weights; `refusal` says why a model cannot be run.
 *
 * @example
 * const { architecture, parameters, refusal } = await inspect('model.gguf')
 *
 * Rejected with `ERR_IO`, `ERR_FORMAT` or `ERR_MEMORY` where the file is damaged, `ERR_UNSUPPORTED`
 * where it is no model.
 */
export async function inspect(
  source: string | URL | Uint8Array,
  options: LoadOptions = {},
): Promise<FileInspection> {
  return inspectIn(await nodeNative(), source, options)
}
