// npm run build:wasm: the WebAssembly module and its glue in ts/wasm.
import { packages, wasm } from './prepare.mjs'

await packages()
await wasm()
