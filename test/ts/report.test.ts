/** The report of a real run: its data, and its page as a browser shows it. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Page } from 'playwright-core'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  Model,
  quantize,
  type Report,
  recipes,
  reportPage,
  type SaveReport,
} from '../../ts/src/index.js'
import { browserPath, launch } from '../browser.js'
import { temporaryFolder } from './tiny-model.js'

const cli = fileURLToPath(new URL('../../ts/dist/cli.js', import.meta.url))
const assets = fileURLToPath(new URL('../../assets/', import.meta.url))
const [demo, data, validation] = ['demo', 'demo-train.txt', 'demo-eval.txt'].map((name) =>
  join(assets, name),
) as [string, string, string]
const folder = temporaryFolder()
const page = join(folder, 'report.html')
const COMMON = ['quantize', demo, '--data', data, '-o', 'small.safetensors']
const RUN = [
  '--recipe',
  'apiq',
  '--samples',
  '4',
  '--sequence-length',
  '64',
  '--epochs',
  '2',
  '--validation',
  validation,
  '--validation-tokens',
  '256',
]
/** Where screenshots are kept to be looked at, if anywhere. */
const SCREENSHOTS = process.env.HALFSTEP_SCREENSHOTS

function halfstep(
  args: string[],
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [cli, ...args], { cwd: folder })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (piece) => (stdout += piece))
    child.stderr.on('data', (piece) => (stderr += piece))
    child.on('close', (code) => done({ code, stdout, stderr }))
  })
}

let report: Report
let file: SaveReport
let layers: number

beforeAll(async () => {
  const { code, stderr, stdout } = await halfstep([...COMMON, ...RUN, '--report', page])
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/^report +.*report\.html$/m)
  ;({ report, file } = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as {
    report: Report
    file: SaveReport
  })
  layers = (await Model.load(demo)).inspect().layers
})

describe('the data of a report', () => {
  it('holds settings, the table with file sizes, and a record of every layer and matrix', () => {
    const record = report.record
    if (!record) throw new Error('no record')
    expect(record.settings).toMatchObject({
      seed: 0,
      recipe: { id: 'apiq', stages: [{ scope: 'block' }] },
      data: expect.stringMatching(/^blake3:[0-9a-f]{64}$/),
    })
    expect(record.table.map(({ subject }) => subject)).toEqual(['fp', 'rtn', 'result'])
    expect(record.table[2]).toMatchObject({
      bytes: statSync(join(folder, 'small.safetensors')).size,
      bitsPerWeight: report.bitsPerWeight,
    })
    expect(file.bytes).toBe(record.table[2]?.bytes)
    expect(record.table[1]?.bytes).toBeLessThan(record.table[0]?.bytes ?? 0)
    expect(record.table.every(({ evaluation }) => evaluation !== null)).toBe(true)
    const [stage] = record.stages
    expect(stage?.blocks.map(({ block, losses }) => [block, losses.length])).toEqual(
      Array.from({ length: layers }, (_, block) => [block, 8]),
    )
    expect(record.blockKl).toHaveLength(layers)
    expect(Math.min(...record.blockKl)).toBeGreaterThan(0)
    expect(record.matrices).toHaveLength(7 * layers)
    for (const { clipFraction, scaleDrift, saliency } of record.matrices) {
      expect(clipFraction).toBeGreaterThanOrEqual(0)
      expect(clipFraction).toBeLessThan(0.5)
      expect(scaleDrift).toBeGreaterThan(0)
      expect(saliency).toBeGreaterThan(0)
    }
  })

  it('is there for rounding and for training end to end, and only if asked for', async () => {
    const model = await Model.load(demo)
    const rounded = (
      await quantize(
        model,
        recipes.rtn({ target: 'halfstep', weights: 3, observer: 'errorSearch' }),
        {
          record: true,
        },
      ).result
    ).report
    expect(rounded.record).toMatchObject({
      stages: [],
      blockKl: [],
      settings: { seed: null, data: null },
    })
    expect(
      rounded.record?.matrices.some(
        ({ clipFraction }) => clipFraction !== null && clipFraction > 0,
      ),
    ).toBe(true)
    expect(
      rounded.record?.matrices.every(
        ({ scaleDrift, saliency }) => scaleDrift === null && saliency === null,
      ),
    ).toBe(true)
    const train = { tokens: 384, sequenceLength: 32, batch: 4 }
    const trained = (
      await quantize(model, recipes.silq({ target: 'gguf:q4_0', train }), { data, record: true })
        .result
    ).report
    expect(trained.record?.stages[0]).toMatchObject({ firstStep: 0, blocks: [] })
    expect(trained.record?.stages[0]?.losses).toHaveLength(3)
    expect(
      trained.record?.matrices.every(
        ({ scaleDrift, saliency }) => scaleDrift !== null && saliency !== null,
      ),
    ).toBe(true)
    for (const made of [rounded, trained])
      expect(reportPage(made)).toContain('There was no validation text')
    const { report: silent } = await quantize(model, recipes.rtn()).result
    expect(silent.record).toBeUndefined()
    expect(() => reportPage(silent)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
  })
})

describe('--report', () => {
  it.each([
    ['page.txt', 'ERR_CONFIG', '.html'],
    [join('no such folder', 'page.html'), 'ERR_IO', 'the folder does not exist'],
  ])('refuses %s before the run', async (path, code, words) => {
    const ended = await halfstep([...COMMON, ...RUN, '-o', 'never.safetensors', '--report', path])
    expect(ended.code).toBe(1)
    expect(ended.stderr).toMatch(new RegExp(`^error ${code}: .*${words.replace('.', '\\.')}`))
    expect(existsSync(join(folder, 'never.safetensors'))).toBe(false)
  })
})

/** Texts of a chart that leave it or lie over one another. */
const MISPLACED = `[...document.querySelectorAll('svg')].flatMap((svg) => {
  const frame = svg.getBoundingClientRect()
  const texts = [...svg.querySelectorAll('text')]
    .map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }))
  const outside = texts.filter(({ box }) => box.left < frame.left - 1 ||
    box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
  const overlap = (a, b) => a.left < b.right && b.left < a.right &&
    a.top < b.bottom - 2 && b.top < a.bottom - 2
  const over = texts.filter(({ box }, i) =>
    texts.some((other, j) => i < j && overlap(box, other.box)))
  return [...outside, ...over].map(({ text }) => text)
})`
/** Whatever sticks out to the right. */
const OVERFLOWING = `[...document.querySelectorAll('body *')]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest('.scroll'))
  .map((e) => e.outerHTML.slice(0, 80))`

describe.skipIf(browserPath === undefined)('the page in a browser', () => {
  async function shown(work: (page: Page, complaints: string[]) => Promise<void>): Promise<void> {
    const browser = await launch()
    try {
      const shown = await browser.newPage({ viewport: { width: 800, height: 1000 } })
      const complaints: string[] = []
      shown.on('pageerror', (error) => complaints.push(error.message))
      shown.on(
        'console',
        (message) =>
          (message.type() === 'error' || message.type() === 'warning') &&
          complaints.push(message.text()),
      )
      shown.on(
        'request',
        (request) =>
          !/^(file|data):/.test(request.url()) && complaints.push(`asked for ${request.url()}`),
      )
      await shown.goto(pathToFileURL(page).href)
      await work(shown, complaints)
    } finally {
      await browser.close()
    }
  }

  it('shows a mark for every block, overflows nowhere and asks for nothing', () =>
    shown(async (shown, complaints) => {
      const count = (selector: string) => shown.locator(selector).count()
      expect(await count('#blocks-0 g.block')).toBe(layers)
      expect(await count('#steps-0 polyline')).toBe(1)
      expect(await count('#block-kl rect.bar')).toBe(layers)
      for (const strip of ['#clip', '#drift', '#saliency'])
        expect(await count(`${strip} rect.cell:has(title)`)).toBe(7 * layers)
      expect(await count('svg')).toBe(6)
      expect(await count('svg[role=img][aria-label] > desc')).toBe(6)
      expect(await count('svg text.name')).toBeGreaterThanOrEqual(12)
      expect(await count('tr.result')).toBe(1)
      await shown.evaluate(
        `document.querySelectorAll('details').forEach((details) => { details.open = true })`,
      )
      for (const width of [800, 1280]) {
        await shown.setViewportSize({ width, height: 1000 })
        expect(await shown.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(
          width,
        )
        expect(await shown.evaluate(OVERFLOWING)).toEqual([])
        expect(await shown.evaluate(MISPLACED)).toEqual([])
      }
      // On a phone what is wider than the page scrolls inside it.
      await shown.setViewportSize({ width: 360, height: 800 })
      expect(await shown.evaluate('document.documentElement.scrollWidth')).toBe(360)
      expect(complaints).toEqual([])
    }))

  it('is dark for who wants it dark, and light on paper', () =>
    shown(async (shown) => {
      const paper = () => shown.evaluate('getComputedStyle(document.body).backgroundColor')
      for (const [name, media, color] of [
        ['light', { colorScheme: 'light' }, 'rgb(255, 255, 255)'],
        ['dark', { colorScheme: 'dark' }, 'rgb(14, 17, 22)'],
        ['paper', { colorScheme: 'dark', media: 'print' }, 'rgb(255, 255, 255)'],
      ] as const) {
        await shown.emulateMedia(media)
        expect(await paper()).toBe(color)
        if (SCREENSHOTS)
          await shown.screenshot({ path: join(SCREENSHOTS, `report-${name}.png`), fullPage: true })
      }
    }))
})
