import { existsSync } from 'node:fs'
import { defineConfig } from 'tsup'

const wasm: Record<string, string> = existsSync('ts/src/wasm.ts') ? { wasm: 'ts/src/wasm.ts' } : {}

export default defineConfig([
  {
    entry: { index: 'ts/src/index.ts', ...wasm },
    format: ['esm', 'cjs'],
    dts: true,
    outDir: 'ts/dist',
    target: 'node20',
    // import.meta.url in the CommonJS build
    shims: true,
    sourcemap: true,
    clean: true,
  },
  {
    entry: { cli: 'ts/src/cli/main.ts' },
    format: ['esm'],
    outDir: 'ts/dist',
    target: 'node20',
    banner: { js: '#!/usr/bin/env node' },
  },
])
