import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { inspect, Model } from '../../ts/src/index.js'
import { temporaryFolder, tinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const path = tinyModel(folder)

/** The tiny model as a GGUF file of an architecture that there is not. */
async function unknown(): Promise<Uint8Array> {
  const bytes = Buffer.from(await (await Model.load(path)).toBytes())
  const text = bytes.toString('latin1').replaceAll('llama', 'alpha')
  return Uint8Array.from(Buffer.from(text, 'latin1'))
}

describe('inspect', () => {
  it('tells of a model that can be run what the loaded model tells', async () => {
    const { name, parameters, fileBytes, tensorTypes, hasChatTemplate, bitsPerWeight } = (
      await Model.load(path)
    ).inspect()
    const found = await inspect(path)
    expect(found).toMatchObject({
      name,
      parameters,
      fileBytes,
      tensorTypes,
      hasChatTemplate,
      bitsPerWeight,
      format: 'folder',
      architecture: 'llama',
      layers: 2,
      headDim: 32,
      tiedHead: true,
      refusal: null,
      warnings: [],
    })
    expect(found.tensorBytes).toEqual({ F32: parameters * 4 })
    expect(await inspect(pathToFileURL(path))).toEqual(found)
  })

  it('describes a model that cannot be run, and says why', async () => {
    const bytes = await unknown()
    const found = await inspect(bytes, { name: 'alpha.gguf' })
    expect(found).toMatchObject({
      format: 'gguf',
      architecture: 'alpha',
      vocabSize: 256,
      hiddenSize: 64,
      layers: 2,
      tensorTypes: { F32: 20 },
      refusal: { code: 'ERR_UNSUPPORTED', message: expect.stringContaining('"alpha"') },
    })
    await expect(Model.load(bytes, { name: 'alpha.gguf' })).rejects.toMatchObject(
      found.refusal as object,
    )
    const file = join(folder, 'alpha.gguf')
    writeFileSync(file, bytes)
    expect(await inspect(file)).toMatchObject({ architecture: 'alpha', layers: 2 })
  })

  it('describes a config.json alone', async () => {
    expect(await inspect(join(path, 'config.json'))).toMatchObject({
      format: 'config',
      architecture: 'llama',
      tensorTypes: {},
      bitsPerWeight: 0,
      refusal: { code: 'ERR_UNSUPPORTED' },
    })
  })

  it('warns of what is left out', async () => {
    const file = join(folder, 'trailing.gguf')
    await (await Model.load(path)).save(file)
    writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(99)]))
    const { warnings, refusal } = await inspect(file)
    expect(warnings).toEqual([expect.stringContaining('99 bytes')])
    expect(refusal).toBeNull()
    expect((await Model.load(file)).inspect().warnings).toEqual(warnings)
  })

  it('refuses what is no model, by name', async () => {
    await expect(inspect(join(folder, 'absent.gguf'))).rejects.toMatchObject({ code: 'ERR_IO' })
    const pointer = new TextEncoder().encode('version https://git-lfs.github.com/spec/v1\n')
    await expect(inspect(pointer, { name: 'm.gguf' })).rejects.toMatchObject({
      code: 'ERR_UNSUPPORTED',
      details: { file: 'm.gguf', name: 'a Git LFS pointer' },
    })
    await expect(inspect(7 as unknown as string)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  })
})
