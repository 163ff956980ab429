// What is to be reached, as ratios within one run on 2 threads, and what a run reached: at most 80
// columns.

const SHOWN = 33

/** Rows of one run, asked by bench, beginning of the case, contender. */
class Rows {
  constructor(rows) {
    this.rows = rows
  }
  all(bench, begin, contender) {
    return this.rows.filter(
      (row) =>
        row.bench === bench && row.case.startsWith(begin) && row.contender.startsWith(contender),
    )
  }
  /** The best figure of those rows, none if there is none. */
  best(bench, begin, contender, key) {
    const found = this.all(bench, begin, contender)
      .map((row) => row[key] ?? Number.NaN)
      .filter(Number.isFinite)
    return found.length > 0 ? Math.max(...found) : undefined
  }
  /** The one case with this name. */
  one(bench, name, contender, key) {
    return this.rows.find(
      (row) => row.bench === bench && row.case === name && row.contender === contender,
    )?.[key]
  }
  probe(name) {
    return this.rows.find((row) => row.bench === 'probe' && row.case === name)?.figure
  }
}

const ratio = (a, b) => (a === undefined || b === undefined ? undefined : a / b)
const step = (rows, who, setting) => rows.best('d.qat', `${setting}/`, who, 'tokensPerSecond')
const matmul = (shape) => (rows) =>
  ratio(
    rows.best('c.matmul', `bf16/forward/${shape}`, 'halfstep', 'gigaoperationsPerSecond'),
    rows.best('c.matmul', `bf16/forward/${shape}`, 'torch', 'gigaoperationsPerSecond'),
  )
const gemm = (format) => (rows) =>
  rows.one('c.gemm', `${format}/m128/2048x8192/hot`, 'halfstep', 'ofBound')
const gemv = (format) => (rows) =>
  rows.one('c.gemv', `${format}/2048x8192/cold`, 'halfstep', 'ofBound')
const ofBound = (bench) => (rows) => rows.one(bench, 'w4-g32/cold', 'halfstep', 'ofBound')
const model = (bench, name) => (rows) =>
  ratio(
    rows.one(bench, name, 'halfstep', 'tokensPerSecond'),
    rows.one(bench, name, 'node-llama-cpp', 'tokensPerSecond'),
  )

/** What, floor, aim, the figure; `less` where less is better. */
const TARGETS = [
  {
    what: 'SiLQ step gguf:q4_0 / PyTorch',
    floor: 1.5,
    aim: 2.2,
    of: (rows) => ratio(step(rows, 'halfstep', 'gguf:q4_0'), step(rows, 'torch', 'gguf:q4_0')),
  },
  {
    what: 'SiLQ step W4A8C8 / PyTorch',
    floor: 1.5,
    aim: 2.2,
    of: (rows) => ratio(step(rows, 'halfstep', 'halfstep'), step(rows, 'torch', 'halfstep')),
  },
  {
    what: 'plain f32 step / PyTorch f32',
    floor: 1.15,
    aim: 1.4,
    of: (rows) => ratio(step(rows, 'halfstep', 'plain'), step(rows, 'torch', 'plain')),
  },
  {
    what: 'SiLQ step / quantizers off, time',
    floor: 1.35,
    aim: 1.15,
    less: true,
    of: (rows) => ratio(step(rows, 'halfstep', 'off'), step(rows, 'halfstep', 'gguf:q4_0')),
  },
  {
    what: 'peak memory of a SiLQ step, GB',
    floor: 4.5,
    aim: 3,
    less: true,
    of: (rows) => ratio(rows.best('d.qat', 'gguf:q4_0/', 'halfstep', 'peakBytes'), 1e9),
  },
  { what: 'bf16 512x576x1536 / PyTorch', floor: 0.8, aim: 1, of: matmul('512x576x1536') },
  { what: 'bf16 2048^3 / PyTorch', floor: 0.8, aim: 1, of: matmul('2048x2048x2048') },
  { what: 'bf16 head / PyTorch', floor: 0.8, aim: 1, of: matmul('2048x576x49152') },
  { what: 'GEMM m128 w4 channel / vpdpbusd', floor: 0.5, aim: 0.7, of: gemm('w4-channel') },
  { what: 'GEMM m128 w4 g128 / vpdpbusd', floor: 0.45, aim: 0.65, of: gemm('w4-g128') },
  { what: 'GEMM m128 w4 g32 a32 / vpdpbusd', floor: 0.35, aim: 0.6, of: gemm('w4-g32-a32') },
  { what: 'GEMV w4 g32 a32 cold / read', floor: 0.8, aim: 0.95, of: gemv('w4-g32-a32') },
  { what: 'GEMV w4 channel cold / read', floor: 0.8, aim: 0.95, of: gemv('w4-channel') },
  { what: 'GEMV w8 g32 a32 cold / read', floor: 0.8, aim: 0.95, of: gemv('w8-g32-a32') },
  { what: 'GEMV w2 g64 cold / read', floor: 0.7, aim: 0.9, of: gemv('w2-g64') },
  { what: 'fake-quant forward / loop', floor: 0.8, aim: 0.95, of: ofBound('b.fq_fwd') },
  { what: 'LSQ backward / loop', floor: 0.8, aim: 0.95, of: ofBound('b.lsq_bwd') },
  { what: 'quantize+pack / loop', floor: 0.8, aim: 0.95, of: ofBound('b.fq_pack') },
  { what: 'decode after 16 / node-llama-cpp', floor: 2, aim: 4, of: model('e.decode', 'after 16') },
  {
    what: 'decode of bandwidth',
    floor: 0.4,
    aim: 0.75,
    of: (rows) =>
      ratio(
        rows.one('e.decode', 'after 16', 'halfstep', 'gigabytesPerSecond'),
        rows.probe('read 512 MiB'),
      ),
  },
  {
    what: 'prefill 512 / node-llama-cpp',
    floor: 1.5,
    aim: 4,
    of: model('e.prefill', '512 tokens'),
  },
  {
    what: 'KL evaluation / PyTorch',
    floor: 1.2,
    aim: 2,
    of: (rows) =>
      ratio(
        rows.best('e.eval', '', 'halfstep', 'tokensPerSecond'),
        rows.best('e.eval', '', 'torch', 'tokensPerSecond'),
      ),
  },
]

/** @param {object[]} rows of one run; a target whose rows it lacks shows a dash */
export function targetsTable(rows) {
  const run = new Rows(rows)
  const line = (what, floor, aim, reached, verdict) =>
    `${what.padEnd(SHOWN)} ${floor.padStart(6)} ${aim.padStart(6)} ${reached.padStart(8)}  ${verdict}`.trimEnd()
  const lines = TARGETS.map(({ what, floor, aim, less, of }) => {
    const reached = of(run)
    if (reached === undefined || !Number.isFinite(reached))
      return line(what, String(floor), String(aim), '-', 'not measured')
    const passes = (bar) => (less ? reached <= bar : reached >= bar)
    return line(
      what,
      String(floor),
      String(aim),
      reached.toFixed(2),
      passes(aim) ? 'aim' : passes(floor) ? 'floor' : 'below',
    )
  })
  return [line('what', 'floor', 'aim', 'reached', ''), ...lines]
}
