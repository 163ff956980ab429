// Installs and builds what is missing or out of date, and nothing else. A part is up to date when
// the hash of its inputs is the one of its last build.
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { bin, must, root } from './shell.mjs'
import { wasmModule } from './wasm-module.mjs'

const CARGO = ['Cargo.toml', 'Cargo.lock', 'rust-toolchain.toml']
const CRATES = ['crates/kernels', 'crates/formats', 'crates/runtime', 'crates/core']

/** Files below `path`, sorted, `target` folders left out. */
function files(path) {
  const full = join(root, path)
  if (!existsSync(full)) return []
  if (statSync(full).isFile()) return [full]
  const entries = readdirSync(full, { withFileTypes: true }).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )
  return entries
    .filter((entry) => entry.name !== 'target')
    .flatMap((entry) => files(join(path, entry.name)))
}

function hash(inputs) {
  const sum = createHash('sha256').update(process.version)
  for (const file of inputs.flatMap(files))
    sum.update(relative(root, file)).update('\0').update(readFileSync(file)).update('\0')
  return sum.digest('hex')
}

/** Runs `build` unless `outputs` exist and were built from `inputs` as they are now. */
async function upToDate(name, inputs, outputs, build) {
  const stamp = join(root, '.cache', `${name}.hash`)
  const now = hash(inputs)
  if (
    outputs.every((output) => existsSync(join(root, output))) &&
    existsSync(stamp) &&
    readFileSync(stamp, 'utf8') === now
  )
    return
  await build()
  mkdirSync(join(root, '.cache'), { recursive: true })
  writeFileSync(stamp, now)
}

/**
 * The packages of package-lock.json, when it is not the one of the last time. Not `npm ci`: it
 * refuses a lock file that lacks an optional package of another platform,
 * as one does that was written where the registry does not carry them all.
 */
export async function packages() {
  const stamp = join(root, 'node_modules', '.halfstep-lock')
  const now = hash(['package-lock.json'])
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === now) return
  await must('npm', ['install', '--no-save', '--no-fund', '--no-audit'])
  writeFileSync(stamp, now)
}

const LIBRARY = { linux: ['lib', '.so'], darwin: ['lib', '.dylib'], win32: ['', '.dll'] }

/** The platform's name as Node addons write it. */
function platform() {
  const glibc =
    process.platform === 'linux' && process.report.getReport().header.glibcVersionRuntime
  const library = { linux: glibc ? '-gnu' : '-musl', win32: '-msvc' }[process.platform] ?? ''
  return `${process.platform}-${process.arch}${library}`
}

/**
 * The Node addon. Plain cargo and a copy, where the napi tool would build for an explicit target
 * triple: that has an output folder of its own, so that
 * `cargo test` would compile every dependency a second time. So it would after `-p halfstep-node`:
 * cargo gives a dependency the features that the chosen packages ask for, and these are all that
 * `cargo test` chooses.
 */
export async function addon() {
  const output = `ts/native/halfstep.${platform()}.node`
  await upToDate('addon', ADDON, [output], () => buildAddon(output))
}

/**
 * The addon with the feature `panics`, for the test of what they lead to. Only the crate of the
 * addon is compiled again. Returns its path.
 */
export async function panicAddon() {
  const output = '.cache/panics/halfstep.node'
  const feature = ['--features', 'halfstep-node/panics']
  await upToDate('panics', ADDON, [output], () => buildAddon(output, feature))
  return join(root, output)
}

const ADDON = [...CARGO, ...CRATES, 'crates/bench', 'crates/node']

async function buildAddon(output, features = []) {
  await must('cargo', ['build', '--release', '--lib', ...features])
  const [prefix, suffix] = LIBRARY[process.platform] ?? LIBRARY.linux
  const built = join(
    process.env.CARGO_TARGET_DIR ?? join(root, 'target'),
    'release',
    `${prefix}halfstep_node${suffix}`,
  )
  mkdirSync(dirname(join(root, output)), { recursive: true })
  // Renamed over the old one, which a running process may have mapped.
  const fresh = join(root, `${output}.tmp`)
  copyFileSync(built, fresh)
  renameSync(fresh, join(root, output))
}

/** The WebAssembly module. */
export async function wasm() {
  const inputs = [
    ...CARGO,
    ...CRATES,
    'crates/wasm',
    'tools/wasm-bindgen',
    'scripts/wasm-module.mjs',
  ]
  await upToDate('wasm', inputs, ['ts/wasm/halfstep.js', 'ts/wasm/halfstep_bg.wasm'], wasmModule)
}

/** The JavaScript of the package. */
export async function dist() {
  const outputs = ['ts/dist/index.js', 'ts/dist/index.cjs', 'ts/dist/index.d.ts', 'ts/dist/cli.js']
  await upToDate(
    'dist',
    ['ts/src', 'tsup.config.ts', 'tsconfig.json', 'package-lock.json', 'ts/wasm'],
    outputs,
    () => {
      rmSync(join(root, 'ts/dist'), { recursive: true, force: true })
      return must(bin('tsup'), ['--silent'])
    },
  )
}
