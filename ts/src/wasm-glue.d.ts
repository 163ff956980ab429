/** What wasm-bindgen makes of crates/wasm, for type checks before it has been built. */
declare module '*/wasm/halfstep.js' {
  export class WasmModel {
    private constructor()
    free(): void
    share(): WasmModel
    inspect(): string
    dispose(): void
  }
  export class WasmTask {
    private constructor()
    free(): void
    step(): boolean
    message(): string | undefined
    outcome(): string | undefined
    takeModel(): WasmModel | undefined
    takeBytes(): Uint8Array | undefined
    cancel(): void
  }
  export class WasmFiles {
    add(name: string, bytes: Uint8Array): void
  }
  export function loadFiles(name: string, files: WasmFiles): WasmTask
  export function inspectFiles(name: string, files: WasmFiles): WasmTask
  export function inspectBytes(name: string, bytes: Uint8Array): WasmTask
  export function takePanic(): string | undefined
  export function loadBytes(name: string, bytes: Uint8Array): WasmTask
  export function quantize(model: WasmModel, recipe: string, run: string): WasmTask
  export function evaluate(model: WasmModel, config: string): WasmTask
  export function evaluateAgainst(model: WasmModel, against: WasmModel, config: string): WasmTask
  export function generate(model: WasmModel, config: string): WasmTask
  export function generateAll(model: WasmModel, prompts: string, config: string): WasmTask
  export function dequantize(model: WasmModel): WasmTask
  export function tokenize(model: WasmModel, text: string, special: boolean): WasmTask
  export function logits(model: WasmModel, tokens: Uint32Array): WasmTask
  export function toBytes(model: WasmModel, path?: string): WasmTask
  export function resolve(recipe: string, changes: string): string
  export function doctor(): string
  export default function init(options?: { module_or_path?: unknown }): Promise<unknown>
}
