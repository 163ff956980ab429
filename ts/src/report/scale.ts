/** From values to places along an axis. */
export interface Scale {
  /** 0 at the axis' beginning, 1 at its end. */
  at(value: number): number
  /** Round values to label. */
  ticks: number[]
  kind: 'linear' | 'log'
}

/** Beyond this ratio of the largest to the smallest value an axis counts in powers of ten. */
const LOG_RATIO = 20

/** An axis from 0 over all values. */
export function linearScale(values: readonly number[], wanted = 5): Scale {
  const step = niceStep(Math.max(0, ...values) || 1, wanted)
  const most = step * Math.ceil((Math.max(0, ...values) || step) / step - 1e-9)
  const least = step * Math.floor(Math.min(0, ...values) / step + 1e-9)
  const ticks = Array.from(
    { length: Math.round((most - least) / step) + 1 },
    (_, i) => least + i * step,
  )
  return { at: (value) => (value - least) / (most - least), ticks, kind: 'linear' }
}

/** An axis in powers of ten over the positive values. */
export function logScale(values: readonly number[]): Scale {
  const logs = values.filter((value) => value > 0).map(Math.log10)
  if (logs.length === 0) return linearScale(values)
  const [low, high] = [Math.min(...logs), Math.max(...logs)]
  const steps = high - low > 3 ? [1] : [1, 2, 5]
  const marks = Array.from(
    { length: Math.ceil(high) - Math.floor(low) + 1 },
    (_, i) => Math.floor(low) + i,
  ).flatMap((power) => steps.map((m) => m * 10 ** power))
  const least =
    marks.filter((mark) => Math.log10(mark) <= low + 1e-9).at(-1) ?? 10 ** Math.floor(low)
  const most = marks.find((mark) => Math.log10(mark) >= high - 1e-9 && mark > least) ?? least * 10
  const [from, to] = [Math.log10(least), Math.log10(most)]
  const at = (value: number) => (value > 0 ? (Math.log10(value) - from) / (to - from) : 0)
  return {
    at,
    ticks: marks.filter((mark) => mark >= least * (1 - 1e-9) && mark <= most * (1 + 1e-9)),
    kind: 'log',
  }
}

/** Powers of ten where the values span many, else from 0. */
export function fittingScale(values: readonly number[]): Scale {
  const positive = values.every((value) => value > 0)
  return positive && Math.max(...values) > LOG_RATIO * Math.min(...values)
    ? logScale(values)
    : linearScale(values)
}

/** 1, 2 or 5 times a power of ten, so that about `wanted` of them make `range`. */
function niceStep(range: number, wanted: number): number {
  const power = 10 ** Math.floor(Math.log10(range / wanted))
  return power * ([1, 2, 5].find((m) => range / (m * power) <= wanted) ?? 10)
}

/** At most `wanted` of the numbers 0 to n - 1, evenly spaced. */
export function spaced(n: number, wanted: number): number[] {
  const step =
    [1, 2, 5, 10, 20, 50, 100].find((step) => n / step <= wanted) ?? Math.ceil(n / wanted)
  return Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step)
}

/** Three significant digits, without a tail of noughts: 0.00123, 45.6, 1.2e-7. */
export function short(value: number): string {
  if (value === 0) return '0'
  const size = Math.abs(value)
  if (size >= 1e5 || size < 1e-3)
    return value
      .toExponential(2)
      .replace(/\.?0+e/, 'e')
      .replace('e+', 'e')
  const text = value.toPrecision(3)
  return String(Number(text))
}
