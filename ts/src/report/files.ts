import { exactly } from '../arguments.js'
import { HalfstepError } from '../errors.js'
import type { Report, SaveReport } from '../generated/types.js'
import { writeWhole } from '../wasm-files.js'
import { reportPage } from './page.js'

/**
 * The page and, next to it under the same name, the data. `ERR_CONFIG` if `path` does not end in
 * .html.
 */
export function reportPaths(path: string): { page: string; data: string } {
  if (!path.endsWith('.html'))
    throw new HalfstepError('ERR_CONFIG', `report: ${path} does not end in .html`, {
      field: 'report',
      reason: 'a page ends in .html',
    })
  return { page: path, data: path.replace(/\.html$/, '.json') }
}

/** Writes both, each whole or not at all. */
export async function writeReport(path: string, report: Report, file?: SaveReport): Promise<void> {
  const { page, data } = reportPaths(path)
  const bytes = (text: string) => new TextEncoder().encode(text)
  await writeWhole(page, bytes(reportPage(report, file)))
  await writeWhole(data, bytes(`${JSON.stringify({ report, file }, exactly, 2)}\n`))
}
