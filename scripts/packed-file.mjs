// Two packed files compared part by part: every metadata entry and every tensor.
import { readFileSync } from 'node:fs'

/**
 * Metadata in which revisions may differ although the model is the same: the version that wrote
 * the file, and the text of the resolved recipe, whose fields are renamed and added to. Everything
 * else (seed, hash of the data, measured metrics, description of the quantizers, tokenizer) must
 * be equal.
 */
const FREE = ['version', 'recipe'].flatMap((key) => [
  `halfstep.provenance.${key}`,
  `halfstep.${key}`,
])

/**
 * Compares two packed files, both .safetensors or both .gguf.
 * @returns {{ difference?: string, free: string[] }} `difference` names the first part that is not
 * the same; `free` lists the metadata of FREE that is not.
 */
export function comparePacked(before, after) {
  const files = [before, after].map((path) => readFileSync(path))
  if (files[0].equals(files[1])) return { free: [] }
  const [ours, theirs] = files.map((file, i) => parts([before, after][i], file))
  const free = FREE.filter(
    (key) => !same(ours.get(`metadata ${key}`), theirs.get(`metadata ${key}`)),
  )
  for (const key of FREE) for (const file of [ours, theirs]) file.delete(`metadata ${key}`)
  for (const [name, part] of ours) {
    const other = theirs.get(name)
    if (other === undefined) return { difference: `${name} is missing`, free }
    if (part.kind !== other.kind)
      return { difference: `${name} is ${other.kind} instead of ${part.kind}`, free }
    if (!same(part, other)) {
      const at = part.bytes.findIndex((byte, i) => byte !== other.bytes[i])
      const where = at < 0 ? 'its length' : `from byte ${at}`
      return { difference: `${name}, ${where}`, free }
    }
  }
  const added = [...theirs.keys()].find((name) => !ours.has(name))
  if (added !== undefined) return { difference: `${added} is new`, free }
  if ([...ours.keys()].join('\n') !== [...theirs.keys()].join('\n'))
    return { difference: 'the order of the parts', free }
  // Equal parts in unequal files, with nothing free to explain it: the container changed.
  return free.length > 0 ? { free } : { difference: 'bytes outside metadata and tensors', free }
}

const same = (a, b) => a === b || (a && b && a.kind === b.kind && a.bytes.equals(b.bytes))

/** Name -> { kind, bytes } of everything in a file, in the order of the file. */
function parts(path, file) {
  return path.endsWith('.gguf') ? ggufParts(file) : safetensorsParts(file)
}

function safetensorsParts(file) {
  const start = 8 + Number(file.readBigUInt64LE(0))
  const { __metadata__: metadata = {}, ...tensors } = JSON.parse(file.toString('utf8', 8, start))
  const out = new Map()
  for (const [key, value] of Object.entries(metadata))
    out.set(`metadata ${key}`, { kind: 'string', bytes: Buffer.from(value) })
  for (const [
    name,
    {
      dtype,
      shape,
      data_offsets: [from, to],
    },
  ] of Object.entries(tensors)) {
    const bytes = file.subarray(start + from, start + to)
    out.set(`tensor ${name}`, { kind: `${dtype} [${shape}]`, bytes })
  }
  return out
}

// Value types of GGUF metadata by their number: bytes of a value, or one of the two below.
const GGUF_BYTES = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 }
const [GGUF_STRING, GGUF_ARRAY] = [8, 9]
const GGUF_ALIGNMENT = 32

function ggufParts(file) {
  let at = 8
  /** The next bytes of the file. */
  const take = (length) => {
    at += length
    return file.subarray(at - length, at)
  }
  const u32 = () => take(4).readUInt32LE()
  const u64 = () => Number(take(8).readBigUInt64LE())
  const string = () => take(u64()).toString()
  const skip = (type) => {
    if (type === GGUF_STRING) string()
    else if (type === GGUF_ARRAY) {
      const [of, count] = [u32(), u64()]
      for (let i = 0; i < count; i++) skip(of)
    } else if (GGUF_BYTES[type] !== undefined) take(GGUF_BYTES[type])
    else throw new Error(`GGUF has no value type ${type} (byte ${at - 4})`)
  }
  const [tensors, entries] = [u64(), u64()]
  const out = new Map()
  for (let i = 0; i < entries; i++) {
    const [key, type, from] = [string(), u32(), at]
    skip(type)
    out.set(`metadata ${key}`, { kind: `type ${type}`, bytes: file.subarray(from, at) })
  }
  const described = Array.from({ length: tensors }, () => {
    const name = string()
    const shape = Array.from({ length: u32() }, u64)
    return { name, kind: `[${shape}] of type ${u32()}`, from: u64() }
  })
  const start = Math.ceil(at / GGUF_ALIGNMENT) * GGUF_ALIGNMENT
  const ends = described.map(({ from }) => from).sort((a, b) => a - b)
  for (const { name, kind, from } of described) {
    // Up to the next tensor: the padding between them is compared too.
    const to = ends.find((end) => end > from) ?? file.length - start
    out.set(`tensor ${name}`, { kind, bytes: file.subarray(start + from, start + to) })
  }
  return out
}
