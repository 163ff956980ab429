import { defineConfig } from 'tsup'

export default defineConfig([
  {
    entry: { index: 'ts/src/index.ts', wasm: 'ts/src/wasm.ts' },
    format: ['esm', 'cjs'],
    dts: true,
    outDir: 'ts/dist',
    target: 'node20',
    // import.meta.url in the CommonJS build
    shims: true,
    // Built by scripts/build-wasm.mjs; ts/dist and ts/src lie beside it, so that the path is right
    // for both.
    external: [/wasm\/halfstep\.js$/],
    sourcemap: true,
  },
  {
    entry: { cli: 'ts/src/cli/main.ts' },
    format: ['esm'],
    outDir: 'ts/dist',
    target: 'node20',
    external: [/wasm\/halfstep\.js$/],
    banner: { js: '#!/usr/bin/env node' },
  },
])
