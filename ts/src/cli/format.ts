/** Numbers and tables for a terminal of 80 columns. */

/** 1.23 kB, 45.6 MB, 789 GB: three digits. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB']
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), units.length)
  return `${(bytes / 1000 ** power).toPrecision(3)} ${units[power - 1]}`
}

/** 0:07, 12:34, 1:02:03. */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const two = (n: number) => String(n).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`
}

/** A number with so many decimals, or a dash for none. */
export function formatNumber(value: number | null | undefined, decimals: number): string {
  return value === null || value === undefined ? '-' : value.toFixed(decimals)
}

/** JSON has no infinity: a perplexity that no number holds is null. */
export function formatPerplexity(value: number | null, decimals = 3): string {
  return value === null ? 'over 1e308' : value.toFixed(decimals)
}

/** Lines of a table: the first column to the left, the others to the right, two spaces between. */
export function formatTable(rows: readonly (readonly string[])[]): string[] {
  const columns = Math.max(...rows.map((row) => row.length))
  const widths = Array.from({ length: columns }, (_, i) =>
    Math.max(...rows.map((row) => row[i]?.length ?? 0)),
  )
  const cell = (text: string, i: number) =>
    i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)
  return rows.map((row) => row.map(cell).join('  ').trimEnd())
}

/**
 * Lines of names and values, both to the left; with `columns`, values that are too long are cut.
 */
export function formatPairs(
  pairs: readonly (readonly [string, string])[],
  columns = Number.POSITIVE_INFINITY,
): string[] {
  const width = Math.max(...pairs.map(([name]) => name.length))
  const lines = pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd())
  return lines.map((line) => cut(line, columns))
}

/** A line of at most so many columns. */
export function cut(line: string, columns: number): string {
  return line.length > columns ? `${line.slice(0, columns - 3)}...` : line
}

/** Words in lines of at most so many columns. */
export function wrapped(text: string, columns = 80): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const last = lines.length - 1
    const longer = lines[last] === '' ? word : `${lines[last]} ${word}`
    if (longer.length <= columns) lines[last] = longer
    else lines.push(word)
  }
  return lines
}
