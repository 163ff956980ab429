import { Model as AnyModel } from './model.js'
import { nodeNative } from './native-node.js'

/**
 * A model in memory, full precision or quantized. In Node the native addon does the work; where
 * there is none, WebAssembly.
 */
export class Model extends AnyModel {
  protected static override readonly entry: string = 'halfstep'

  protected static override native() {
    return nodeNative()
  }
}
