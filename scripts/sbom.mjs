// npm run sbom: the parts of the npm package as a CycloneDX bill of materials, sbom.cdx.json. It is
// written again whenever the package is packed, for the platform whose addon is packed. No clock, no
// chance: the same sources on the same platform give the same bytes.
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { crateTree, host, lockedCrates, manifest, runtimePackages } from './dependencies.mjs'
import { root } from './shell.mjs'

/** What the package has of Rust: the crate, its platform where it is always the same, the folder. */
const NATIVE = [
  { crate: 'halfstep-node', part: 'ts/native' },
  { crate: 'halfstep-wasm', platform: 'wasm32-unknown-unknown', part: 'ts/wasm' },
]

/** A licence: an id of the SPDX list, or an expression of several. */
const licences = (text) => [
  /\s|\//.test(text)
    ? { expression: text.replaceAll('/', ' OR ').replace(/ +/g, ' ') }
    : { license: { id: text } },
]

/** The SHA-512 of npm's lock file in hexadecimal digits. */
const fromIntegrity = (integrity) =>
  Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex')

const property = (name, value) => ({ name: `halfstep:${name}`, value })

/** A component; JSON leaves out what is undefined. */
function component({ type, name, version, licence, hash, scope, parts }) {
  const purl = `pkg:${type}/${name.replace('@', '%40')}@${version}`
  return {
    type: 'library',
    'bom-ref': purl,
    name,
    version,
    scope,
    hashes: hash && [hash],
    licenses: licence && licences(licence),
    purl,
    properties: parts.map((part) => property('part', part)),
  }
}

/** The bill of materials as an object; all lists have an order of their own. */
export async function billOfMaterials() {
  const { name, version, description, license } = manifest()
  const self = `pkg:npm/${name}@${version}`
  const components = new Map()
  const needs = new Map([[self, new Set()]])

  const packages = runtimePackages()
  const refs = new Map(
    packages.map((entry) => [
      entry.name,
      `pkg:npm/${entry.name.replace('@', '%40')}@${entry.version}`,
    ]),
  )
  for (const entry of packages) {
    const made = component({
      type: 'npm',
      name: entry.name,
      version: entry.version,
      licence: entry.license,
      hash: { alg: 'SHA-512', content: fromIntegrity(entry.integrity) },
      scope: 'required',
      parts: ['npm'],
    })
    components.set(made['bom-ref'], made)
    const below = Object.keys({ ...entry.dependencies, ...entry.optionalDependencies })
    needs.set(made['bom-ref'], new Set(below.map((one) => refs.get(one)).filter(Boolean)))
    if (entry.name in { ...manifest().dependencies }) needs.get(self).add(made['bom-ref'])
  }

  const checksums = new Map(
    lockedCrates().map((one) => [`${one.name}@${one.version}`, one.checksum]),
  )
  const platform = await host()
  const ref = (id) => `pkg:cargo/${id}`
  for (const { crate, platform: fixed = platform, part } of NATIVE) {
    const tree = await crateTree(crate, fixed)
    needs.get(self).add(ref(tree[0].id))
    for (const one of tree) {
      const checksum = checksums.get(one.id)
      const made = component({
        type: 'cargo',
        name: one.name,
        version: one.version,
        licence: one.licence,
        hash: checksum && { alg: 'SHA-256', content: checksum },
        // What only runs during the build is no part of what is shipped.
        scope: one.isLinked ? 'required' : 'excluded',
        parts: [part],
      })
      const known = components.get(made['bom-ref'])
      if (known === undefined) components.set(made['bom-ref'], made)
      else {
        known.properties.push(...made.properties)
        if (one.isLinked) known.scope = 'required'
      }
      const all = needs.get(made['bom-ref']) ?? new Set()
      for (const id of one.needs) all.add(ref(id))
      needs.set(made['bom-ref'], all)
    }
  }

  const byName = (a, b) => (a < b ? -1 : a > b ? 1 : 0)
  const body = {
    metadata: {
      component: {
        type: 'library',
        'bom-ref': self,
        name,
        version,
        description,
        licenses: licences(license),
        purl: self,
        properties: [property('platform', platform)],
      },
    },
    components: [...components.values()].sort((a, b) => byName(a['bom-ref'], b['bom-ref'])),
    dependencies: [...needs]
      .map(([of, on]) => ({ ref: of, dependsOn: [...on].sort() }))
      .sort((a, b) => byName(a.ref, b.ref)),
  }
  return {
    $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    serialNumber: `urn:uuid:${uuidOf(JSON.stringify(body))}`,
    version: 1,
    ...body,
  }
}

/** A UUID of a text (version 8: of one's own making). */
function uuidOf(text) {
  const bytes = createHash('sha256').update(text).digest().subarray(0, 16)
  bytes[6] = (bytes[6] & 0x0f) | 0x80
  bytes[8] = (bytes[8] & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return [8, 12, 16, 20, 32].map((end, i, ends) => hex.slice(ends[i - 1] ?? 0, end)).join('-')
}

if (process.argv[1]?.endsWith('sbom.mjs')) {
  const path = resolve(process.argv[2] ?? join(root, 'sbom.cdx.json'))
  const bill = await billOfMaterials()
  writeFileSync(path, `${JSON.stringify(bill, null, 1)}\n`)
  console.error(`sbom: ${bill.components.length} components in ${path}`)
}
