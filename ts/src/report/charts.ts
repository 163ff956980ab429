/**
 * Charts as inline SVG: axes with names and units, a title and a description for who does not see
 * them.
 */
import { fittingScale, linearScale, logScale, type Scale, short, spaced } from './scale.js'

export const WIDTH = 720
const HEIGHT = 240
const LEFT = 64
const RIGHT = 12
const TOP = 12
const BOTTOM = 44
const PLOT = { width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM }
/** Points of a line; more than there are pixels for are averaged. */
const MAX_POINTS = 320

export interface Words {
  title: string
  /** What the chart says, in words. */
  description: string
}

/** Escapes text for HTML. */
export function escaped(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
  return text.replace(/[&<>"]/g, (sign) => names[sign] ?? sign)
}

function svg(words: Words, height: number, body: string[]): string {
  const { title, description } = words
  const label = escaped(`${title}. ${description}`)
  return `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${label}">
<title>${escaped(title)}</title><desc>${escaped(description)}</desc>
${body.join('\n')}
</svg>`
}

const text = (x: number, y: number, words: string, attributes = '') =>
  `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escaped(words)}</text>`
const gridLine = (y: number) =>
  `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"/>`
const round = (value: number) => Math.round(value * 100) / 100
const y = (scale: Scale, value: number) => round(TOP + PLOT.height * (1 - scale.at(value)))

/** Lines across at the ticks of the left axis, its numbers and name. */
function leftAxis(scale: Scale, name: string): string[] {
  const lines = scale.ticks.flatMap((tick) => [
    gridLine(y(scale, tick)),
    text(LEFT - 6, y(scale, tick) + 4, short(tick), 'text-anchor="end"'),
  ])
  const middle = TOP + PLOT.height / 2
  return [
    ...lines,
    text(
      14,
      middle,
      name,
      `class="name" text-anchor="middle" transform="rotate(-90 14 ${middle})"`,
    ),
  ]
}

/** Numbers below the plot at places from 0 to 1, and the axis' name. */
function bottomAxis(labels: readonly (readonly [number, string])[], name: string): string[] {
  const numbers = labels.map(([at, label]) =>
    text(LEFT + at * PLOT.width, HEIGHT - BOTTOM + 18, label, 'text-anchor="middle"'),
  )
  return [
    ...numbers,
    text(LEFT + PLOT.width / 2, HEIGHT - 8, name, 'class="name" text-anchor="middle"'),
  ]
}

/** Blocks along the bottom, each in the middle of its share of the width. */
function blockAxis(blocks: number): string[] {
  return bottomAxis(
    spaced(blocks, 16).map((block) => [(block + 0.5) / blocks, String(block)]),
    'layer',
  )
}

/** A loss over steps; `first` is the number of the first one. */
export function lineChart(
  words: Words,
  values: readonly number[],
  first: number,
  unit: string,
): string {
  const size = Math.max(1, Math.ceil(values.length / MAX_POINTS))
  const points = Array.from({ length: Math.ceil(values.length / size) }, (_, i) =>
    values.slice(i * size, (i + 1) * size),
  )
  const means = points.map((part) => part.reduce((a, b) => a + b, 0) / part.length)
  const scale = fittingScale(means)
  const x = (i: number) => LEFT + (means.length === 1 ? 0.5 : i / (means.length - 1)) * PLOT.width
  const places = means.map((mean, i) => `${round(x(i))},${y(scale, mean)}`)
  const last = first + values.length
  const steps = linearScale([values.length], 6).ticks.filter(
    (tick) => Number.isInteger(tick) && tick > 0 && tick <= values.length,
  )
  const labels = steps.map((tick): [number, string] => [
    values.length === 1 ? 0.5 : (tick - 1) / (values.length - 1),
    String(first + tick),
  ])
  const averaged =
    size === 1
      ? `step (${first + 1} to ${last})`
      : `step (${first + 1} to ${last}; each point the mean of ${size})`
  const mark =
    means.length === 1
      ? `<circle class="mark" cx="${round(x(0))}" cy="${y(scale, means[0] ?? 0)}" r="3"/>`
      : `<polyline class="line" points="${places.join(' ')}"/>`
  return svg(words, HEIGHT, [
    ...leftAxis(scale, axisName('loss', unit, scale)),
    ...bottomAxis(labels, averaged),
    mark,
  ])
}

/** From the first to the last loss of every block. */
export function dumbbells(
  words: Words,
  blocks: readonly { block: number; firstLoss: number; lastLoss: number }[],
  unit: string,
): string {
  const scale = fittingScale(blocks.flatMap(({ firstLoss, lastLoss }) => [firstLoss, lastLoss]))
  const marks = blocks.map(({ block, firstLoss, lastLoss }, i) => {
    const [x, from, to] = [
      round(LEFT + ((i + 0.5) / blocks.length) * PLOT.width),
      y(scale, firstLoss),
      y(scale, lastLoss),
    ]
    return [
      `<g class="block"><title>layer ${block}: ${short(firstLoss)} to ${short(lastLoss)}</title>`,
      `<line class="stem" x1="${x}" x2="${x}" y1="${from}" y2="${to}"/>\n`,
      `<circle class="hollow" cx="${x}" cy="${from}" r="4"/>`,
      `<circle class="mark" cx="${x}" cy="${to}" r="4"/></g>`,
    ].join('')
  })
  return svg(words, HEIGHT, [
    ...leftAxis(scale, axisName('loss', unit, scale)),
    ...blockAxis(blocks.length),
    ...marks,
  ])
}

/** One bar for each layer. */
export function bars(words: Words, values: readonly number[], name: string): string {
  const scale = linearScale(values)
  const share = PLOT.width / values.length
  const marks = values.map((value, i) => {
    const [top, bottom] = [y(scale, Math.max(0, value)), y(scale, Math.min(0, value))]
    const width = Math.min(share * 0.7, 48)
    const x = round(LEFT + (i + 0.5) * share - width / 2)
    const size = `width="${round(width)}" height="${round(Math.max(0.5, bottom - top))}"`
    const title = `<title>layer ${i}: ${short(value)}</title>`
    return `<rect class="mark bar" x="${x}" y="${top}" ${size}>${title}</rect>`
  })
  return svg(words, HEIGHT, [...leftAxis(scale, name), ...blockAxis(values.length), ...marks])
}

const ROW = 22
const GAP = 2
/** Opacity of the palest cell. */
const PALE = 0.1

/** One row for each linear and one column for each layer: the darker, the larger. */
export function strip(
  words: Words,
  rows: readonly { name: string; values: readonly (number | null)[] }[],
  kind: Scale['kind'],
  show: (value: number) => string,
  legend: string,
): string {
  const blocks = Math.max(...rows.map(({ values }) => values.length))
  const all = rows.flatMap(({ values }) => values.filter((value) => value !== null))
  const scale = kind === 'log' ? logScale(all) : linearScale(all)
  const share = PLOT.width / blocks
  const depth = (value: number) => round(PALE + (1 - PALE) * scale.at(value))
  const cell = (value: number | null, name: string, block: number, row: number) => {
    const fill =
      value === null ? 'class="cell none"' : `class="cell" fill-opacity="${depth(value)}"`
    const size = `width="${round(share - (share > 8 ? GAP : 0.5))}" height="${ROW - GAP}"`
    const at = `x="${round(LEFT + block * share)}" y="${TOP + row * ROW}"`
    const shown = value === null ? 'none' : show(value)
    return `<rect ${fill} ${at} ${size}><title>layer ${block}, ${name}: ${shown}</title></rect>`
  }
  const bottom = TOP + rows.length * ROW
  const axis = spaced(blocks, 16).map((block) =>
    text(LEFT + (block + 0.5) * share, bottom + 16, String(block), 'text-anchor="middle"'),
  )
  const steps = legendSteps(scale)
  const swatches = steps.flatMap((value, i) => [
    [
      `<rect class="cell" fill-opacity="${depth(value)}"`,
      `x="${LEFT + i * 84}" y="${bottom + 50}" width="18" height="12"/>`,
    ].join(' '),
    text(LEFT + i * 84 + 24, bottom + 60, show(value)),
  ])
  return svg(words, bottom + 70, [
    ...rows.map(({ name }, row) => text(LEFT - 6, TOP + row * ROW + 14, name, 'text-anchor="end"')),
    ...rows.flatMap(({ name, values }, row) =>
      values.map((value, block) => cell(value, name, block, row)),
    ),
    ...axis,
    text(LEFT + PLOT.width / 2, bottom + 34, 'layer', 'class="name" text-anchor="middle"'),
    ...swatches,
    text(WIDTH - RIGHT, bottom + 60, legend, 'class="name" text-anchor="end"'),
  ])
}

/** Up to five of the ticks. */
function legendSteps({ ticks }: Scale): number[] {
  const every = Math.ceil(ticks.length / 5)
  return ticks.filter((_, i) => (ticks.length - 1 - i) % every === 0)
}

function axisName(name: string, unit: string, { kind }: Scale): string {
  return kind === 'log' ? `${name}, ${unit} (log)` : `${name}, ${unit}`
}
