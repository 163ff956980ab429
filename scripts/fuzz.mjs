// npm run fuzz: builds the fuzz targets (crates/fuzz) with stable Rust and runs each for a while, as
// many at a time as there are processors.
//
//     npm run fuzz                                 every target, 60 s each
//     npm run fuzz -- --seconds 600 --only gguf
//     npm run fuzz -- --inputs 40000000 --only gguf,safetensors
//
// A corpus begins with valid files and grows in target/fuzz/corpus; what breaks a target is kept in
// target/fuzz/faults. An input may take 1 s (--timeout) and 256 MiB. libFuzzer needs a C++ compiler.
// With cargo-fuzz and a nightly toolchain: cargo fuzz run --fuzz-dir crates/fuzz <target>.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, must, root, run } from './shell.mjs'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    inputs: { type: 'string' },
    only: { type: 'string', default: '' },
    timeout: { type: 'string', default: '1' },
  },
})
const MEMORY_MIB = 256
/** Bytes of the longest input, but for the two formats whose valid file is longer. */
const LONGEST = { gguf: 1 << 18, safetensors: 1 << 17, default: 1 << 14 }

const TEMPLATE =
  "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
const CONVERSATION = '{"messages": [{"role": "user", "content": "Hello"}]}\n'
const golden = (path) => readFileSync(join(root, 'test/golden', path))
/** A valid file of each target. */
const VALID = {
  config: () => golden('arch/qwen2/config.json'),
  documents: () => Buffer.from(CONVERSATION.repeat(3)),
  gguf: () => golden('arch/gguf/qwen2.gguf'),
  manifest: () => Buffer.from('{"format": 2}'),
  safetensors: () => golden('arch/qwen2/model.safetensors'),
  sentence_piece: () => golden('tokenizers/pieces-bpe/tokenizer.model'),
  template: () => Buffer.from(TEMPLATE),
  tokenizer: () => golden('arch/qwen2/tokenizer.json'),
}

const crate = join(root, 'crates/fuzz')
const folder = join(root, 'target/fuzz')
const host = (await must('rustc', ['-vV'], { quiet: true })).match(/^host: (.*)$/m)[1]
const wanted = values.only.split(',').filter(Boolean)
const targets = readdirSync(join(crate, 'fuzz_targets'))
  .map((file) => file.replace(/\.rs$/, ''))
  .filter((target) => wanted.length === 0 || wanted.includes(target))
const unknown = wanted.filter((target) => !targets.includes(target))
if (unknown.length > 0) fail(`there is no fuzz target ${unknown.join(', ')}`)

// What `cargo fuzz` sets, without a sanitizer: counters of edges and of comparisons. With a target
// of its own, so that build scripts are compiled as usual.
const flags = [
  '--cfg=fuzzing',
  '-Cpasses=sancov-module',
  '-Cllvm-args=-sanitizer-coverage-level=4',
  '-Cllvm-args=-sanitizer-coverage-inline-8bit-counters',
  '-Cllvm-args=-sanitizer-coverage-pc-table',
  '-Cllvm-args=-sanitizer-coverage-trace-compares',
].join(' ')
await must(
  'cargo',
  ['build', '--quiet', '--release', '--target', host, '--target-dir', folder, '--locked'],
  { cwd: crate, env: { RUSTFLAGS: flags } },
)
const program = (name) => join(folder, host, 'release', name)

/** Fuzzes one target. */
async function fuzz(target) {
  const [corpus, faults] = ['corpus', 'faults'].map((kind) => join(folder, kind, target))
  for (const made of [corpus, faults]) mkdirSync(made, { recursive: true })
  // The first byte says how the rest is read: as a file, or as changes of a valid one.
  writeFileSync(join(corpus, 'valid'), Buffer.concat([Buffer.from([0]), VALID[target]()]))
  for (let seed = 0; seed < 64; seed++) {
    const changes = Uint8Array.from({ length: 33 }, (_, i) => (i === 0 ? 1 : i * 37 + seed * 11))
    writeFileSync(join(corpus, `changes-${seed}`), changes)
  }
  const limit = values.inputs ? `-runs=${values.inputs}` : `-max_total_time=${values.seconds}`
  const { code, output } = await run(
    program(target),
    [
      corpus,
      limit,
      `-artifact_prefix=${faults}/`,
      `-rss_limit_mb=${MEMORY_MIB}`,
      `-timeout=${values.timeout}`,
      `-max_len=${LONGEST[target] ?? LONGEST.default}`,
      '-print_final_stats=1',
      '-verbosity=0',
    ],
    { quiet: true, errors: true },
  )
  const stat = (name) => Number(output.match(new RegExp(`stat::${name}:\\s+(\\d+)`))?.[1] ?? 0)
  const kept = readdirSync(corpus).length
  const inputs = stat('number_of_executed_units')
  const good = code === 0 && inputs > 0
  if (!good) console.log(output.split('\n').slice(-40).join('\n'))
  console.log(
    `${target}: ${good ? 'no fault' : `A FAULT, kept in ${faults}`}, ${inputs} inputs, ` +
      `${stat('average_exec_per_sec')}/s, corpus ${kept}, peak ${stat('peak_rss_mb')} MiB, ` +
      `slowest ${stat('slowest_unit_time_sec')} s`,
  )
  return good
}

const left = [...targets]
const results = []
const work = async () => {
  for (let next = left.shift(); next !== undefined; next = left.shift()) {
    results.push(await fuzz(next))
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, work))
const failed = results.filter((good) => !good).length
console.log(`fuzz: ${results.length - failed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
