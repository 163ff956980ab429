// The PyTorch peers: bench/peers/torch, run by the first Python on PATH that has torch
// (HALFSTEP_PYTHON names another). A line says when there is none.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root } from '../scripts/shell.mjs'
import { jsonRows } from './kernels.mjs'

const folder = join(root, 'bench/peers/torch')

function python() {
  const candidates = process.env.HALFSTEP_PYTHON
    ? [process.env.HALFSTEP_PYTHON]
    : ['python3', 'python']
  return candidates.find(
    (program) => spawnSync(program, ['-c', 'import torch, gguf'], { stdio: 'ignore' }).status === 0,
  )
}

export async function torchRows({ full, threads, model, wants }) {
  const benches = ['d.qat', 'c.matmul', 'e.eval'].filter(wants)
  if (benches.length === 0) return []
  const program = python()
  if (program === undefined) {
    console.error(
      `skipped: PyTorch next to ${benches.join(', ')}: no python with torch and gguf on PATH`,
    )
    return []
  }
  if (!model.endsWith('.gguf')) {
    console.error('skipped: PyTorch next to d.qat and e.eval: it reads GGUF files only')
    return []
  }
  // Large pages where the system has them, as our own allocator asks for.
  const env = { ...process.env, THP_MEM_ALLOC_ENABLE: '1' }
  const run = (script, ...args) =>
    jsonRows(program, [join(folder, script), ...args, '--threads', String(threads)], { env })
  const rows = []
  if (wants('c.matmul')) rows.push(...(await run('matmul.py')))
  for (const dtype of ['f32', 'bf16'])
    if (wants('e.eval')) rows.push(...(await run('evaluate.py', model, '--dtype', dtype)))
  if (wants('d.qat')) {
    for (const setting of full ? ['gguf:q4_0', 'halfstep', 'plain'] : ['gguf:q4_0', 'plain'])
      rows.push(...(await run('silq_step.py', model, setting, '--compile', '--steps', '3')))
    if (full)
      rows.push(
        ...(await run('silq_step.py', model, 'gguf:q4_0', '--dtype', 'bf16', '--steps', '3')),
      )
  }
  for (const row of rows)
    console.error(
      `${row.bench.padEnd(10)} ${row.case} ${row.dtype} ${row.contender}: ${figure(row)}`,
    )
  return rows
}

const figure = (row) =>
  row.tokensPerSecond
    ? `${row.tokensPerSecond.toFixed(0)} tokens/s`
    : `${row.gigaoperationsPerSecond.toFixed(0)} GFLOP/s`
