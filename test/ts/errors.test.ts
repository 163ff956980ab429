import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ERROR_CODES, HalfstepError } from '../../ts/src/index.js'
import { makeInputs } from '../cases/make.js'
import { CONFIG } from '../cases/model.js'
import { temporaryFolder } from './tiny-model.js'

/** Codes that only JavaScript can give. */
const OURS = ['ERR_DISPOSED', 'ERR_NO_BUILD']

it('knows every code that Rust has, and no other', () => {
  const sources = ['formats', 'runtime', 'core'].map((crate) =>
    readFileSync(new URL(`../../crates/${crate}/src/error.rs`, import.meta.url), 'utf8'),
  )
  const codes = new Set(sources.join('').match(/\bERR_[A-Z_]+\b/g))
  expect([...codes, ...OURS].sort()).toEqual([...ERROR_CODES].sort())
})

it('carries code, fields and cause', () => {
  const error = new HalfstepError('ERR_CONFIG', 'weights: no', { field: 'weights' }, { cause: 1 })
  expect(error).toBeInstanceOf(Error)
  expect(error).toMatchObject({
    name: 'HalfstepError',
    code: 'ERR_CONFIG',
    message: 'weights: no',
    details: { field: 'weights' },
    cause: 1,
  })
})

interface Mistake {
  id: string
  title: string
  command: string
  says: string
}
const MISTAKES: Mistake[] = JSON.parse(
  readFileSync(new URL('../cases/mistakes.json', import.meta.url), 'utf8'),
)

describe('the commonest mistakes of docs/errors.md', () => {
  const cli = fileURLToPath(new URL('../../ts/dist/cli.js', import.meta.url))
  const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  const folder = temporaryFolder()
  const halfstep = (cwd: string, command: string) =>
    spawnSync(process.execPath, [cli, ...command.split(' ')], { cwd, encoding: 'utf8' })
  let provoked = 0
  beforeAll(() => makeInputs(folder))
  afterAll(() => console.log(`mistakes: ${provoked} of ${MISTAKES.length} answered as printed`))

  /** What each mistake needs beside a sound model and its texts: changes in the folder `at`. */
  const prepare: Record<string, (at: string) => void> = {
    'hub-name': () => {},
    'lfs-pointer': (at) => take('15_lfs_pointer', at, 'SmolLM2-135M'),
    pickle: (at) => take('15_bin_only', at, 'SmolLM2-135M'),
    family: (at) => {
      take('plain', at, 'DeepSeek-V3')
      const family = { model_type: 'deepseek_v3', architectures: ['DeepseekV3ForCausalLM'] }
      writeFileSync(join(at, 'DeepSeek-V3/config.json'), JSON.stringify({ ...CONFIG, ...family }))
    },
    split: (at) => take('11_split-00002-of-00002.gguf', at, 'model-00002-of-00002.gguf'),
    'no-tokenizer': (at) => {
      for (const name of ['tokenizer.json', 'tokenizer_config.json'])
        rmSync(join(at, 'SmolLM2-135M', name))
    },
    'no-text': () => {},
    'short-text': () => {},
    bits: () => {},
    option: () => {},
    exists: (at) => writeFileSync(join(at, 'small.gguf'), ''),
    resume: (at) => {
      const before = 'quantize SmolLM2-135M --data text.txt --sequence-length 64 --tokens 1024'
      const { status, stderr } = halfstep(at, `${before} --run-folder run -o first.gguf`)
      expect([status, stderr]).toEqual([0, expect.any(String)])
    },
    memory: () => {},
  }
  function take(input: string, at: string, name: string): void {
    rmSync(join(at, name), { recursive: true, force: true })
    cpSync(join(folder, input), join(at, name), { recursive: true })
  }

  it('are ten or more, each with a way to provoke it', () => {
    expect(MISTAKES.length).toBeGreaterThanOrEqual(10)
    expect(MISTAKES.map(({ id }) => id)).toEqual(Object.keys(prepare))
  })

  it.each(MISTAKES)('$title', ({ id, title, command, says }) => {
    const at = join(folder, 'at', id)
    mkdirSync(at, { recursive: true })
    take('plain', at, 'SmolLM2-135M')
    const sentence = 'The gardener plants beans in spring.\n'
    writeFileSync(join(at, 'short.txt'), sentence)
    writeFileSync(join(at, 'text.txt'), sentence.repeat(700))
    prepare[id]?.(at)
    const { stdout, stderr } = halfstep(at, command)
    expect(stdout + stderr).toContain(says)
    // The page has the same, in lines of its own.
    const words = page.replace(/\s+/g, ' ')
    for (const text of [title, `halfstep ${command}`, says])
      expect(words).toContain(text.replace(/\s+/g, ' '))
    provoked++
  })
})
