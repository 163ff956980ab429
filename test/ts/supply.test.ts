/** What the package is made of: licences, sources, scripts, dated exceptions and the SBOM. */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const script = (name: string) => import(new URL(`../../scripts/${name}`, import.meta.url).href)
const DAY = 24 * 60 * 60 * 1000

interface Exception {
  id: string
  since: string
  until: string
}
interface Component {
  'bom-ref': string
  type: string
  name: string
  version: string
  scope: string
  purl: string
  hashes?: { alg: string; content: string }[]
  licenses: ({ license: { id: string } } | { expression: string })[]
  properties: { name: string; value: string }[]
}
interface Bill {
  bomFormat: string
  specVersion: string
  serialNumber: string
  version: number
  metadata: { component: Component }
  components: Component[]
  dependencies: { ref: string; dependsOn: string[] }[]
}

describe('supply', () => {
  it('has no fault that can be found without a network', async () => {
    const { offline } = await script('supply.mjs')
    const { faults, counts } = await offline()
    expect(faults).toEqual([])
    expect(counts.runtimePackages).toBeGreaterThan(0)
    expect(counts.crates).toBeGreaterThan(100)
    expect(counts.buildScripts).toBeGreaterThan(20)
    console.log(`supply: ${JSON.stringify(counts)}`)
  })

  it.each([
    ['MIT', true],
    ['GPL-3.0', false],
    ['MIT OR GPL-3.0', true],
    ['GPL-3.0/MIT', true],
    ['MIT AND GPL-3.0', false],
    ['(MIT OR GPL-3.0) AND Unicode-3.0', true],
    ['(MIT OR GPL-3.0) AND GPL-3.0', false],
    ['Apache-2.0 WITH LLVM-exception', false],
    ['GPL-3.0 OR Apache-2.0 WITH LLVM-exception OR MIT', true],
    ['', false],
    ['MIT OR', false],
  ])('takes the licence %j: %j', async (expression, expected) => {
    const { isAllowed } = await script('dependencies.mjs')
    expect(isAllowed(expression, ['MIT', 'Unicode-3.0'])).toBe(expected)
  })

  it('lets an exception end on its day, in npm run supply and not here', async () => {
    const { exceptions, expired } = await script('supply.mjs')
    for (const { id, until } of exceptions() as Exception[]) {
      const ids = (now: number) => expired(now).map((one: Exception) => one.id)
      expect(ids(Date.parse(until))).not.toContain(id)
      expect(ids(Date.parse(until) + DAY)).toContain(id)
    }
  })

  it('has unsafe code only where SECURITY.md says', () => {
    const [, section = ''] = read('SECURITY.md').split('## Unsafe code\n')
    const [list = ''] = section.split('\n## ')
    const items = (list.match(/^- .*$/gm) ?? []).join('\n')
    const places = [...items.matchAll(/`(crates\/[^`]+)`/g)].map(([, path = '']) => path)
    expect(places.length).toBeGreaterThan(3)
    const sources = readdirSync(join(ROOT, 'crates'), { recursive: true, encoding: 'utf8' })
      .map((path) => `crates/${path.replaceAll('\\', '/')}`)
      .filter((path) => /^crates\/\w+\/(src|build)\b.*\.rs$/.test(path))
    expect(sources.length).toBeGreaterThan(200)
    const unsafe = sources.filter((path) => /allow\(unsafe_code\)/.test(read(path)))
    const elsewhere = unsafe.filter((path) => !places.some((place) => path.startsWith(place)))
    expect(elsewhere).toEqual([])
    const unused = places.filter((place) => !unsafe.some((path) => path.startsWith(place)))
    expect(unused).toEqual([])
    expect(read('Cargo.toml')).toMatch(/^unsafe_code = "deny"$/m)
    expect(read('Cargo.toml')).toMatch(/^undocumented_unsafe_blocks = "deny"$/m)
  })
})

describe('SBOM', () => {
  let bill: Bill
  let again: Bill
  beforeAll(async () => {
    const { billOfMaterials } = await script('sbom.mjs')
    bill = JSON.parse(JSON.stringify(await billOfMaterials()))
    again = JSON.parse(JSON.stringify(await billOfMaterials()))
  })
  afterAll(() => console.log(`SBOM: ${bill.components.length} components`))

  it('has the structure of CycloneDX 1.6', () => {
    expect(bill).toMatchObject({ bomFormat: 'CycloneDX', specVersion: '1.6', version: 1 })
    expect(bill.serialNumber).toMatch(/^urn:uuid:[\da-f]{8}-([\da-f]{4}-){3}[\da-f]{12}$/)
    const known = new Set([bill.metadata.component['bom-ref']])
    for (const component of bill.components) {
      expect(component.type).toBe('library')
      expect(component.name).not.toBe('')
      expect(component.version).toMatch(/^\d+\.\d+\.\d+/)
      expect(component.purl).toBe(component['bom-ref'])
      expect(component.purl).toMatch(/^pkg:(npm|cargo)\/[^@]+@\d/)
      expect(['required', 'excluded']).toContain(component.scope)
      expect(component.licenses).toHaveLength(1)
      for (const { alg, content } of component.hashes ?? [])
        expect(content).toMatch(alg === 'SHA-256' ? /^[\da-f]{64}$/ : /^[\da-f]{128}$/)
      expect(known.has(component['bom-ref'])).toBe(false)
      known.add(component['bom-ref'])
    }
    expect(bill.dependencies.map(({ ref }) => ref).sort()).toEqual([...known].sort())
    for (const { dependsOn } of bill.dependencies)
      for (const ref of dependsOn) expect(known).toContain(ref)
  })

  it('is the same whenever it is made', () => expect(again).toEqual(bill))

  it('has every package that is installed with ours', () => {
    const lock = JSON.parse(read('package-lock.json')) as {
      packages: Record<string, { version: string; dev?: boolean; integrity: string }>
    }
    const installed = Object.entries(lock.packages).filter(
      ([path, { dev }]) => path !== '' && dev !== true,
    )
    expect(installed.length).toBeGreaterThan(0)
    const listed = bill.components.filter(({ purl }) => purl.startsWith('pkg:npm/'))
    expect(listed.map(({ name, version }) => `${name}@${version}`).sort()).toEqual(
      installed.map(([path, { version }]) => `${path.replace(/^.*node_modules\//, '')}@${version}`),
    )
    for (const { name, hashes } of listed) {
      const { integrity } = lock.packages[`node_modules/${name}`] ?? { integrity: '' }
      const hash = Buffer.from(hashes?.[0]?.content ?? '', 'hex').toString('base64')
      expect(integrity).toBe(`sha512-${hash}`)
    }
  })

  it.each([
    ['halfstep-node', []],
    ['halfstep-wasm', ['--target', 'wasm32-unknown-unknown']],
  ])('has every crate of %s, by the checksum of Cargo.lock', (crate, target) => {
    const args = ['tree', '--locked', '--package', crate, '--edges', 'normal', '--prefix', 'none']
    const tree = execFileSync('cargo', [...args, '--no-dedupe', '--format', '{p}', ...target], {
      cwd: ROOT,
      encoding: 'utf8',
    })
    const names = new Set(
      [...tree.matchAll(/^(\S+) v(\S+)/gm)].map(([, name, version]) => `${name}@${version}`),
    )
    expect(names.size).toBeGreaterThan(20)
    const lock = read('Cargo.lock')
    for (const id of names) {
      const component = bill.components.find(({ purl }) => purl === `pkg:cargo/${id}`)
      expect(component, id).toBeDefined()
      const [name, version] = id.split('@')
      const [, entry = ''] = lock.split(`name = "${name}"\nversion = "${version}"\n`)
      const [, checksum] = /^checksum = "(.*)"/m.exec(entry.split('[[package]]')[0] ?? '') ?? []
      expect([id, component?.hashes?.[0]?.content]).toEqual([id, checksum])
    }
  })

  it('is in the tarball', () => {
    const { files, scripts } = JSON.parse(read('package.json'))
    expect(files).toContain('sbom.cdx.json')
    expect(scripts.prepack).toBe('node scripts/sbom.mjs')
  })
})
