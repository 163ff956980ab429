/**
 * A program can hold several copies of this package: one that it imports, one that it requires, one
 * for WebAssembly. Each has classes of its own. This is how a copy knows the models of another.
 */
import type { Native, NativeModel } from './native.js'

/** The version of the package; models of another one are refused, not guessed at. */
export const VERSION = '0.1.0'

/** What a model shows to all copies. */
export interface ModelParts {
  version: string
  /** The entry point whose class it has. */
  entry: string
  native: Native
  /** Undefined once it is disposed. */
  handle: NativeModel | undefined
}

/** The method of a model that gives its {@link ModelParts}, by a name that all copies have. */
export const PARTS = Symbol.for('halfstep.Model.parts')

/** What a model of whatever copy shows; undefined for anything else. */
export function partsOf(value: unknown): ModelParts | undefined {
  if (typeof value !== 'object' || value === null || !(PARTS in value)) return undefined
  return (value as { [PARTS](): ModelParts })[PARTS]()
}
