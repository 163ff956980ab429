// d.qat: whole training steps, a process per setting, since the peak of memory is the process's.
import { execFileSync } from 'node:child_process'
import { built } from './kernels.mjs'

const [BATCH, WINDOW] = [4, 512]

export async function trainRows({ full, threads, model, text, wants }) {
  const rows = []
  const steps = full ? 7 : 3
  for (const setting of full
    ? ['gguf:q4_0', 'halfstep', 'off', 'plain']
    : ['gguf:q4_0', 'off', 'plain']) {
    if (!wants('d.qat')) continue
    // Whatever the probe finds fastest, but for the plain step, whose peer is f32.
    const arithmetic = setting === 'plain' ? ['f32'] : []
    const args = [
      model,
      text,
      setting,
      String(steps),
      String(threads),
      String(BATCH),
      ...arithmetic,
    ]
    const output = execFileSync(built('examples', 'step_time'), args, { encoding: 'utf8' })
    process.stderr.write(`d.qat      ${output}`)
    const found =
      /in ([a-z0-9, -]+): ([\d.]+) s per step \(([\d.]+) to ([\d.]+)\), .*peak memory ([\d.]+) GB/.exec(
        output,
      )
    if (!found) throw new Error(`step_time said ${output}`)
    const [median, least, most, peak] = found.slice(2).map(Number)
    rows.push({
      bench: 'd.qat',
      case: `${setting}/${BATCH}x${WINDOW}`,
      contender: 'halfstep',
      state: 'warm',
      arithmetic: found[1],
      threads,
      medianSeconds: median,
      leastSeconds: least,
      mostSeconds: most,
      samples: steps,
      tokensPerSecond: (BATCH * WINDOW) / median,
      peakBytes: peak * 1e9,
    })
  }
  return rows
}
