import { Model as AnyModel, type LoadOptions } from './model.js'
import { wasmNative } from './native-wasm.js'

/**
 * A model in the memory of WebAssembly, full precision or quantized: everything but training, on
 * one thread.
 */
export class Model extends AnyModel {
  protected static override readonly entry: string = 'halfstep/wasm'

  protected static override native() {
    return wasmNative()
  }

  /**
   * Reads a model from one file's bytes, a URL to fetch or, in Node, a path: GGUF, a `halfstep`
   * safetensors file or a Hugging
   * Face folder (by its path).
   *
   * Throws what `Model.load` of `halfstep` throws, with the same codes.
   */
  static override load(
    source: string | URL | Uint8Array,
    options: LoadOptions = {},
  ): Promise<Model> {
    // The address of a file is a path to Node; that of anything else is fetched as it is.
    const address = source instanceof URL && source.protocol !== 'file:' ? source.href : source
    return super.load(address, options)
  }
}
