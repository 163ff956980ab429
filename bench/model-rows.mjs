// node bench/model-rows.mjs <root of a build> <settings as JSON>: the rows of that build's own
// bench/model.mjs as JSON lines, without its peers. A process of its own, so that two builds never
// share one.
import { register } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

// model.mjs leaves out a peer that is not installed.
const PEER = 'node-llama-cpp'
const hook = `export function resolve(name, context, next) {
  if (name === '${PEER}') throw new Error('not part of a comparison of two builds')
  return next(name, context)
}`
register(`data:text/javascript,${encodeURIComponent(hook)}`)

const [folder, settings] = process.argv.slice(2)
const { benches, ...rest } = JSON.parse(settings)
const { modelRows } = await import(pathToFileURL(join(folder, 'bench/model.mjs')).href)
const rows = await modelRows({ ...rest, wants: (name) => benches.includes(name) })
for (const row of rows) console.log(JSON.stringify(row))
