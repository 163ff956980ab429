// d.qat: whole training steps, a process per setting, since the peak of memory is the process's.
import { execFileSync } from 'node:child_process'
import { built } from './kernels.mjs'

const [BATCH, SEQUENCE_LENGTH] = [4, 512]

export async function trainRows({ full, threads, model, text, wants }) {
  const rows = []
  const steps = full ? 7 : 3
  for (const setting of full
    ? ['gguf:q4_0', 'halfstep', 'off', 'plain']
    : ['gguf:q4_0', 'off', 'plain']) {
    if (!wants('d.qat')) continue
    // Whatever the probe finds fastest, but for the plain step, whose peer is f32.
    const arithmetic = setting === 'plain' ? ['f32'] : []
    const program = built('examples', 'step_time')
    rows.push(stepRow(program, { setting, steps, threads, model, text, arithmetic }))
  }
  return rows
}

/** The row of one setting by a program `step_time`, which may be another revision's. */
export function stepRow(program, { setting, steps, threads, model, text, arithmetic = [] }) {
  const args = [model, text, setting, steps, threads, BATCH, ...arithmetic].map(String)
  const output = execFileSync(program, args, { encoding: 'utf8' })
  process.stderr.write(`d.qat      ${output}`)
  const found =
    /in ([a-z0-9, -]+): ([\d.]+) s per step \(([\d.]+) to ([\d.]+)\), (\d+) tokens\/s, peak memory ([\d.]+) GB/.exec(
      output,
    )
  if (!found) throw new Error(`step_time said ${output}`)
  const [median, least, most, tokensPerSecond, peak] = found.slice(2).map(Number)
  return {
    bench: 'd.qat',
    case: `${setting}/${BATCH}x${SEQUENCE_LENGTH}`,
    contender: 'halfstep',
    state: 'warm',
    arithmetic: found[1],
    threads,
    medianSeconds: median,
    leastSeconds: least,
    mostSeconds: most,
    samples: steps,
    tokensPerSecond,
    peakBytes: peak * 1e9,
  }
}
