// The WebAssembly module from crates/wasm: compiler and wasm-bindgen first, each only if it is not
// there. Everything comes from the registries of Rust and Debian; nothing is downloaded from
// elsewhere. wasm-pack would call the same two programs and give the same bytes, but is itself 292
// crates to compile (docs/wasm.md).
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { fail, must, root } from './shell.mjs'

const MAX_GZIP_BYTES = 1_050_000
const OUT = 'ts/wasm'
const TRIPLE = 'wasm32-unknown-unknown'

/** Builds ts/wasm. */
export async function wasmModule() {
  const compiler = await rust()
  const home = process.env.CARGO_HOME ?? join(homedir(), '.cargo')
  // Possibly another compiler than the addon's: a target folder of its own.
  const target = join(root, 'target/wasm')
  const where = ['--profile', 'wasm', '--target', TRIPLE, '--target-dir', target]
  await must('cargo', ['build', '--quiet', '--lib', '-p', 'halfstep-wasm', ...where], {
    env: {
      PATH: [compiler, process.env.PATH].filter(Boolean).join(delimiter),
      // Panic messages name source files: not where they lay on this machine.
      CARGO_ENCODED_RUSTFLAGS: [
        '-Ctarget-feature=+simd128',
        `--remap-path-prefix=${root}=halfstep`,
        `--remap-path-prefix=${home}=cargo`,
      ].join('\x1f'),
    },
  })
  const built = join(target, TRIPLE, 'wasm/halfstep_wasm.wasm')
  const names = ['--out-dir', OUT, '--out-name', 'halfstep', '--target', 'web']
  await must(await bindgen(), [built, ...names])
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

/** The `wasm-bindgen` that fits the library in Cargo.lock. */
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
  return join(target, 'release', 'wasm-bindgen')
}

function lockedVersion(lock, crate) {
  const text = readFileSync(join(root, lock), 'utf8')
  return new RegExp(`name = "${crate}"\\r?\\nversion = "([^"]+)"`).exec(text)?.[1]
}
