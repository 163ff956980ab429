import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: [
      'test/ts/**/*.test.ts',
      'test/wasm/**/*.test.ts',
      'test/client/**/*.test.ts',
      'test/e2e/**/*.test.ts',
    ],
    // Real runs on a small model, on as few as two cores that the runs themselves keep busy.
    testTimeout: 120_000,
    hookTimeout: 300_000,
    // Two files at a time: one of them is the client's, which mostly uses one core.
    maxWorkers: 2,
  },
})
