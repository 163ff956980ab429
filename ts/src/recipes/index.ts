import type { RtnOptions } from './rtn.js'
import { rtn } from './rtn.js'
import type { SilqOptions } from './silq.js'
import { silq } from './silq.js'

export type { RtnOptions } from './rtn.js'
export type { SilqOptions, TrainOptions } from './silq.js'

/** A recipe with its options, as plain data. Rust fills in the defaults and checks it. */
export type Recipe = ({ kind: 'silq' } & SilqOptions) | ({ kind: 'rtn' } & RtnOptions)

/** The built-in recipes. */
export const recipes = { rtn, silq }
