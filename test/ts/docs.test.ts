import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const FOLDERS = 'assets|bench|crates|docs|scripts|test|tools|ts'
/** Folders that a build writes. */
const BUILT = /^ts\/(dist|native|wasm)\b/
/** The file that a reader of CONTRIBUTING.md is asked to add. */
const WORKED_EXAMPLE = 'crates/core/src/recipes/clip_then_scales.rs'

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const tracked = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: ROOT,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && existsSync(join(ROOT, path)))
const PAGES = tracked.filter((path) => /^([A-Z]+\.md|(docs|bench|assets)\/.*\.md)$/.test(path))
const SOURCES = tracked.filter((path) =>
  /^(crates|ts|bench|scripts|test)\/.*\.(rs|ts|mjs)$/.test(path),
)

/** GitHub's anchor of a heading. */
const anchor = (heading: string) =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replace(/ /g, '-')
const anchors = (page: string) =>
  [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchor(heading ?? ''))

/** Paths from the repository's root that a text names, as far as a placeholder like `<name>`. */
function paths(text: string): string[] {
  const found = text.matchAll(
    new RegExp(`(?<![\\w./:@-])(?:${FOLDERS})/[\\w./-]*[\\w/](?:<\\w+>)?`, 'g'),
  )
  return [...found].map(([path]) => (path.endsWith('>') ? dirname(path) : path))
}

/** Targets of relative links, from the repository's root, with their anchors. */
function links(page: string): { path: string; hash: string | undefined }[] {
  return [...read(page).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target ?? '')
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [file, hash] = target.split('#')
      return { path: file === '' ? page : normalize(join(dirname(page), file ?? '')), hash }
    })
}

describe('documentation', () => {
  it('has the pages that readers begin with', () => {
    for (const page of ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'docs/architecture.md'])
      expect(PAGES).toContain(page)
  })

  it.each(PAGES)('%s names only paths that exist', (page) => {
    const missing = paths(read(page)).filter(
      (path) => !BUILT.test(path) && path !== WORKED_EXAMPLE && !existsSync(join(ROOT, path)),
    )
    expect(missing).toEqual([])
  })

  it.each(PAGES)('%s links only to pages and headings that exist', (page) => {
    const broken = links(page).filter(
      ({ path, hash }) =>
        !existsSync(join(ROOT, path)) ||
        (hash !== undefined && path.endsWith('.md') && !anchors(path).includes(hash)),
    )
    expect(broken).toEqual([])
  })

  it('is there where a comment refers to it', () => {
    const missing = SOURCES.flatMap((source) =>
      [...read(source).matchAll(/\b(?:docs|bench)\/[\w/.-]+\.md\b/g)]
        .filter(([page]) => !existsSync(join(ROOT, page)))
        .map(([page]) => `${source}: ${page}`),
    )
    expect(missing).toEqual([])
  })

  it('names only functions that exist in docs/architecture.md', () => {
    const sources = SOURCES.filter((path) => /^(crates|ts)\//.test(path))
      .map(read)
      .join('\n')
    const named = [...read('docs/architecture.md').matchAll(/`(?:\w+::)*(\w+)\(\)`/g)]
    expect(named.length).toBeGreaterThan(10)
    const missing = named
      .map(([, name]) => name ?? '')
      .filter((name) => !new RegExp(`\\b(fn|function) ${name}\\b`).test(sources))
    expect(missing).toEqual([])
  })
})

describe('docs/reliability.md', () => {
  it('has each of the forty goals once, with its state, a test that exists and figures', () => {
    const rows = [...read('docs/reliability.md').matchAll(/^\| ([A-Z]\d+) \|(.*)\|$/gm)].map(
      ([, id = '', rest = '']) => ({ id, cells: rest.split('|').map((cell) => cell.trim()) }),
    )
    const counts = { F: 9, T: 10, N: 6, W: 3, H: 4, S: 3, Q: 5 }
    const ids = Object.entries(counts).flatMap(([letter, count]) =>
      Array.from({ length: count }, (_, i) => `${letter}${i + 1}`),
    )
    expect(ids).toHaveLength(40)
    expect(rows.map(({ id }) => id)).toEqual(ids)
    for (const { id, cells } of rows) {
      expect([id, cells.length]).toEqual([id, 4])
      const [, state = '', test = '', figures = ''] = cells
      expect(['met', 'partly', 'not met', 'not measured', 'no such part']).toContain(state)
      if (state === 'met' || state === 'partly') expect([id, paths(test)]).not.toEqual([id, []])
      expect([id, figures]).not.toEqual([id, ''])
    }
  })
})

/** Rows of cells; the first row is the header. */
type Table = string[][]

/** A table of a lab page, and the name of the CSV file that has its numbers. */
function labTables(page: string): { file: string; table: Table }[] {
  const found = read(page).matchAll(/((?:^\|.*\n)+)\nData: \[.*\]\((.*\.csv)\)$/gm)
  return [...found].map(([, text = '', file = '']) => ({
    file: normalize(join(dirname(page), file)),
    table: text
      .trimEnd()
      .split('\n')
      .filter((_, line) => line !== 1)
      .map((line) => line.slice(1, -1).split('|').map(plain)),
  }))
}

/** A cell without bold type, code marks and thousands separators. */
const plain = (cell: string) =>
  cell
    .replace(/\*\*|`/g, '')
    .replace(/(\d),(?=\d{3}\b)/g, '$1')
    .trim()

/**
 * Splits `mean ± standard deviation` in two columns, moves a unit of all cells to the header, and
 * makes names unique: of two columns `perplexity`, each is of the text that a name before it ends
 * with (`KL, plays`).
 */
function columns([header = [], ...rows]: Table): Table {
  const out: string[][] = []
  let text = ''
  header.forEach((title, index) => {
    text = /, .*$/.exec(title)?.[0] ?? text
    const name = header.indexOf(title) === header.lastIndexOf(title) ? title : title + text
    const cells = rows.map((row) => row[index] ?? '')
    const [, unit] = /^[\d.]+ (s|GB)$/.exec(cells.find((cell) => cell !== '') ?? '') ?? []
    const number = new RegExp(`^([\\d.]+ ${unit})?$`)
    if (cells.some((cell) => cell.includes('±'))) {
      const parts = cells.map((cell) => cell.split(' ± '))
      out.push([name, ...parts.map(([mean = '']) => mean)])
      out.push([`${name}, standard deviation`, ...parts.map(([, deviation = '']) => deviation)])
    } else if (unit !== undefined && cells.every((cell) => number.test(cell))) {
      out.push([`${name} (${unit})`, ...cells.map((cell) => cell.split(' ')[0] ?? '')])
    } else {
      out.push([name, ...cells])
    }
  })
  return [header, ...rows].map((_, row) => out.map((c) => c[row] ?? ''))
}

const csv = (table: Table) =>
  table
    .map((row) =>
      row.map((cell) => (/[",]/.test(cell) ? `"${cell.replace(/"/g, '""')}"` : cell)).join(','),
    )
    .map((line) => `${line}\n`)
    .join('')

describe('lab notes', () => {
  it('become data with one number a cell and unique names', () => {
    const table = [
      ['recipe', 'KL, plays', 'top-1', 'KL, Bible', 'top-1', 'memory'],
      ['a', '1.5 ± 0.2', '0.1', '2', '0.3', '0.45 GB'],
      ['b', '3', '0.2', '4', '0.4', ''],
    ]
    expect(columns(table)).toEqual([
      ['recipe', 'KL, plays', 'KL, plays, standard deviation', 'top-1, plays', 'KL, Bible'].concat(
        'top-1, Bible',
        'memory (GB)',
      ),
      ['a', '1.5', '0.2', '0.1', '2', '0.3', '0.45'],
      ['b', '3', '', '0.2', '4', '0.4', ''],
    ])
    expect(plain(' **644,654** ')).toBe('644654')
  })

  const pages = PAGES.filter((page) => /^docs\/lab\/\d/.test(page))

  it('are listed in their table of contents', () => {
    const listed = links('docs/lab/README.md').map(({ path }) => path)
    expect(pages.filter((page) => !listed.includes(page))).toEqual([])
  })

  it('give data for every table', () => {
    for (const page of pages) {
      const tables = read(page).match(/^\|(?:---\|)+$/gm) ?? []
      expect([page, labTables(page).length]).toEqual([page, tables.length])
    }
  })

  it.each(pages)('%s has the numbers of its data files', async (page) => {
    for (const { file, table } of labTables(page))
      await expect(csv(columns(table))).toMatchFileSnapshot(join(ROOT, file))
  })

  it('have no data file without a table', () => {
    const named = pages.flatMap(labTables).map(({ file }) => file)
    const files = readdirSync(join(ROOT, 'docs/lab/data'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => basename(entry.name))
    expect(files.sort()).toEqual(named.map((file) => basename(file)).sort())
  })
})
