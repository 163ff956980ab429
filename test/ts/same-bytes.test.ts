/** What `npm run same-bytes` takes for a difference of two files or two loss traces. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { temporaryFolder } from './tiny-model.js'

const script = (name: string) => import(new URL(`../../scripts/${name}`, import.meta.url).href)
const { comparePacked } = await script('packed-file.mjs')
const { compareTraces } = await script('traced-run.mjs')
const folder = temporaryFolder()

type Metadata = Record<string, string>
type Tensors = Record<string, number[]>

function safetensors(metadata: Metadata, tensors: Tensors): Buffer {
  const header: Record<string, unknown> = { __metadata__: metadata }
  let end = 0
  for (const [name, bytes] of Object.entries(tensors)) {
    header[name] = { dtype: 'U8', shape: [bytes.length], data_offsets: [end, end + bytes.length] }
    end += bytes.length
  }
  const text = Buffer.from(JSON.stringify(header))
  return Buffer.concat([u64(text.length), text, Buffer.from(Object.values(tensors).flat())])
}

const STRING = 8
const ARRAY = 9
const I8 = 24

function gguf(metadata: Metadata, tensors: Tensors): Buffer {
  const kv = Object.entries(metadata).map(([key, value]) => [text(key), u32(STRING), text(value)])
  const list = [text('list'), u32(ARRAY), u32(STRING), u64(2), text('a'), text('bc')]
  const infos = Object.entries(tensors).map(([name, bytes], i) => [
    ...[text(name), u32(1), u64(bytes.length), u32(I8), u64(32 * i)],
  ])
  const counts = [u64(infos.length), u64(kv.length + 1)]
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    u32(3),
    ...counts,
    ...kv.flat(),
    ...list,
    ...infos.flat(),
  ])
  const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 31)])
  return Buffer.concat(
    [head, ...Object.values(tensors).map((bytes) => Buffer.from(bytes))].map(padded),
  )
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

function u64(value: number): Buffer {
  const out = Buffer.alloc(8)
  out.writeBigUInt64LE(BigInt(value))
  return out
}

function text(value: string): Buffer {
  return Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])
}

const CONTAINERS = [
  ['safetensors', safetensors, 'halfstep.provenance.'],
  ['gguf', gguf, 'halfstep.'],
] as const

for (const [ending, write, prefix] of CONTAINERS) {
  const metadata = { [`${prefix}recipe`]: '{"window":32}', [`${prefix}seed`]: '7' }
  const tensors = { 'a.codes': [1, 2, 3], 'b.codes': [4, 5, 6] }
  const against = (changed: Metadata, others: Tensors = tensors) => {
    const paths = ['before', 'after'].map((name) => join(folder, `${name}.${ending}`))
    writeFileSync(paths[0] as string, write(metadata, tensors))
    writeFileSync(paths[1] as string, write({ ...metadata, ...changed }, others))
    return comparePacked(...paths)
  }

  it(`finds equal ${ending} files the same`, () => {
    expect(against({})).toEqual({ free: [] })
  })

  it(`lets the recipe's text alone differ in ${ending} files`, () => {
    const changed = { [`${prefix}recipe`]: '{"sequenceLength":32}' }
    expect(against(changed)).toEqual({ free: [`${prefix}recipe`] })
    expect(against({ ...changed, [`${prefix}seed`]: '8' }).difference).toContain(`${prefix}seed`)
  })

  it(`names the tensor and the byte that differ in ${ending} files`, () => {
    const changed = { ...tensors, 'b.codes': [4, 5, 7] }
    expect(against({}, changed).difference).toBe('tensor b.codes, from byte 2')
    // Not hidden by a difference that is allowed.
    expect(against({ [`${prefix}recipe`]: '{}' }, changed).difference).toContain('b.codes')
  })

  it(`names a tensor that is gone, new, moved or of another shape in ${ending} files`, () => {
    const { 'b.codes': b, ...a } = tensors
    expect(against({}, a).difference).toBe('tensor b.codes is missing')
    expect(against({}, { ...tensors, c: [1] }).difference).toBe('tensor c is new')
    expect(against({}, { ...a, 'b.codes': [4, 5] }).difference).toMatch(/^tensor b.codes is /)
    expect(against({}, { 'b.codes': b, ...a }).difference).toBe('the order of the parts')
  })
}

it('takes the smallest change of a number in a trace for a difference', () => {
  const step = (of: string, loss: number) => ({ of, numbers: { loss, learningRate: 0.1 } })
  const trace = [step('step 1', 3.25), step('step 2', 0.1)]
  expect(compareTraces(trace, structuredClone(trace))).toBeUndefined()
  const changed = [trace[0], step('step 2', 0.1 + 2 ** -56)]
  expect(compareTraces(trace, changed)).toMatch(/^loss of step 2: 0.1 became 0.1000000/)
  expect(compareTraces(trace, trace.slice(0, 1))).toBe('step 2 is missing')
  expect(compareTraces(trace.slice(0, 1), trace)).toBe('step 2 is new')
  expect(compareTraces(trace, trace.slice(1))).toBe('step 1 is step 2 instead')
})
