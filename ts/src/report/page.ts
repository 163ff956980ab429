import { exactly, plainObject, refusal } from '../arguments.js'
import { calibrationOf } from '../cli/experts.js'
import { formatBytes, formatNumber, formatSeconds } from '../cli/format.js'
import type {
  MatrixRecord,
  Report,
  RunRecord,
  SaveReport,
  StageRecord,
} from '../generated/types.js'
import { bars, dumbbells, escaped, lineChart, strip, type Words } from './charts.js'
import { short } from './scale.js'
import { STYLE } from './style.js'

/** Rows of a strip, in the order of the forward. */
const LINEARS = [
  'self_attn.q_proj',
  'self_attn.k_proj',
  'self_attn.v_proj',
  'self_attn.o_proj',
  'mlp.gate_proj',
  'mlp.up_proj',
  'mlp.down_proj',
]
/** More of them where layers have experts: means over the experts of a layer, and the shared one. */
const OF_EXPERTS = ['mlp.experts', 'mlp.shared_expert'].flatMap((of) =>
  ['gate_proj', 'up_proj', 'down_proj'].map((part) => `${of}.${part}`),
)
const SUBJECTS: Record<string, string> = {
  fp: 'full precision',
  rtn: 'rounded to nearest',
  result: 'result',
}

const shortName = (linear: string) =>
  linear
    .replace(/^mlp\.(experts|shared)[^.]*\./, '$1 ')
    .replace(/^.*\./, '')
    .replace('_proj', '')
/** The row of a linear: experts share one. */
const rowOf = (linear: string) => linear.replace(/\.experts\.\d+\./, '.experts.')
const percent = (share: number) => `${short(share * 100)} %`

/**
 * A run's report as one HTML page that needs nothing else: settings, the table of models, losses,
 * and what became of every block and matrix. For a run with
 * `record: true`; `ERR_CONFIG` without.
 */
export function reportPage(report: Report, file?: SaveReport): string {
  const { record } = plainObject('report', report)
  if (record === undefined)
    throw refusal('record', 'the run has no record; run it with record: true')
  const title = `${record.settings.model}, ${report.recipe} for ${report.target}`
  const sections = [
    settings(report, record, file),
    table(record),
    ...losses(record),
    experts(report),
    blockKl(record),
    ...matrices(record),
  ]
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="halfstep ${escaped(record.settings.version)}">
<title>${escaped(title)}</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
<p class="faint">${escaped(summary(report, record))}</p>
${sections.filter((section) => section !== '').join('\n')}
<footer>Written by halfstep ${escaped(record.settings.version)}.
The data of this page are in the .json file next to it.</footer>
</main>
</body>
</html>
`
}

function summary(report: Report, record: RunRecord): string {
  const found = (subject: string) => record.table.find((row) => row.subject === subject)?.evaluation
  const [fp, rtn, result] = ['fp', 'rtn', 'result'].map(found)
  const bits = `${report.bitsPerWeight.toFixed(3)} bits per weight in the linears of the layers`
  if (!fp || !result) return `${bits}. The model was not measured on a text.`
  const [full, small] = [fp, result].map(({ perplexity }) => formatNumber(perplexity, 3))
  const rounded = rtn ? `, rounded to nearest ${formatNumber(rtn.perplexity, 3)}` : ''
  return `${bits}. Perplexity ${small} (full precision ${full}${rounded}).`
}

function settings(report: Report, record: RunRecord, file?: SaveReport): string {
  const { model, version, recipe, seed, data } = record.settings
  const parity = file?.parity ? '; read again, it equals the model in memory' : ''
  const bits = report.bitsPerWeight.toFixed(3)
  const speed = `${formatNumber(report.tokensPerSecond, 1)} tokens/s`
  const training = `${report.steps} steps, ${report.tokens} tokens, ${speed}`
  const pairs: [string, string | null][] = [
    ['model', model],
    ['recipe', `${report.recipe} for ${report.target}`],
    ['file', file ? `${file.path}, ${formatBytes(file.bytes)}${parity}` : null],
    ['bits per weight', `${bits} in the linears of the layers, scales and factors included`],
    ['training', report.steps > 0 ? training : 'none'],
    ['experts', calibrationOf(report.experts)],
    ['time', formatSeconds(report.seconds)],
    ['peak memory', report.memoryBytes > 0 ? formatBytes(report.memoryBytes) : null],
    ['seed', seed === null ? null : String(seed)],
    ['training text', data],
    ['run it with', report.clientFlags.length > 0 ? report.clientFlags.join(' ') : null],
    ['halfstep', version],
  ]
  const rows = pairs.flatMap(([name, value]) =>
    value === null ? [] : [`<tr><td>${name}</td><td>${escaped(value)}</td></tr>`],
  )
  const json = escaped(JSON.stringify(recipe, exactly, 2))
  return [
    `<h2>Settings</h2>\n<table class="pairs">${rows.join('\n')}</table>`,
    `<details><summary>the whole recipe</summary><pre>${json}</pre></details>`,
  ].join('\n')
}

function table(record: RunRecord): string {
  const header = ['', 'file, bytes', 'bits per weight', 'perplexity', 'KL, nats', 'top-1, %']
  const rows = record.table.map(({ subject, bytes, bitsPerWeight, evaluation }) => [
    SUBJECTS[subject] ?? subject,
    bytes.toLocaleString('en'),
    formatNumber(bitsPerWeight, 3),
    formatNumber(evaluation?.perplexity, 3),
    formatNumber(evaluation?.kl, 4),
    formatNumber(
      evaluation?.top1Agreement === null ? null : (evaluation?.top1Agreement ?? Number.NaN) * 100,
      2,
    ).replace('NaN', '-'),
  ])
  const measured = record.table.find((row) => row.evaluation)?.evaluation
  const predictions = measured?.predictions
  const read = (measured?.reading?.notes ?? []).map((note) => `${escaped(note)}.`).join(' ')
  const notes = [
    predictions === undefined
      ? 'There was no validation text.'
      : `Measured over ${predictions.toLocaleString('en')} predictions on the validation text;
KL and top-1 agreement are with full precision. ${read}`,
  ]
  if (record.table.some(({ subject }) => subject === 'rtn'))
    notes.push(`Rounding to nearest is on the grid of the result; if that has low-rank factors, in
smaller groups, so that both files have about the same size.`)
  return [
    '<h2>Full precision, rounding and the result</h2>',
    `<p class="faint">${notes.join(' ')}</p>`,
    `<div class="scroll">${htmlTable(header, rows, 'result')}</div>`,
  ].join('\n')
}

/** A remark in the place of a chart. */
const faint = (text: string) => `<p class="faint">${text}</p>`

/** `last`: the class of the last row. */
function htmlTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  last = '',
): string {
  const line = (cells: readonly string[], tag: string) =>
    cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join('')
  const body = rows.map(
    (cells, i) =>
      `<tr${last && i === rows.length - 1 ? ` class="${last}"` : ''}>${line(cells, 'td')}</tr>`,
  )
  const head = `<thead><tr>${line(header, 'th')}</tr></thead>`
  return `<table>${head}<tbody>\n${body.join('\n')}\n</tbody></table>`
}

function figure(id: string, caption: string, chart: string, numbers: string): string {
  return [
    `<figure id="${id}"><figcaption>${escaped(caption)}</figcaption>`,
    chart,
    `<details><summary>the numbers</summary><div class="scroll">${numbers}</div></details>`,
    '</figure>',
  ].join('\n')
}

function losses({ stages }: RunRecord): string[] {
  return stages.map((stage, i) => {
    const name = stages.length > 1 ? `Loss, stage ${i + 1}` : 'Loss'
    const charts = stage.blocks.length > 0 ? blockLosses(stage, i) : stepLosses(stage, i)
    return `<h2>${name}</h2>\n${charts}`
  })
}

function stepLosses({ losses, firstStep }: StageRecord, stage: number): string {
  if (losses.length === 0)
    return faint('This part of the run had no step left: it was resumed after the last one.')
  const [first, last] = [losses[0] ?? 0, losses.at(-1) ?? 0]
  const lastStep = firstStep + losses.length
  const words = {
    title: 'Loss by step',
    description: `Steps ${firstStep + 1} to ${lastStep}, from ${short(first)} to ${short(last)}.`,
  }
  const numbers = htmlTable(
    ['step', 'loss, nats per token'],
    losses.map((loss, i) => [String(firstStep + i + 1), short(loss)]),
  )
  return figure(
    `steps-${stage}`,
    'Loss of every step, on its batch and before its update.',
    lineChart(words, losses, firstStep, 'nats per token'),
    numbers,
  )
}

function blockLosses({ blocks }: StageRecord, stage: number): string {
  const fell = blocks.filter(({ firstLoss, lastLoss }) => lastLoss < firstLoss).length
  const words = {
    title: 'Loss by layer',
    description: `First and last pass; it fell in ${fell} of ${blocks.length} layers.`,
  }
  const numbers = htmlTable(
    ['layer', 'first pass', 'last pass', 'last / first'],
    blocks.map(({ block, firstLoss, lastLoss }) => [
      String(block),
      short(firstLoss),
      short(lastLoss),
      short(lastLoss / firstLoss),
    ]),
  )
  const all = blocks.flatMap(({ losses }) => losses)
  const steps = { title: 'Loss by step', description: `Of ${all.length} steps, layer after layer.` }
  const unit = 'squared difference'
  return [
    figure(
      `blocks-${stage}`,
      'Each layer, from the first (hollow) to the last (full) pass through the samples.',
      dumbbells(words, blocks, unit),
      numbers,
    ),
    all.length > 0
      ? [
          `<figure id="steps-${stage}"><figcaption>Every step, layer after layer.</figcaption>`,
          `${lineChart(steps, all, 0, unit)}</figure>`,
        ].join('\n')
      : '',
  ].join('\n')
}

function experts({ experts: records = [] }: Report): string {
  if (records.length === 0) return ''
  const header = ['layer', 'experts', 'fewest rows', 'most rows', 'filled up']
  const rows = records.map((record) => [
    String(record.block),
    String(record.experts),
    record.leastRows.toLocaleString('en'),
    record.mostRows.toLocaleString('en'),
    `${record.toppedUp} to ${record.floor}`,
  ])
  const caption = `Rows of calibration that the router sends the experts of a layer. Those that get
few see other rows in addition, all equally likely.`
  return [
    '<h2>Calibration of the experts</h2>',
    faint(caption),
    `<div class="scroll">${htmlTable(header, rows)}</div>`,
  ].join('\n')
}

function blockKl({ blockKl, blockKlTokens }: RunRecord): string {
  if (blockKl.length === 0)
    return `<h2>Effect of each layer</h2>\n${faint('Not measured: there was no validation text.')}`
  const most = blockKl.indexOf(Math.max(...blockKl))
  const largest = `the largest is ${short(blockKl[most] ?? 0)} nats, of layer ${most}`
  const words = {
    title: 'KL by layer',
    description: `KL to full precision with one layer quantized; ${largest}.`,
  }
  const numbers = htmlTable(
    ['layer', 'KL, nats'],
    blockKl.map((kl, block) => [String(block), short(kl)]),
  )
  const caption = `KL to full precision if only this layer is quantized, over ${blockKlTokens}
tokens; the cache is not quantized.`
  const chart = figure('block-kl', caption, bars(words, blockKl, 'KL, nats'), numbers)
  return `<h2>Effect of each layer</h2>\n${chart}`
}

/** One strip for each of the three figures of a matrix that was found. */
function matrices({ matrices }: RunRecord): string[] {
  const blocks = Math.max(0, ...matrices.map(({ block }) => block + 1))
  const there = new Set(matrices.map(({ linear }) => rowOf(linear)))
  const ofExperts = OF_EXPERTS.filter((linear) => there.has(linear))
  // Without experts every page has the same rows.
  const usual = LINEARS.filter((linear) => ofExperts.length === 0 || there.has(linear))
  const rowsOf = (field: 'clipFraction' | 'scaleDrift' | 'saliency') =>
    [...usual, ...ofExperts].map((linear) => {
      const own = matrices.filter((matrix) => rowOf(matrix.linear) === linear)
      return {
        name: shortName(linear),
        values: Array.from({ length: blocks }, (_, block) => figureOf(own, block, field)),
      }
    })
  const section = (
    id: string,
    heading: string,
    caption: string,
    field: 'clipFraction' | 'scaleDrift' | 'saliency',
    kind: 'linear' | 'log',
    show: (value: number) => string,
    legend: string,
  ) => {
    const rows = rowsOf(field)
    const found = rows.flatMap(({ values }) => values.filter((value) => value !== null))
    if (found.length === 0) return `<h2>${heading}</h2>\n${faint('Not measured in this run.')}`
    const [least, most] = [show(Math.min(...found)), show(Math.max(...found))]
    const words: Words = {
      title: heading,
      description: `By layer and linear, from ${least} to ${most}.`,
    }
    const numbers = htmlTable(
      ['layer', ...rows.map(({ name }) => name)],
      Array.from({ length: blocks }, (_, block) => [
        String(block),
        ...rows.map(({ values }) => (values[block] == null ? '-' : show(values[block] as number))),
      ]),
    )
    const chart = strip(words, rows, kind, show, legend)
    return `<h2>${heading}</h2>\n${figure(id, caption, chart, numbers)}`
  }
  const times = (value: number) => `${short(value)}x`
  return [
    section(
      'clip',
      'Clipped weights',
      'Share of the weights outside the limits of their grid, clipped to its last codes.',
      'clipFraction',
      'linear',
      percent,
      'clipped, % of weights',
    ),
    section(
      'drift',
      'Change of the scales',
      'Mean of |end / start - 1| over the scales of a matrix.',
      'scaleDrift',
      'linear',
      percent,
      'change, % of the initial scale',
    ),
    section(
      'saliency',
      'Saliency',
      'Mean squared gradient of the unquantized weights, over that of all linears.',
      'saliency',
      'log',
      times,
      'times the mean',
    ),
  ]
}

/** The mean over the matrices of a row; null if it was measured of none. */
function figureOf(
  matrices: readonly MatrixRecord[],
  block: number,
  field: 'clipFraction' | 'scaleDrift' | 'saliency',
): number | null {
  const own = matrices.filter((matrix) => matrix.block === block)
  const values = own.map((matrix) => matrix[field]).filter((value) => value !== null)
  return values.length > 0 ? values.reduce((a, b) => a + b) / values.length : null
}
