/**
 * Inputs that users of such tools have met: each gives what is right, by the library and by the
 * command line. HALFSTEP_CASES names a folder with others of the same kinds.
 */
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { Model, quantize, recipes } from '../../ts/src/index.js'
import { readMetadata } from '../cases/files.js'
import { LETTER } from '../cases/make.js'
import { TOKENS } from '../cases/model.js'
import { cases } from '../cases/right.js'
import { temporaryFolder } from './tiny-model.js'

const cli = fileURLToPath(new URL('../../ts/dist/cli.js', import.meta.url))
const folder = temporaryFolder()
const { inputs, texts, own } = cases(folder)
const loaded = inputs.filter(({ refused }) => refused === undefined)
const counts = { inputs: 0, roles: 0, texts: 0, commands: 0 }
afterAll(() => {
  const { inputs, roles, texts, commands } = counts
  console.log(
    `cases: ${inputs} inputs, ${roles} of them with their end tokens through every format, ` +
      `${texts} texts, ${commands} by the command line`,
  )
})

const PROMPT = 'A new day'
const SAMPLE = "The gardener's beans: 12, 345. Gr\u00fc\u00dfe, na\u00efve caf\u00e9."

/** Runs the command line, which never ends by a signal. */
function halfstep(args: string[]): Promise<{ code: number | null; out: string; error: string }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [cli, ...args], {
      cwd: folder,
      env: { ...process.env, COLUMNS: '80' },
    })
    let [out, error] = ['', '']
    child.stdout.on('data', (piece) => {
      out += piece
    })
    child.stderr.on('data', (piece) => {
      error += piece
    })
    child.on('close', (code) => done({ code, out, error }))
  })
}

describe('inputs', () => {
  it.each(inputs)('$name', async ({ path, warning, refused }) => {
    if (refused !== undefined) {
      const error = await Model.load(path).then(
        () => undefined,
        (error) => error,
      )
      expect(error?.message).toMatch(refused)
      expect(error.code).toMatch(/^ERR_(UNSUPPORTED|MISSING_TENSOR|FORMAT|TOKENIZER)$/)
    } else {
      const model = await Model.load(path)
      const { warnings, endTokens, vocabSize } = model.inspect()
      if (warning) expect(warnings.join('\n')).toMatch(warning)
      else expect(warnings).toEqual([])
      for (const id of endTokens) expect(id).toBeLessThan(vocabSize)
      const { perplexity, reading } = await model.evaluate({
        text: SAMPLE.repeat(4),
        sequenceLength: 32,
      })
      expect(perplexity).toBeGreaterThan(1)
      expect(reading?.notes.length).toBeGreaterThanOrEqual(3)
      // What is made of it keeps its tokenizer.
      const file = join(folder, 'made.gguf')
      await model.save(file)
      const again = await Model.load(file)
      expect(await again.tokenize(SAMPLE)).toEqual(await model.tokenize(SAMPLE))
      model.dispose()
      again.dispose()
    }
    counts.inputs++
  })
})

describe('end tokens', () => {
  it.each(loaded.filter(({ name }) => name.startsWith('01_')))(
    '$name stops, and so does what is made of it',
    async ({ path, name }) => {
      const model = await Model.load(path)
      const { endTokens } = model.inspect()
      const { model: rounded } = await quantize(model, recipes.rtn({ target: 'gguf:q8_0' })).result
      const { model: grid } = await quantize(model, recipes.rtn({ target: 'halfstep' })).result
      const files: [Model, string][] = [
        [model, 'float.gguf'],
        [rounded, 'rounded.gguf'],
        [grid, 'grid.safetensors'],
      ]
      for (const [made, file] of files) {
        await made.save(join(folder, file))
        const again = await Model.load(join(folder, file))
        expect(again.inspect().endTokens).toEqual(endTokens)
        if (own) {
          const { text, tokens } = await again.generate({ prompt: PROMPT, maxTokens: 8 }).result
          expect([text, tokens.length <= 1]).toEqual(['', true])
        }
        again.dispose()
      }
      if (name.endsWith('.gguf')) {
        const before = readMetadata(readFileSync(path))
        for (const file of ['float.gguf', 'rounded.gguf']) {
          const after = readMetadata(readFileSync(join(folder, file)))
          for (const [key, id] of before)
            if (key.endsWith('_token_id')) expect([key, after.get(key)]).toEqual([key, id])
        }
      }
      for (const used of [model, rounded, grid]) used.dispose()
      counts.roles++
    },
  )

  it.runIf(own)('are no others: a letter is said to the end', async () => {
    const plain = inputs.find(({ name }) => name === 'plain')
    const model = await Model.load(plain?.path ?? '')
    const { text } = await model.generate({ prompt: PROMPT, maxTokens: 8 }).result
    expect(text).toBe((TOKENS[LETTER] ?? '').repeat(8))
    model.dispose()
  })
})

describe('texts', () => {
  it.each(texts)('$name', async ({ name, path, warning, refused }) => {
    const model = await Model.load(inputs.find(({ name }) => name === 'plain')?.path ?? '')
    const read = (data: string, special?: 'on' | 'off') =>
      model.evaluate({ data, sequenceLength: 32, ...(special ? { special } : {}) })
    if (refused) await expect(read(path)).rejects.toThrow(refused)
    else {
      const { meanNll, predictions, reading } = await read(path)
      const said = reading?.warnings.join('\n') ?? ''
      if (warning) {
        expect(said).toMatch(warning)
        const [on, off] = [await read(path, 'on'), await read(path, 'off')]
        expect([on.reading?.warnings, off.reading?.warnings]).toEqual([[], []])
        expect(on.predictions).toBeLessThan(off.predictions)
        expect(off.meanNll).toBe(meanNll)
      } else {
        expect(said).toBe('')
        if (own) {
          const plain = await read(path.replace(name, 'plain.txt'))
          expect([meanNll, predictions]).toEqual([plain.meanNll, plain.predictions])
        }
      }
    }
    model.dispose()
    counts.texts++
  })
})

describe('the command line', () => {
  it('says the same', { timeout: 300_000 }, async () => {
    const text = join(folder, 'said.txt')
    writeFileSync(text, SAMPLE.repeat(4))
    for (const { name, path, warning, refused } of inputs) {
      const args = ['eval', path, '--data', text, '--sequence-length', '32']
      const { code, out, error } = await halfstep(args)
      expect([name, code]).toEqual([name, refused ? 1 : 0])
      if (refused) expect(error.replaceAll('\n', ' ')).toMatch(refused)
      if (warning) expect(error.replaceAll('\n', ' ')).toMatch(warning)
      if (!refused)
        for (const note of ['begin token: ', 'special tokens: ', 'chat: ', 'perplexity'])
          expect(out).toContain(note)
      for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
      counts.commands++
    }
  })
})
