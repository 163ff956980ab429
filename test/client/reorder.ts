/**
 * A GGUF whose feed-forward channels stand in another order, whole blocks of 32 at a time: the same
 * model to the last bit of every product, with its sums in
 * another order. What two correct runtimes may differ by.
 */
export function reorderFeedForward(file: Uint8Array): Uint8Array {
  const out = Uint8Array.from(file) // a Buffer's slice would share its bytes
  for (const { name, columns, rows, type, offset } of tensors(out)) {
    const block = { 2: 18, 3: 20, 8: 34 }[type]
    if (block === undefined) continue
    const rowBytes = (columns / 32) * block
    if (/ffn_(gate|up)/.test(name))
      reverse(out.subarray(offset, offset + rows * rowBytes), 32 * rowBytes)
    else if (name.includes('ffn_down'))
      for (let row = 0; row < rows; row++)
        reverse(out.subarray(offset + row * rowBytes, offset + (row + 1) * rowBytes), block)
  }
  return out
}

/** Reverses the order of pieces of `size` bytes. */
function reverse(bytes: Uint8Array, size: number): void {
  const old = bytes.slice()
  for (let i = 0; i < bytes.length; i += size)
    bytes.set(old.subarray(i, i + size), bytes.length - size - i)
}

const SIZES: Record<number, number> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
}

/**
 * Names, shapes, types and places of the tensors of a GGUF of our own (little-endian, well-formed).
 */
function tensors(
  file: Uint8Array,
): { name: string; columns: number; rows: number; type: number; offset: number }[] {
  const view = new DataView(file.buffer, file.byteOffset)
  let at = 24
  const take = (bytes: number) => {
    at += bytes
    return at - bytes
  }
  const u32 = () => view.getUint32(take(4), true)
  const u64 = () => Number(view.getBigUint64(take(8), true))
  const string = () => {
    const length = u64()
    const start = take(length)
    return new TextDecoder().decode(file.subarray(start, start + length))
  }
  const skip = (type: number): void => {
    if (type === 8) string()
    else if (type === 9) {
      const element = u32()
      const count = u64()
      for (let i = 0; i < count; i++) skip(element)
    } else at += SIZES[type] ?? 0
  }
  const [tensorCount, keyCount] = [
    Number(view.getBigUint64(8, true)),
    Number(view.getBigUint64(16, true)),
  ]
  for (let i = 0; i < keyCount; i++) {
    string()
    skip(u32())
  }
  const found = []
  for (let i = 0; i < tensorCount; i++) {
    const name = string()
    const dims = Array.from({ length: u32() }, u64)
    found.push({ name, columns: dims[0] ?? 0, rows: dims[1] ?? 1, type: u32(), offset: u64() })
  }
  const data = Math.ceil(at / 32) * 32
  return found.map((tensor) => ({ ...tensor, offset: data + tensor.offset }))
}
