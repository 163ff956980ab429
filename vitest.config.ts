import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/**
 * The client's files first. Where no earlier run says how long each file takes, vitest begins with
 * the largest, and these, which are short texts, would run alone in the end.
 */
class ClientFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const last = (file: TestSpecification) => Number(!file.moduleId.includes('/test/client/'))
    return (await super.sort(files)).toSorted((a, b) => last(a) - last(b))
  }
}

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
    sequence: { sequencer: ClientFirst },
  },
})
