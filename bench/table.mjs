// The rows of a run as markdown.

/**
 * @param {string} name @param {object[]} rows @param {string[]} targets lines of the targets table
 */
export function markdown(name, rows, targets) {
  const machine = rows.find((row) => row.rustc) ?? {}
  const lines = [
    `# ${name}`,
    '',
    `${machine.cpu ?? ''}; ${(machine.flags ?? []).join(' ')}; L3 ${machine.l3 || 'unknown'}; ${machine.rustc ?? ''}; Node ${process.version}.`,
    '',
  ]
  lines.push('```', ...targets, '```', '')
  const probe = rows.filter((row) => row.bench === 'probe')
  if (probe.length > 0) {
    lines.push('| machine, GB/s or GOP/s | first | last |', '|---|---|---|')
    for (const row of probe.filter(({ state }) => state === 'first')) {
      const last = probe.find((other) => other.state === 'last' && other.case === row.case)?.figure
      const drift = Math.abs(last / row.figure - 1) > 0.1 ? ' (drifted)' : ''
      lines.push(`| ${row.case} | ${row.figure.toFixed(1)} | ${last?.toFixed(1) ?? '-'}${drift} |`)
    }
    lines.push('')
  }
  lines.push(
    '| bench | case | who | median ms | least ms | speed | of its bound |',
    '|---|---|---|---|---|---|---|',
  )
  for (const row of rows.filter(({ bench }) => bench !== 'probe')) {
    const milliseconds = (seconds) =>
      seconds === undefined ? '-' : (seconds * 1000).toPrecision(4)
    const bound =
      row.ofBound === undefined || row.ofBound === null
        ? ''
        : `${row.ofBound.toFixed(2)} of ${row.bound}`
    const who = row.dtype ? `${row.contender}, ${row.dtype}` : row.contender
    lines.push(
      `| ${row.bench} | ${row.case} | ${who} | ${milliseconds(row.medianSeconds)} | ${milliseconds(row.leastSeconds)} | ${speed(row)} | ${bound} |`,
    )
  }
  return `${lines.join('\n')}\n`
}

function speed(row) {
  const parts = []
  if (row.tokensPerSecond) parts.push(`${row.tokensPerSecond.toFixed(0)} tokens/s`)
  if (row.gigabytesPerSecond) parts.push(`${row.gigabytesPerSecond.toFixed(1)} GB/s`)
  else if (row.gigaoperationsPerSecond)
    parts.push(`${row.gigaoperationsPerSecond.toFixed(0)} GOP/s`)
  if (row.peakBytes) parts.push(`${(row.peakBytes / 1e9).toFixed(2)} GB`)
  return parts.join(', ')
}
