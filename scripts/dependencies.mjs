// What the package and its native parts are made of, as the lock files and cargo have it.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root, run } from './shell.mjs'

const read = (path) => readFileSync(join(root, path), 'utf8')

export const manifest = () => JSON.parse(read('package.json'))

/** Entries of package-lock.json by the path of the installed package, without the root. */
export function lockedPackages() {
  const { packages } = JSON.parse(read('package-lock.json'))
  return Object.entries(packages)
    .filter(([path]) => path !== '')
    .map(([path, entry]) => ({ path, name: path.split('node_modules/').pop(), ...entry }))
}

/** The packages that `npm install halfstep` brings, in the order in which they are found. */
export function runtimePackages() {
  const all = new Map(lockedPackages().map((entry) => [entry.path, entry]))
  const found = new Map()
  const { dependencies = {}, optionalDependencies = {} } = manifest()
  /** Node looks for a package next to the one that needs it, then further up. */
  const resolve = (name, from) => {
    for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/') - 1))) {
      const path = `${at === '' ? '' : `${at}/`}node_modules/${name}`
      if (all.has(path)) return all.get(path)
      if (at === '') return undefined
    }
  }
  const add = (names, from) => {
    for (const name of Object.keys(names)) {
      const entry = resolve(name, from)
      if (entry === undefined || found.has(entry.path)) continue
      found.set(entry.path, entry)
      add({ ...entry.dependencies, ...entry.optionalDependencies }, entry.path)
    }
  }
  add({ ...dependencies, ...optionalDependencies }, '')
  return [...found.values()]
}

/** The packages of a Cargo.lock: name, version and, from a registry, source and checksum. */
export function lockedCrates(path = 'Cargo.lock') {
  return read(path)
    .split('[[package]]\n')
    .slice(1)
    .map((text) =>
      Object.fromEntries(
        [...text.matchAll(/^(name|version|source|checksum) = "(.*)"$/gm)].map(([, key, value]) => [
          key,
          value,
        ]),
      ),
    )
}

/** Runs cargo and returns what it prints; its own words where it fails. */
async function cargo(args) {
  const { code, output } = await run('cargo', args, { quiet: true })
  if (code !== 0) throw new Error(`cargo ${args.join(' ')} failed`)
  return output
}

/**
 * All packages of the workspace and what they need, as `cargo metadata` describes them. Without
 * `everywhere` those for this platform, which a build has downloaded.
 */
export async function crates({ everywhere = false } = {}) {
  const args = ['metadata', '--format-version', '1', '--locked']
  const { packages } = JSON.parse(
    await cargo(everywhere ? args : [...args, '--offline', '--filter-platform', await host()]),
  )
  return packages
}

/** The platform that this machine's cargo builds for. */
export async function host() {
  const { output } = await run('rustc', ['-vV'], { quiet: true })
  return /^host: (.*)$/m.exec(output)?.[1] ?? ''
}

/**
 * The crates that a crate of the workspace is built of for a platform. Each has name, version,
 * licence and the names with versions of what it needs; `isLinked` unless it only runs during the
 * build.
 */
export async function crateTree(name, target) {
  const tree = (edges) =>
    cargo(
      ['tree', '--locked', '--package', name, '--target', target, '--edges', edges].concat([
        '--prefix',
        'depth',
        '--format',
        '{p}|{l}',
      ]),
    )
  const linked = new Set(parse(await tree('normal,no-proc-macro')).map(({ id }) => id))
  const found = new Map()
  const above = []
  for (const { depth, id, ...crate } of parse(await tree('normal,build'))) {
    if (!found.has(id)) found.set(id, { id, ...crate, needs: new Set(), isLinked: linked.has(id) })
    above[depth] = id
    if (depth > 0) found.get(above[depth - 1]).needs.add(id)
  }
  return [...found.values()]
}

/** Lines such as `2memchr v2.8.3 (*)|Unlicense OR MIT`. */
function parse(tree) {
  return tree
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [, depth, name, version, licence] =
        /^(\d+)(\S+) v(\S+)[^|]*\|(.*?)( \(\*\))?$/.exec(line) ?? []
      if (name === undefined) throw new Error(`cargo tree: ${line}`)
      return {
        depth: Number(depth),
        id: `${name}@${version}`,
        name,
        version,
        licence,
      }
    })
}

/** Whether a licence expression is met by the allowed names; of a choice one suffices. */
export function isAllowed(expression, allowed) {
  const words = expression.replaceAll('/', ' OR ').match(/[()]|[^\s()]+/g) ?? []
  let at = 0
  const either = () => {
    let met = both()
    while (words[at] === 'OR') {
      at++
      met = both() || met
    }
    return met
  }
  const both = () => {
    let met = one()
    while (words[at] === 'AND') {
      at++
      met = one() && met
    }
    return met
  }
  const one = () => {
    if (words[at] === '(') {
      at++
      const met = either()
      at++
      return met
    }
    let name = words[at++]
    if (words[at] === 'WITH') {
      name += ` WITH ${words[at + 1]}`
      at += 2
    }
    return allowed.includes(name)
  }
  return words.length > 0 && either() && at === words.length
}

/** The names of a list in deny.toml. */
export function denyList(key) {
  const [, list] = new RegExp(`^${key} = \\[([^\\]]*)\\]`, 'm').exec(read('deny.toml')) ?? []
  if (list === undefined) throw new Error(`deny.toml has no list ${key}`)
  return [...list.matchAll(/"([^"]*)"/g)].map(([, name]) => name)
}
