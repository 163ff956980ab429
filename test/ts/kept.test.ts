/**
 * No run is lost, as a user of the command line sees it: whatever ends a run leaves its state, what
 * only looks at it (a pipe, a full log) does not end it, and exit code 0 means that the file is
 * there.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const root = fileURLToPath(new URL('../../', import.meta.url))
const cli = join(root, 'ts/dist/cli.js')
const folder = temporaryFolder()
const [path, data] = [tinyModel(folder), tinyText(folder)]
const TRAIN = ['--tokens', '16384', '--sequence-length', '32', '--learning-rate', '1e-3']
const args = (output: string, ...more: string[]) => [
  ...['quantize', path, '--data', data, '--json', ...TRAIN, '-o', output],
  ...more,
]

interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs the command line; `during` gets the process with all it has written so far. */
function halfstep(
  words: string[],
  during?: (child: ChildProcess, stdout: string) => void,
  stdio: StdioOptions = 'pipe',
): Promise<Ended> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [cli, ...words], { cwd: folder, stdio })
    let [stdout, stderr] = ['', '']
    child.stdout?.on('data', (piece) => {
      stdout += piece
      during?.(child, stdout)
    })
    child.stderr?.on('data', (piece) => (stderr += piece))
    child.on('close', (code) => done({ code, stdout, stderr }))
  })
}

/** Does something once, when the run has made some steps. */
function once(act: (child: ChildProcess) => void) {
  let done = false
  return (child: ChildProcess, stdout: string) => {
    if (done || !stdout.includes('"step":3,')) return
    done = true
    act(child)
  }
}

const file = (name: string) => readFileSync(join(folder, name))
const count = (stdout: string, kind: string) => stdout.split(`"kind":"${kind}"`).length - 1
let whole: Buffer
beforeAll(async () => {
  expect((await halfstep(args('whole.gguf'))).code).toBe(0)
  whole = file('whole.gguf')
})

describe('a run that is ended', () => {
  const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

  it.each(SIGNALS)('by %s keeps its state and goes on to the same bytes', async (signal) => {
    const name = `${signal}.gguf`
    const stopped = await halfstep(
      args(name),
      once((child) => child.kill(signal)),
    )
    expect({ code: stopped.code, file: existsSync(join(folder, name)) }).toEqual({
      code: 130,
      file: false,
    })
    expect(stopped.stderr).toContain(`state saved in ${name}.run`)
    const resumed = await halfstep(args(name, '--resume'))
    expect(resumed.code).toBe(0)
    expect(count(resumed.stdout, 'step')).toBeLessThan(count(stopped.stdout, 'step') + 128)
    expect(file(name).equals(whole)).toBe(true)
  })

  it('by a second signal ends at once', async () => {
    const twice = (child: ChildProcess) => {
      child.kill('SIGHUP')
      child.stderr?.once('data', () => child.kill('SIGTERM'))
    }
    const { code } = await halfstep(args('twice.gguf'), once(twice))
    expect({ code, file: existsSync(join(folder, 'twice.gguf')) }).toEqual({
      code: 130,
      file: false,
    })
  })

  it('by SIGKILL or process.exit goes on from its last checkpoint', async () => {
    const killed = await halfstep(
      args('killed.gguf', '--checkpoint-every', '1'),
      once((child) => child.kill('SIGKILL')),
    )
    expect(killed.code).toBe(null)
    const resumed = await halfstep(args('killed.gguf', '--resume'))
    expect({ code: resumed.code, first: /"step":(\d+)/.exec(resumed.stdout)?.[1] }).not.toEqual({
      code: 0,
      first: '1',
    })
    expect(file('killed.gguf').equals(whole)).toBe(true)
    const script = `import { Model, quantize, recipes } from 'halfstep'
const [path, data, runFolder, end] = process.argv.slice(1)
const recipe = recipes.silq({ train: { tokens: 16384, sequenceLength: 32, learningRate: 1e-3 } })
const run = quantize(await Model.load(path), recipe, { data, runFolder, checkpointEvery: 1, resume: end === '' })
for await (const event of run) if (end !== '' && event.kind === 'step' && event.step === 5) process.exit(7)
await (await run.result).model.save(runFolder + '.gguf')`
    const node = (end: string) =>
      new Promise<number | null>((done) => {
        const words = ['--input-type=module', '-e', script, path, data, join(folder, 'exit'), end]
        spawn(process.execPath, words, { cwd: root, stdio: 'ignore' }).on('close', done)
      })
    expect([await node('end'), existsSync(join(folder, 'exit.gguf'))]).toEqual([7, false])
    expect([await node(''), existsSync(join(folder, 'exit.gguf'))]).toEqual([0, true])
  })
})

describe('a run whose output nobody takes', () => {
  it('goes on when the reader closes the pipe', async () => {
    const { code } = await halfstep(
      args('head.gguf'),
      once((child) => child.stdout?.destroy()),
    )
    expect({ code, same: file('head.gguf').equals(whole) }).toEqual({ code: 0, same: true })
  })

  it('goes on when both pipes are closed, and after SIGPIPE', async () => {
    const close = (child: ChildProcess) => {
      child.stderr?.destroy()
      child.stdout?.destroy()
      child.kill('SIGPIPE')
    }
    const { code } = await halfstep(args('closed.gguf'), once(close))
    expect({ code, same: file('closed.gguf').equals(whole) }).toEqual({ code: 0, same: true })
  })

  it.skipIf(!existsSync('/dev/full'))('goes on when stdout and stderr are full', async () => {
    const full = openSync('/dev/full', 'w')
    for (const [name, stdio, quiet] of [
      ['full-out.gguf', ['ignore', full, 'pipe'], true],
      ['full-err.gguf', ['ignore', 'pipe', full], false],
      ['full-both.gguf', ['ignore', full, full], false],
    ] as const) {
      const words = quiet ? args(name) : args(name).filter((word) => word !== '--json')
      const { code } = await halfstep(words, undefined, [...stdio])
      expect({ name, code, same: file(name).equals(whole) }).toEqual({ name, code: 0, same: true })
    }
    // A command that only prints has failed then.
    expect((await halfstep(['doctor'], undefined, ['ignore', full, 'pipe'])).code).toBe(1)
    closeSync(full)
  })

  it('goes on when the reader stops reading', async () => {
    const name = 'stalled.gguf'
    const words = args(name).map((word) => (word === '16384' ? '131072' : word))
    const child = spawn(process.execPath, [cli, ...words], { cwd: folder, stdio: 'pipe' })
    const ended = new Promise((done) => child.on('close', done))
    // Over a thousand steps are more than a pipe holds.
    while (!existsSync(join(folder, name)) && child.exitCode === null)
      await new Promise((done) => setTimeout(done, 50))
    expect({ code: child.exitCode, file: existsSync(join(folder, name)) }).toEqual({
      code: null,
      file: true,
    })
    child.stdout.resume()
    child.stderr.resume()
    expect(await ended).toBe(0)
  })

  it('goes on when both are closed from the beginning', async () => {
    const words = args('none.gguf').map((word) => `'${word}'`)
    const line = `exec '${process.execPath}' '${cli}' ${words.join(' ')} >&- 2>&-`
    const code = await new Promise((done) =>
      spawn('sh', ['-c', line], { cwd: folder, stdio: 'ignore' }).on('close', done),
    )
    expect({ code, same: file('none.gguf').equals(whole) }).toEqual({ code: 0, same: true })
  })
})

describe('a finished training whose file cannot be written', () => {
  it('is kept, and --resume only writes it', async () => {
    mkdirSync(join(folder, 'gone'))
    const words = args('gone/small.gguf', '--run-folder', 'kept')
    const lost = await halfstep(
      words,
      once(() => rmSync(join(folder, 'gone'), { recursive: true })),
    )
    expect(lost.code).toBe(1)
    expect(lost.stderr).toMatch(/the training is kept in kept; .*--resume/)
    expect(lost.stderr).toMatch(/error ERR_IO: .*gone/)
    mkdirSync(join(folder, 'gone'))
    const again = await halfstep([...words, '--resume'])
    expect({ code: again.code, steps: count(again.stdout, 'step') }).toEqual({ code: 0, steps: 0 })
    expect(file('gone/small.gguf').equals(whole)).toBe(true)
  })

  it('is not kept once the file is there', () => {
    expect(readdirSync(folder).filter((name) => name.endsWith('.run'))).toEqual(['twice.gguf.run'])
  })
})

describe('what is there already', () => {
  const rtn = (model: string, output: string, ...more: string[]) =>
    halfstep(['quantize', model, '--recipe', 'rtn', '-o', output, ...more])

  it('is replaced only with --overwrite', async () => {
    expect((await rtn(path, 'first.gguf')).code).toBe(0)
    writeFileSync(join(folder, 'precious.gguf'), 'precious')
    writeFileSync(join(folder, 'page.json'), 'precious')
    copyFileSync(join(folder, 'first.gguf'), join(folder, 'source.gguf'))
    const before = file('source.gguf')
    const refused: [string, string, string[], RegExp][] = [
      [path, 'precious.gguf', [], /ERR_CONFIG: --output: precious\.gguf is there already/],
      [path, 'second.gguf', ['--report', 'page.html'], /--report: page\.json is there already/],
      ['source.gguf', './source.gguf', [], /--output: .*is the model itself/],
      [path, join(path, 'small.gguf'), [], /--output: .*folder of the model/],
    ]
    for (const [model, output, more, words] of refused) {
      const { code, stderr } = await rtn(model, output, ...more)
      expect({ output, code }).toEqual({ output, code: 1 })
      expect(stderr).toMatch(words)
    }
    console.log(`${refused.length} outputs refused that are there already`)
    expect([file('precious.gguf').toString(), file('page.json').toString()]).toEqual([
      'precious',
      'precious',
    ])
    expect(file('source.gguf').equals(before)).toBe(true)
    expect(existsSync(join(path, 'small.gguf'))).toBe(false)
    expect((await rtn(path, 'precious.gguf', '--overwrite')).code).toBe(0)
    expect((await rtn('source.gguf', 'source.gguf', '--overwrite')).code).toBe(0)
    expect(file('precious.gguf').equals(file('first.gguf'))).toBe(true)
  })

  it('is no run folder if no run made it', async () => {
    mkdirSync(join(folder, 'home'))
    writeFileSync(join(folder, 'home', 'notes.txt'), 'mine')
    const { code, stderr } = await halfstep(args('new.gguf', '--run-folder', 'home'))
    expect(code).toBe(1)
    expect(stderr).toMatch(/ERR_CONFIG: --run-folder: home is no run folder: it holds notes\.txt/)
    expect(readdirSync(join(folder, 'home'))).toEqual(['notes.txt'])
  })
})
