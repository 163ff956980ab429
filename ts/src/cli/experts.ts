/** What people read about the experts of a model and their calibration. */
import type { ExpertsInspection, ExpertsRecord } from '../generated/types.js'
import { formatBytes } from './format.js'

const number = (value: number) => value.toLocaleString('en')

/** Names and values of a table about the experts of a model; none without experts. */
export function expertPairs(experts: ExpertsInspection | null): [string, string][] {
  if (experts === null) return []
  const { layers, count, used, parameters, activeParameters, bytes } = experts
  const size = bytes > 0 ? `, ${formatBytes(bytes)}` : ''
  return [
    ['experts', `${count} in each of ${layers} layers, of which a token uses ${used}`],
    ['expert parameters', `${number(parameters)}${size}`],
    ['active parameters', `${number(activeParameters)} for each token`],
  ]
}

/** What all experts were calibrated on; null if none were. */
export function calibrationOf(records: readonly ExpertsRecord[] = []): string | null {
  if (records.length === 0) return null
  const sum = (of: (record: ExpertsRecord) => number) => records.map(of).reduce((a, b) => a + b)
  const least = Math.min(...records.map(({ leastRows }) => leastRows))
  const most = Math.max(...records.map(({ mostRows }) => mostRows))
  const [experts, few] = [sum((record) => record.experts), sum((record) => record.toppedUp)]
  const floor = Math.max(...records.map((record) => record.floor))
  const filled = few > 0 ? `${few} of ${experts} filled up to ${floor}` : `none below ${floor}`
  return `calibrated on ${number(least)} to ${number(most)} rows each, ${filled}`
}
