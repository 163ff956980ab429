/** Writers of the two formats of weights, of a few lines each and independent of the library. */

export type Shape = readonly number[]
export interface Weights {
  shape: Shape
  values: Float32Array
}
export type Tensors = Record<string, Weights>

/** A safetensors file of 32-bit floats. */
export function safetensors(tensors: Tensors): Uint8Array {
  let end = 0
  const header: Record<string, unknown> = {}
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + values.byteLength] }
    end += values.byteLength
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const all = Object.values(tensors).map(({ values }) => Buffer.from(values.buffer))
  return Buffer.concat([length, json, ...all])
}

/** A value of GGUF metadata: its type and what it is. */
export type Value =
  | { u32: number }
  | { i32: number }
  | { i64: number }
  | { f32: number }
  | { bool: boolean }
  | { string: string }
  | { strings: readonly string[] }
  | { u32s: readonly number[] }
  | { i32s: readonly number[] }
  | { f32s: readonly number[] }
export type Metadata = Record<string, Value>

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
const u64 = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64LE(BigInt(value))
  return bytes
}
const i32 = (value: number) => u32(value >>> 0)
const f32 = (value: number) => Buffer.from(Float32Array.of(value).buffer)
const text = (value: string) => {
  const bytes = Buffer.from(value)
  return Buffer.concat([u64(bytes.length), bytes])
}

function encoded(value: Value): Buffer {
  const list = <T>(type: number, items: readonly T[], one: (item: T) => Buffer) =>
    Buffer.concat([u32(9), u32(type), u64(items.length), ...items.map(one)])
  const one = (type: number, bytes: Buffer) => Buffer.concat([u32(type), bytes])
  if ('u32' in value) return one(4, u32(value.u32))
  if ('i32' in value) return one(5, i32(value.i32))
  if ('i64' in value) return one(11, u64(value.i64))
  if ('f32' in value) return one(6, f32(value.f32))
  if ('bool' in value) return one(7, Buffer.of(value.bool ? 1 : 0))
  if ('string' in value) return one(8, text(value.string))
  if ('strings' in value) return list(8, value.strings, text)
  if ('u32s' in value) return list(4, value.u32s, u32)
  if ('i32s' in value) return list(5, value.i32s, i32)
  return list(6, value.f32s, f32)
}

const ALIGNMENT = 32
const padding = (length: number) => Buffer.alloc((ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT)

/** A GGUF file of 32-bit floats, tensors by the names of the format. */
export function gguf(metadata: Metadata, tensors: Tensors): Uint8Array {
  const entries = Object.entries(metadata)
  const header: Uint8Array[] = [
    Buffer.from('GGUF'),
    u32(3),
    u64(Object.keys(tensors).length),
    u64(entries.length),
  ]
  for (const [key, value] of entries) header.push(text(key), encoded(value))
  const data: Uint8Array[] = []
  let offset = 0
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    header.push(text(name), u32(shape.length))
    for (const size of shape.toReversed()) header.push(u64(size))
    header.push(u32(0), u64(offset))
    const bytes = Buffer.from(values.buffer)
    data.push(bytes, padding(bytes.length))
    offset += bytes.length + padding(bytes.length).length
  }
  const head = Buffer.concat(header)
  const all: Uint8Array[] = [head, padding(head.length), ...data]
  return Buffer.concat(all)
}

/** The whole numbers and texts of a GGUF file's metadata; other values are passed over. */
export function readMetadata(file: Uint8Array): Map<string, number | string> {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength)
  let at = 8
  const take = (count: number) => {
    at += count
    return at - count
  }
  const size = () => Number(bytes.readBigUInt64LE(take(8)))
  const string = () => {
    const length = size()
    const start = take(length)
    return bytes.toString('utf8', start, start + length)
  }
  const WIDTHS = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]
  const value = (type: number): number | string | undefined => {
    if (type === 8) return string()
    if (type === 9) {
      const element = bytes.readUInt32LE(take(4))
      const count = size()
      for (let i = 0; i < count; i++) value(element)
      return undefined
    }
    const start = take(WIDTHS[type] ?? 0)
    if (type === 4) return bytes.readUInt32LE(start)
    if (type === 5) return bytes.readInt32LE(start)
    if (type === 10 || type === 11) return Number(bytes.readBigInt64LE(start))
    return undefined
  }
  take(8)
  const found = new Map<string, number | string>()
  for (let left = size(); left > 0; left--) {
    const key = string()
    const one = value(bytes.readUInt32LE(take(4)))
    if (one !== undefined) found.set(key, one)
  }
  return found
}
