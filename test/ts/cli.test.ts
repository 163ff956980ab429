/** The command line as a user sees it: real runs on the tiny model, at 80 columns. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { RECIPES as DOCUMENTED } from '../../ts/src/generated/options.js'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const cli = fileURLToPath(new URL('../../ts/dist/cli.js', import.meta.url))
const COMMANDS = [
  'quantize',
  'plan',
  'recipes',
  'explain',
  'eval',
  'generate',
  'inspect',
  'demo',
  'bench',
  'doctor',
]
const RECIPES = DOCUMENTED.map(({ kind }) => kind)
const folder = temporaryFolder()
const [path, data] = [tinyModel(folder), tinyText(folder)]
/** A model whose tokenizer adds a begin token. */
const addsBegin = fileURLToPath(new URL('../golden/arch/llama', import.meta.url))
writeFileSync(join(folder, 'whole.json'), '{"id":"mine","rules":[],"stages":[]}')
const TRAIN = ['--tokens', '1024', '--sequence-length', '32', '--learning-rate', '1e-3']

interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs the command line; `during` gets the process with all it has written so far. */
function halfstep(
  args: string[],
  during?: (stdout: string, kill: (signal: NodeJS.Signals) => void) => void,
): Promise<Ended> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [cli, ...args], {
      cwd: folder,
      env: { ...process.env, COLUMNS: '80' },
    })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (piece) => {
      stdout += piece
      during?.(stdout, (signal) => child.kill(signal))
    })
    child.stderr.on('data', (piece) => (stderr += piece))
    child.on('close', (code) => done({ code, stdout, stderr }))
  })
}

const lines = (text: string) => text.trimEnd().split('\n')
const objects = (text: string) =>
  lines(text).map((line) => JSON.parse(line) as Record<string, unknown>)

describe('halfstep --help', () => {
  it('names every command and the exit codes', async () => {
    const { code, stdout } = await halfstep(['--help'])
    expect(code).toBe(0)
    for (const line of lines(stdout)) expect(line.length).toBeLessThanOrEqual(80)
    for (const word of [...COMMANDS, 'Exit codes', '130']) expect(stdout).toContain(word)
  })

  it.each(COMMANDS)('%s has an example and fits 80 columns', async (command) => {
    const { code, stdout } = await halfstep([command, '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(new RegExp(`Examples?:\\n  halfstep ${command}`))
    for (const line of lines(stdout)) expect(line.length).toBeLessThanOrEqual(80)
  })
})

describe('halfstep quantize --recipe <name> --help', () => {
  it.each(RECIPES)('%s fits 80 columns and ends every text with a full stop', async (recipe) => {
    const { code, stdout } = await halfstep(['quantize', '--recipe', recipe, '--help'])
    expect(code).toBe(0)
    for (const line of lines(stdout)) expect(line.length).toBeLessThanOrEqual(80)
    const text = stdout.split('Examples:')[0]?.replace(/\n {10,}/g, ' ') ?? ''
    const options = text.match(/^ {2}-.*$/gm) ?? []
    expect(options.length).toBeGreaterThan(15)
    for (const option of options.filter((line) => !/ -h, --help | \(default/.test(line)))
      expect(option).toMatch(/\.$/)
  })

  it('shows the options of that recipe only', async () => {
    const flags = async (recipe: string) =>
      new Set(
        (await halfstep(['quantize', `--recipe=${recipe}`, '--help'])).stdout.match(
          /(?<=^ {2})--[\w-]+/gm,
        ),
      )
    const [gptq, rtn, silq] = [await flags('gptq'), await flags('rtn'), await flags('silq')]
    const [own, shared] = [
      ['--damping', '--no-act-order', '--samples'],
      ['--weights', '--data'],
    ]
    for (const flag of [...own, ...shared]) expect(gptq).toContain(flag)
    for (const flag of own) expect([...rtn, ...silq]).not.toContain(flag)
    for (const flag of ['--learning-rate', '--no-learn-scales']) expect(silq).toContain(flag)
    expect(rtn).not.toContain('--learning-rate')
  })
})

describe('halfstep recipes and explain', () => {
  it('lists the recipes in one line each or a few', async () => {
    const { stdout } = await halfstep(['recipes'])
    for (const recipe of RECIPES) expect(stdout).toMatch(new RegExp(`^${recipe} .*`, 'm'))
    for (const line of lines(stdout)) expect(line.length).toBeLessThanOrEqual(80)
    const listed = JSON.parse((await halfstep(['recipes', '--json'])).stdout)
    expect(listed.map(({ kind }: { kind: string }) => kind)).toEqual(RECIPES)
  })

  it('prints a recipe in full, which gives the same file as its name', async () => {
    const { stdout } = await halfstep(['recipes', 'rtn', '--json'])
    expect(JSON.parse(stdout)).toMatchObject({ id: 'rtn', target: 'gguf:q4_0', stages: [] })
    writeFileSync(join(folder, 'mine.json'), stdout)
    const file = async (name: string, ...args: string[]) => {
      const { code } = await halfstep(['quantize', path, '-o', name, ...args])
      expect(code).toBe(0)
      return readFileSync(join(folder, name)).toString('base64')
    }
    const named = await file('named.gguf', '--recipe', 'rtn', '--observer', 'absmax')
    const change = 'rules[0].quantizer.observer=absmax'
    expect(await file('changed.gguf', '--recipe', 'mine.json', '--set', change)).toBe(named)
    expect(await file('set.gguf', '--recipe', 'rtn', '--set', change)).toBe(named)
    expect(await file('plain.gguf', '--recipe', 'mine.json')).not.toBe(named)
  })

  it.each([
    ['efficientqat', ['Phase 1', 'Costs', 'Defaults', '--recipe efficientqat --help']],
    [
      'learning-rate',
      ['--learning-rate', 'train.learningRate', 'In silq', '2e-4, or less where weights are small'],
    ],
    ['--learning-rate', ['train.learningRate']],
    ['err_checkpoint', ['ERR_CHECKPOINT', 'What to do: resume with the model']],
    ['resume', ['every run (false)']],
    ['stages[].trains.scales', ['stages[].trains.scales, field of a whole recipe']],
    ['stages[0].scope', ['stages[].scope', 'model: End to end.']],
    ['rules[].quantizer.rounding', ['nearest: To the nearest code', 'adaRound: Down or up']],
  ])('explains %s', async (word, words) => {
    const { code, stdout } = await halfstep(['explain', word])
    expect(code).toBe(0)
    for (const part of words) expect(stdout).toContain(part)
    for (const line of lines(stdout)) expect(line.length).toBeLessThanOrEqual(80)
  })

  it('refuses a word that nothing has, and an unknown recipe', async () => {
    const unknown = await halfstep(['explain', 'learning'])
    expect(unknown.code).toBe(1)
    expect(unknown.stderr).toMatch(/^error ERR_CONFIG: learning: .*learning-rate/m)
    const recipe = await halfstep(['recipes', 'gptk'])
    expect(recipe.code).toBe(1)
    expect(recipe.stderr).toContain('gptk is not known; did you mean gptq?')
  })
})

describe('halfstep quantize', () => {
  it('trains, writes the file and says what it did', async () => {
    const { code, stdout, stderr } = await halfstep([
      'quantize',
      path,
      '--data',
      data,
      '--validation',
      data,
      '--validation-tokens',
      '256',
      '-o',
      'small.gguf',
      ...TRAIN,
    ])
    expect(code).toBe(0)
    expect(stdout).toContain('small.gguf')
    expect(stdout).toMatch(/^result +\d/m)
    expect(stderr).toMatch(/train +\d+%.* ETA .*loss/)
    for (const line of lines(stdout + stderr)) expect(line.length).toBeLessThanOrEqual(80)
    expect(existsSync(join(folder, 'small.gguf.run'))).toBe(false)
  })

  it('gives JSON lines, the result last', async () => {
    const { code, stdout, stderr } = await halfstep([
      'quantize',
      path,
      '--data',
      data,
      '-o',
      'json.gguf',
      '--json',
      ...TRAIN,
    ])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const [first, last] = [objects(stdout)[0], objects(stdout).at(-1)]
    expect(first).toHaveProperty('kind')
    expect(objects(stdout).filter(({ kind }) => kind === 'step')).toHaveLength(8)
    expect(last).toMatchObject({
      kind: 'result',
      report: { recipe: 'silq', steps: 8 },
      file: { bytes: statSync(join(folder, 'json.gguf')).size, parity: true },
    })
  })

  it('trains on JSON Lines, and names the line that is none', async () => {
    const documents = readFileSync(data, 'utf8').trimEnd().split('\n')
    const jsonl = (name: string, texts: object[]) =>
      writeFileSync(join(folder, name), texts.map((text) => `${JSON.stringify(text)}\n`).join(''))
    jsonl(
      'corpus.jsonl',
      documents.map((text, id) => ({ id, text })),
    )
    const { code, stdout } = await halfstep([
      'quantize',
      path,
      '--data',
      'corpus.jsonl',
      '-o',
      'lines.gguf',
      ...TRAIN,
    ])
    expect({ code, file: stdout.includes('lines.gguf') }).toEqual({ code: 0, file: true })
    jsonl('broken.jsonl', [{ text: 'one' }, { txt: 'two' }])
    const broken = await halfstep([
      'quantize',
      path,
      '--data',
      'broken.jsonl',
      '-o',
      'never.gguf',
      ...TRAIN,
    ])
    expect(broken.code).toBe(1)
    expect(broken.stderr).toContain(
      'error ERR_DATA: broken.jsonl: line 2: no string in a field text',
    )
  })

  it('trains on what the model generates, keeps it, and refuses it to another model', async () => {
    const own = ['quantize', path, '--recipe', 'llm-qat', '-o', 'own.safetensors', ...TRAIN]
    const { code, stdout, stderr } = await halfstep(own)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^recipe +llm-qat for halfstep/m)
    expect(stderr).toMatch(/generate +\d+%.* ETA .*tokens\/s/)
    expect(existsSync(join(folder, 'own.safetensors.run', 'self-generated'))).toBe(true)
    const again = await halfstep([...own, '--json', '--overwrite'])
    expect(again.stdout).not.toContain('"kind":"generate"')
    const other = await halfstep([...own, '--seed', '1', '--overwrite'])
    expect(other.stderr).toMatch(/error ERR_CHECKPOINT: .*self-generated.*another model/)
    const blocks = [
      'quantize',
      path,
      '--recipe',
      'omniquant',
      '--data',
      data,
      '--sequence-length',
      '64',
      '--epochs',
      '1',
      '-o',
      'both.safetensors',
    ]
    const both = await halfstep([...blocks, '--self-generated', '256', '--samples', '6'])
    expect({ code: both.code, generated: both.stderr.includes('generate') }).toEqual({
      code: 0,
      generated: true,
    })
  })

  it('saves on Ctrl-C, says how to go on, and goes on to the same bytes', async () => {
    const args = ['quantize', path, '--data', data, '--json', ...TRAIN, '--tokens', '32768']
    await halfstep([...args, '-o', 'whole.gguf'])
    let killed = false
    const stopped = await halfstep([...args, '-o', 'stopped.gguf'], (stdout, kill) => {
      if (!killed && stdout.includes('"step":3')) {
        killed = true
        kill('SIGINT')
      }
    })
    expect(stopped.code).toBe(130)
    expect(objects(stopped.stdout).at(-1)).toMatchObject({ kind: 'error', code: 'ERR_CANCELLED' })
    const hint = lines(stopped.stderr).at(-1) ?? ''
    expect(hint).toMatch(/^to resume: (npx )?halfstep quantize .*stopped\.gguf --resume$/)
    expect(existsSync(join(folder, 'stopped.gguf'))).toBe(false)
    const resumed = await halfstep(hint.replace(/^to resume: (npx )?halfstep /, '').split(' '))
    expect(resumed.code).toBe(0)
    expect(
      readFileSync(join(folder, 'stopped.gguf')).equals(readFileSync(join(folder, 'whole.gguf'))),
    ).toBe(true)
  })

  it('loses no finished block when it is killed', async () => {
    const args = [
      'quantize',
      path,
      '--recipe',
      'apiq',
      '--data',
      data,
      '--sequence-length',
      '32',
      '--samples',
      '8',
      '--epochs',
      '200',
      '--json',
    ]
    await halfstep([...args, '-o', 'unbroken.safetensors'])
    const killed = await halfstep(
      [...args, '-o', 'killed.safetensors'],
      (stdout, kill) => stdout.includes('"kind":"checkpoint"') && kill('SIGKILL'),
    )
    expect({ code: killed.code, written: existsSync(join(folder, 'killed.safetensors')) }).toEqual({
      code: null,
      written: false,
    })
    const resumed = await halfstep([...args, '-o', 'killed.safetensors', '--resume'])
    const again = objects(resumed.stdout).filter(({ kind }) => kind === 'block')
    expect({ code: resumed.code, again: again.map(({ block }) => block) }).toEqual({
      code: 0,
      again: [1],
    })
    expect(
      readFileSync(join(folder, 'killed.safetensors')).equals(
        readFileSync(join(folder, 'unbroken.safetensors')),
      ),
    ).toBe(true)
  })

  it.each([
    [['--target', 'gguf:q4_0', '--weights', '3'], 'ERR_TARGET', 'halfstep'],
    [['--weights', '4.5'], 'ERR_CONFIG', ' --weights: '],
    [['--learning-rate=-1'], 'ERR_CONFIG', ' --learning-rate: '],
    [['--target', 'gguf:q40'], 'ERR_CONFIG', 'did you mean gguf:q4_0?'],
    [['--recipe', 'silk'], 'ERR_CONFIG', ' --recipe: silk is not known; did you mean silq?'],
    [
      ['--recipe', 'gptq', '--rank', '4'],
      'ERR_CONFIG',
      ' --rank: not an option of this recipe, which has ',
    ],
    [
      ['--recipe', 'rtn', '--sequence-length', '64'],
      'ERR_CONFIG',
      ' --sequence-length: not an option of this recipe, which has ',
    ],
    [
      ['--recipe', 'rtn', '--resume'],
      'ERR_CONFIG',
      ' --resume: must be absent: rounding has no steps',
    ],
    [['--set', 'stages[0].confg.tokens=8'], 'ERR_CONFIG', ' stages[0].confg: unknown option; did'],
    [['--set', 'stages[1].config.tokens=8'], 'ERR_CONFIG', ' stages[1]: the list has elements 0'],
    [['--set', 'stages[0].config.tokens=few'], 'ERR_CONFIG', ' stages[0].config.tokens: '],
    [
      ['--set', 'stages[0].config.warmup=7'],
      'ERR_CONFIG',
      ' stages[0].config.warmup: must be from 0 to 1',
    ],
    [['--recipe', 'absent.json'], 'ERR_IO', ' --recipe: absent.json: the file does not exist'],
    [['--recipe', 'whole.json', '--weights', '4'], 'ERR_CONFIG', '--set'],
    [
      ['--recipe', 'apiq', '--tokens', '64'],
      'ERR_CONFIG',
      ' --tokens: not an option of this recipe, which has --samples, ',
    ],
  ])('fails with %j by a typed error and exit code 1', async (args, code, words) => {
    const ended = await halfstep(['quantize', path, '--data', data, '-o', 'never.gguf', ...args])
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain(`error ${code}: `)
    expect(ended.stderr).toContain(words)
    expect(existsSync(join(folder, 'never.gguf'))).toBe(false)
  })

  it.each(['quantize', 'plan'])(
    '%s looks for the output folder before it trains',
    async (command) => {
      const ended = await halfstep([
        command,
        path,
        '--data',
        data,
        ...TRAIN,
        '-o',
        join('no such folder', 'small.gguf'),
      ])
      expect(ended.code).toBe(1)
      expect(lines(ended.stderr)).toEqual([
        expect.stringMatching(
          /^error ERR_IO: --output: .*no such folder: the folder does not exist; create it first$/,
        ),
      ])
    },
  )

  it.each([
    [['--wieghts', '4'], '--weights'],
    [['--weights', 'four'], 'it must be a number'],
    [['--set', 'weights'], 'it must be path=value'],
  ])('refuses %j as wrong usage with exit code 2', async (args, words) => {
    const ended = await halfstep(['quantize', path, '-o', 'never.gguf', ...args])
    expect(ended.code).toBe(2)
    expect(ended.stderr).toContain(words)
  })

  it.each([
    ['quantize', '--window', '--sequence-length'],
    ['quantize', '--start=lsq', '--observer'],
    ['quantize', '--no-learn-steps', '--no-learn-scales'],
    ['plan', '--weight-step-multiplier', '--weight-scale-multiplier'],
    ['eval', '--window', '--sequence-length'],
  ])('%s answers %s, a flag of 0.1, with its name of today', async (command, before, now) => {
    const output = command === 'eval' ? [] : ['-o', 'never.gguf']
    const ended = await halfstep([command, path, '--data', data, ...output, before, '64'])
    const [flag] = before.split('=')
    expect(ended.code).toBe(2)
    expect(lines(ended.stderr)).toEqual([`error: ${flag} is called ${now} since 0.2.0`])
  })

  it('answers a value of 0.1 with its name of today', async () => {
    const args = ['--data', data, '-o', 'never.gguf', '--gradient-scale', 'layer']
    const ended = await halfstep(['quantize', path, ...args])
    expect(ended.code).toBe(1)
    expect(lines(ended.stderr)).toEqual([
      'error ERR_CONFIG: --gradient-scale: layer is called matrix since 0.2.0',
    ])
  })

  it('knows the new name of every flag that same-bytes renames', async () => {
    const script = new URL('../../scripts/renamed-flags.mjs', import.meta.url).href
    const { RENAMED } = (await import(script)) as { RENAMED: Record<string, string> }
    // 0.1 had only --no-learn-steps of this pair.
    const { '--learn-steps': _, ...flags } = RENAMED
    for (const [before, now] of Object.entries(flags)) {
      const [flag = '', value] = before.split(' ')
      const [flagNow, valueNow] = now.split(' ')
      const args = ['--data', data, '-o', 'never.gguf', flag, value ?? '1']
      const ended = await halfstep(['quantize', path, ...args])
      const expected = value === undefined ? [flag, flagNow] : [value, valueNow]
      expect(ended.stderr).toContain(`${expected.join(' is called ')} since 0.2.0`)
    }
  })

  it.each([
    ['quantize', '-o, --output'],
    ['eval', '--data'],
    ['generate', '--prompt'],
  ])('%s without %s is wrong usage', async (command, flag) => {
    const ended = await halfstep([command, path])
    expect(ended.code).toBe(2)
    expect(ended.stderr).toContain(`required option '${flag}`)
  })
})

describe('halfstep eval', () => {
  it('ends with one line, one object', async () => {
    const { code, stdout, stderr } = await halfstep([
      'eval',
      path,
      '--data',
      data,
      '--tokens',
      '256',
      '--sequence-length',
      '64',
      '--json',
    ])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(lines(stdout)).toHaveLength(1)
    const figures = [
      'perplexity',
      'meanNll',
      'predictions',
      'kl',
      'top1Agreement',
      'tokensPerSecond',
    ]
    const keys = [...figures, 'reading']
    expect(Object.keys(JSON.parse(stdout) as object).sort()).toEqual(keys.sort())
    expect(JSON.parse(stdout)).toMatchObject({ predictions: 252, kl: null, top1Agreement: null })
  })

  it('compares with another model', async () => {
    const args = ['--data', data, '--tokens', '256', '--sequence-length', '64', '--against', path]
    const { stdout } = await halfstep(['eval', path, ...args, '--json'])
    expect(JSON.parse(stdout)).toMatchObject({ kl: 0, top1Agreement: 1 })
    const plain = await halfstep(['eval', path, ...args])
    expect(plain.stdout).toMatch(/top-1 agreement, % +100\.00/)
  })

  it('says in 80 columns that a begin token is put before each window, and how a text is read', async () => {
    const text = join(folder, 'chat.txt')
    writeFileSync(text, '<eos>A new day begins. '.repeat(40))
    const args = [addsBegin, '--data', text, '--sequence-length', '32']
    const auto = await halfstep(['eval', ...args])
    expect(auto.code).toBe(0)
    expect(lines(auto.stdout)[0]).toBe('begin token: <bos> before each window (auto)')
    expect(auto.stderr).toMatch(/^warning: the text spells out special tokens \(40, first <eos>\)/m)
    for (const line of lines(auto.stdout + auto.stderr)) expect(line.length).toBeLessThanOrEqual(80)
    const off = await halfstep(['eval', ...args, '--bos', 'off', '--special', 'on'])
    const notes = ['begin token: none (off)', 'special tokens: read as tokens (on)']
    expect(lines(off.stdout).slice(0, 2)).toEqual(notes)
    expect(off.stderr).not.toContain('warning')
    const json = await halfstep(['eval', ...args, '--bos', 'on', '--json'])
    expect(JSON.parse(json.stdout)).toMatchObject({ reading: { beginToken: '<bos>' } })
    const none = await halfstep(['eval', path, '--data', data, '--bos', 'on'])
    expect(none.code).toBe(1)
    expect(none.stderr).toMatch(/^error ERR_CONFIG: --bos: must be auto or off: .* has no begin/m)
  })

  it('names a text that is not there', async () => {
    const ended = await halfstep(['eval', path, '--data', 'absent.txt'])
    expect(ended.code).toBe(1)
    expect(ended.stderr).toMatch(/^error ERR_IO: .*absent\.txt/m)
  })
})

describe('the other commands', () => {
  it('generate writes the prompt and its continuation, or JSON lines', async () => {
    const plain = await halfstep(['generate', path, '--prompt', 'the half', '--max-tokens', '8'])
    expect(plain.code).toBe(0)
    expect(plain.stdout.startsWith('the half')).toBe(true)
    const json = await halfstep([
      'generate',
      path,
      '--prompt',
      'the half',
      '--max-tokens',
      '8',
      '--json',
    ])
    expect(objects(json.stdout).at(-1)).toMatchObject({ kind: 'result', promptTokens: 8 })
  })

  it('generate --chat needs a chat template', async () => {
    const ended = await halfstep(['generate', path, '--prompt', 'hello', '--chat'])
    expect(ended.code).toBe(1)
    expect(ended.stderr).toMatch(/error ERR_\w+: .*chat template/)
  })

  it('inspect shows sizes and storage, and where a quantized file comes from', async () => {
    const { stdout } = await halfstep(['inspect', path])
    expect(stdout).toMatch(/^F32 tensors +20, [\d.]+ kB$/m)
    expect(stdout).toMatch(/^can be run +yes$/m)
    await halfstep(['quantize', path, '--recipe', 'rtn', '-o', 'inspected.gguf'])
    const small = await halfstep(['inspect', 'inspected.gguf'])
    expect(small.stdout).toMatch(/^target +gguf:q4_0$/m)
    expect(small.stdout).toMatch(/^recipe +\{"id":"rtn"/m)
    for (const line of lines(stdout + small.stdout)) expect(line.length).toBeLessThanOrEqual(80)
    expect(JSON.parse((await halfstep(['inspect', path, '--json'])).stdout)).toMatchObject({
      layers: 2,
    })
  })

  it('inspect says in one line why a model cannot be run', async () => {
    const config = { architectures: ['AlphaForCausalLM'], model_type: 'alpha', hidden_size: 64 }
    writeFileSync(join(folder, 'alpha.json'), JSON.stringify(config))
    const { code, stdout } = await halfstep(['inspect', 'alpha.json'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^architecture +alpha$/m)
    expect(stdout).toMatch(/^can be run +no: alpha\.json: AlphaForCausalLM is not supported: .+$/m)
    const json = await halfstep(['inspect', 'alpha.json', '--json'])
    expect(objects(json.stdout)).toMatchObject([
      { hiddenSize: 64, layers: null, refusal: { code: 'ERR_UNSUPPORTED' } },
    ])
  })

  it('every command that loads a model shows once what is left out of it', async () => {
    const file = join(folder, 'trailing.gguf')
    await halfstep(['quantize', path, '--recipe', 'rtn', '-o', file])
    writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(99)]))
    for (const command of [
      ['inspect', file],
      ['generate', file, '--prompt', 'the', '--max-tokens', '2'],
      ['eval', file, '--data', data],
    ]) {
      const { code, stderr } = await halfstep(command)
      expect(code).toBe(0)
      expect(stderr.match(/^warning: .*99 bytes after the last tensor/gm)).toHaveLength(1)
    }
  })

  it('bench checks the answers of the kernels and times those that are selected', async () => {
    const checked = await halfstep(['bench', '--answers', '--only', 'c.g'])
    expect(checked.code).toBe(0)
    expect(checked.stdout).toMatch(/^\d+ results checked, all correct/m)
    const timed = await halfstep(['bench', '--only', 'e.decode', '--model', path, '--json'])
    expect(timed.code).toBe(0)
    expect(JSON.parse(timed.stdout)).toMatchObject({
      checked: 0,
      rows: [],
      speeds: [{ bench: 'e.decode' }, { bench: 'e.decode' }],
    })
    const absent = await halfstep(['bench', '--model', 'absent.gguf'])
    expect(absent.code).toBe(1)
    expect(absent.stderr).toMatch(/^error ERR_IO: .*absent\.gguf/m)
  })

  it('doctor finds the addon', async () => {
    const { code, stdout } = await halfstep(['doctor'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^native addon +found$/m)
    for (const line of lines(stdout)) expect(line.length).toBeLessThanOrEqual(80)
    expect(JSON.parse((await halfstep(['doctor', '--json'])).stdout)).toMatchObject({
      build: 'native',
      threads: expect.any(Number),
    })
  })
})
