import { fromJson, toJson } from './arguments.js'
import { HalfstepError } from './errors.js'

type Files = typeof import('node:fs/promises')

/**
 * Node's file functions, or null where there are none. The name is a variable so that bundlers for
 * browsers leave it alone.
 */
export async function nodeFiles(): Promise<Files | null> {
  if (typeof process === 'undefined' || !process.versions?.node) return null
  const name = 'node:fs/promises'
  return (await import(/* @vite-ignore */ /* webpackIgnore: true */ name)) as Files
}

/** A Hugging Face folder: what of it a model can need, read one by one. */
export interface ModelFolder {
  names: string[]
  read(name: string): Promise<Uint8Array>
}

/** A model's bytes, from disk where there is one, else fetched; or its folder on disk. */
export async function modelFiles(path: string): Promise<Uint8Array | ModelFolder> {
  const files = await nodeFiles()
  if (!files || /^(https?|blob|data):/.test(path)) return fetched(path)
  const isFolder = await onDisk(path, async () => (await files.stat(path)).isDirectory())
  if (!isFolder) return onDisk(path, () => files.readFile(path))
  const names = await onDisk(path, () => files.readdir(path))
  const read = (name: string) => onDisk(`${path}/${name}`, () => files.readFile(`${path}/${name}`))
  return { names: names.filter((name) => /\.(json|jinja|safetensors)$/.test(name)), read }
}

async function fetched(url: string): Promise<Uint8Array> {
  const response = await onDisk(url, () => fetch(url))
  if (!response.ok) throw ioError(url, `HTTP status ${response.status}`)
  return new Uint8Array(await onDisk(url, () => response.arrayBuffer()))
}

/**
 * A config whose paths are replaced by the texts they name; `fields` says which field takes the
 * text of which.
 */
export async function textsInline(config: string, fields: Record<string, string>): Promise<string> {
  const parsed = fromJson(config) as Record<string, unknown>
  for (const [pathField, textField] of Object.entries(fields)) {
    const path = parsed[pathField]
    // Both, or something that is no path: the core says what is wrong.
    if (typeof path !== 'string' || parsed[textField] !== undefined) continue
    const files = await nodeFiles()
    if (!files) throw unsupported(path, pathField, `there are no files here: give ${textField}`)
    const bytes = await onDisk(path, () => files.readFile(path))
    parsed[textField] = decoded(path, bytes)
    delete parsed[pathField]
  }
  return toJson('options', parsed)
}

function decoded(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    const reason = 'not UTF-8 text'
    throw new HalfstepError('ERR_DATA', `${path}: ${reason}`, { data: path, reason })
  }
}

/** Writes a file whole or not at all: under another name, synced, renamed. */
export async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const files = await nodeFiles()
  if (!files) throw unsupported(path, 'save', 'there are no files here: use toBytes')
  const temporary = `${path}.${process.pid}.tmp`
  await onDisk(path, async () => {
    try {
      const file = await files.open(temporary, 'wx')
      try {
        await file.writeFile(bytes)
        await file.sync()
      } finally {
        await file.close()
      }
      await files.rename(temporary, path)
    } catch (error) {
      await files.rm(temporary, { force: true })
      throw error
    }
  })
}

async function onDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw ioError(path, error instanceof Error ? error.message : String(error))
  }
}

function ioError(path: string, reason: string): HalfstepError {
  return new HalfstepError('ERR_IO', `${path}: ${reason}`, { path, reason })
}

function unsupported(file: string, name: string, reason: string): HalfstepError {
  return new HalfstepError('ERR_UNSUPPORTED', `${file}: ${name} is not supported: ${reason}`, {
    file,
    name,
    reason,
  })
}
