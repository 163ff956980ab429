// npm run bench: builds, then runs every bench with its peers and compares the result with the
// targets. About ten minutes, and ten more where there is PyTorch; nothing else should run
// meanwhile.
//
//     npm run bench -- [--full] [--only <part of a name>] [--threads <n>] [--model <full-precision
// model>] [--text <file>]
//
// Writes bench/results/<machine>-<commit>.jsonl and .md, unless --only names a part. Without
// --model: SmolLM2 of HALFSTEP_SHARED (default ../shared), else the demo model. See
// bench/README.md.
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { addon, dist, packages } from '../scripts/prepare.mjs'
import { must, root } from '../scripts/shell.mjs'
import { inputs } from './inputs.mjs'
import { kernelRows } from './kernels.mjs'
import { modelRows } from './model.mjs'
import { markdown } from './table.mjs'
import { targetsTable } from './targets.mjs'
import { torchRows } from './torch.mjs'
import { trainRows } from './train.mjs'

const { values } = parseArgs({
  options: {
    full: { type: 'boolean' },
    only: { type: 'string', default: '' },
    threads: { type: 'string', default: '2' },
    model: { type: 'string' },
    text: { type: 'string' },
  },
})
const settings = {
  ...inputs(values),
  full: values.full ?? false,
  only: values.only,
  threads: Number(values.threads),
  commit: commit(),
  wants: (name) => name.includes(values.only) || values.only.startsWith(name),
}

await packages()
await addon()
await dist()
await must('cargo', ['build', '--release', '--quiet', '--bin', 'halfstep-bench'])
await must('cargo', ['build', '--release', '--quiet', '--example', 'step_time'])

const started = Date.now()
const rows = await kernelRows(settings)
for (const bench of [trainRows, torchRows, modelRows]) rows.push(...(await bench(settings)))
const cpu = rows.find((row) => row.cpu)?.cpu ?? 'machine'
const name = `${cpu
  .replaceAll(/[^A-Za-z0-9]+/g, '-')
  .replaceAll(/^-|-$/g, '')
  .toLowerCase()}-${settings.commit}`
const folder = join(root, 'bench/results')
const targets = targetsTable(rows)
const seconds = Math.round((Date.now() - started) / 1000)
console.log(`\n${targets.join('\n')}\n`)
// A part of the benches is not a result to keep.
if (settings.only === '') {
  mkdirSync(folder, { recursive: true })
  writeFileSync(
    join(folder, `${name}.jsonl`),
    rows.map((row) => `${JSON.stringify({ commit: settings.commit, ...row })}\n`).join(''),
  )
  writeFileSync(join(folder, `${name}.md`), markdown(name, rows, targets))
  console.log(`bench/results/${name}.md, ${seconds} s`)
} else console.log(`${seconds} s; without --only the rows are kept in bench/results`)

/** The commit the build is of, marked when files differ from it. */
function commit() {
  const git = (...args) =>
    execFileSync('git', args, {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no') !== ''
    return `${git('rev-parse', '--short=7', 'HEAD')}${changed ? '-changed' : ''}`
  } catch {
    return 'no-commit'
  }
}
