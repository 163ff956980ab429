// The WebAssembly module from crates/wasm: compiler, wasm-bindgen and wasm-pack first, each only if
// it is not there. HALFSTEP_CACHE says where they are kept
// (default .cache). Everything comes from the registries of Rust and Debian; nothing is downloaded
// from elsewhere.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { fail, must, root } from './shell.mjs'

const WASM_PACK_VERSION = '0.15.1'
const MAX_GZIP_BYTES = 1_000_000
const OUT = 'ts/wasm'
const cache = join(process.env.HALFSTEP_CACHE ?? join(root, '.cache'), 'wasm')

/** Builds ts/wasm. */
export async function wasmModule() {
  const compiler = await rust()
  const path = [await bindgen(), await wasmPack(), compiler, process.env.PATH]
    .filter(Boolean)
    .join(delimiter)
  const home = process.env.CARGO_HOME ?? join(homedir(), '.cargo')
  // A .gitignore of its own would keep the module out of the npm package.
  const args = [
    '--target',
    'web',
    '--mode',
    'no-install',
    '--profile',
    'wasm',
    '--no-pack',
    '--no-gitignore',
    '--out-dir',
    `../../${OUT}`,
    '--out-name',
    'halfstep',
  ]
  await must('wasm-pack', ['--log-level', 'error', 'build', 'crates/wasm', ...args], {
    env: {
      PATH: path,
      // Possibly another compiler than the addon's: a target folder of its own.
      CARGO_TARGET_DIR: join(root, 'target/wasm'),
      // Panic messages name source files: not where they lay on this machine.
      CARGO_ENCODED_RUSTFLAGS: [
        '-Ctarget-feature=+simd128',
        `--remap-path-prefix=${root}=halfstep`,
        `--remap-path-prefix=${home}=cargo`,
      ].join('\x1f'),
    },
  })
  const module = readFileSync(join(root, OUT, 'halfstep_bg.wasm'))
  const zipped = gzipSync(module, { level: 9 }).length
  console.log(`${OUT}/halfstep_bg.wasm: ${module.length} bytes, ${zipped} gzipped`)
  if (zipped >= MAX_GZIP_BYTES) fail(`the module is to stay below ${MAX_GZIP_BYTES} bytes gzipped`)
}

/**
 * The folder with a `rustc` and `cargo` that know wasm32-unknown-unknown; none if those on PATH do.
 */
async function rust() {
  if (process.platform === 'win32') {
    await must('rustup', ['target', 'add', 'wasm32-unknown-unknown'])
    return undefined
  }
  const { status, stdout } = spawnSync('bash', ['scripts/setup-wasm.sh'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  })
  if (status !== 0) fail('no Rust compiler for WebAssembly (see above)')
  return stdout.trim()
}

/** The folder with the `wasm-bindgen` that fits the library in Cargo.lock. */
async function bindgen() {
  const library = lockedVersion('Cargo.lock', 'wasm-bindgen')
  const tool = lockedVersion('tools/wasm-bindgen/Cargo.lock', 'wasm-bindgen-cli-support')
  if (library !== tool)
    fail(
      `Cargo.lock has wasm-bindgen ${library}, tools/wasm-bindgen ${tool}: change the version in tools/wasm-bindgen/Cargo.toml`,
    )
  const target = join(root, 'target/tools/wasm-bindgen')
  await must('cargo', [
    'build',
    '--quiet',
    '--release',
    '--locked',
    '--manifest-path',
    'tools/wasm-bindgen/Cargo.toml',
    '--target-dir',
    target,
  ])
  return join(target, 'release')
}

function lockedVersion(lock, crate) {
  const text = readFileSync(join(root, lock), 'utf8')
  return new RegExp(`name = "${crate}"\\r?\\nversion = "([^"]+)"`).exec(text)?.[1]
}

/** The folder with `wasm-pack`; none if it is on PATH. */
async function wasmPack() {
  const version = (path) =>
    spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout?.trim().split(' ')[1]
  if (version('wasm-pack') === WASM_PACK_VERSION) return undefined
  const folder = join(cache, 'bin')
  if (!existsSync(folder) || version(join(folder, 'wasm-pack')) !== WASM_PACK_VERSION) {
    console.log(`installing wasm-pack ${WASM_PACK_VERSION} below ${cache}`)
    const target = join(root, 'target/tools/wasm-pack')
    const where = ['--version', WASM_PACK_VERSION, '--root', cache, '--target-dir', target]
    // It only calls other programs: built without optimisation, which takes half the time.
    await must(
      'cargo',
      ['install', 'wasm-pack', '--quiet', '--locked', '--force', '--debug', ...where],
      { env: { CARGO_PROFILE_DEV_DEBUG: '0' } },
    )
  }
  return folder
}
