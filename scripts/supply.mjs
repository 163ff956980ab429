// npm run supply: what halfstep is made of, checked. The first part needs no network and runs in
// npm test too; the rest asks the databases of advisories, and fails when exceptions are too old.
// `--offline` leaves out what needs a network, and says so.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  crates,
  denyList,
  isAllowed,
  lockedCrates,
  lockedPackages,
  manifest,
  runtimePackages,
} from './dependencies.mjs'
import { root, run } from './shell.mjs'

/** Most packages that `npm install halfstep` may bring. */
const MAX_RUNTIME_PACKAGES = 5
/** Scripts of a package that npm runs when it is installed. */
const INSTALL_SCRIPTS = ['preinstall', 'install', 'postinstall', 'prepare']
const REGISTRY = 'registry+https://github.com/rust-lang/crates.io-index'
/** What a build script that downloads something would have to name. */
const FETCHES = /TcpStream|UdpSocket|\b(curl|wget|reqwest|ureq|powershell)\b|git (clone|fetch)/
const MAX_EXCEPTION_DAYS = 30
const DAY = 24 * 60 * 60 * 1000

export const exceptions = () =>
  JSON.parse(readFileSync(join(root, 'scripts', 'supply-exceptions.json'), 'utf8'))

/**
 * Everything that can be checked without a network: a sentence for each fault, and the counts.
 * @param {{ everywhere?: boolean }} options `everywhere` looks at the crates of all platforms, some
 * of which may have to be downloaded.
 */
export async function offline({ everywhere = false } = {}) {
  const faults = []
  const { scripts = {} } = manifest()
  for (const name of INSTALL_SCRIPTS)
    if (name in scripts) faults.push(`package.json: script ${name} would run at installation`)

  const shipped = runtimePackages()
  if (shipped.length > MAX_RUNTIME_PACKAGES)
    faults.push(`${shipped.length} run-time packages, more than ${MAX_RUNTIME_PACKAGES}`)
  const allowed = denyList('allow')
  for (const { name, hasInstallScript, license = '' } of shipped) {
    if (hasInstallScript) faults.push(`npm: ${name} has an install script`)
    if (!isAllowed(license, allowed)) faults.push(`npm: ${name}: licence "${license}"`)
  }
  const packages = lockedPackages()
  for (const { name, integrity = '', resolved = 'https://registry.npmjs.org/' } of packages) {
    if (!integrity.startsWith('sha512-')) faults.push(`npm: ${name} has no SHA-512`)
    if (!resolved.startsWith('https://registry.npmjs.org/'))
      faults.push(`npm: ${name} comes from ${resolved}`)
  }

  const locks = ['Cargo.lock', 'tools/wasm-bindgen/Cargo.lock']
  const locked = locks.flatMap((path) => lockedCrates(path).map((crate) => ({ path, ...crate })))
  const banned = denyList('deny')
  for (const { path, name, source, checksum } of locked) {
    if (source !== undefined && (source !== REGISTRY || checksum === undefined))
      faults.push(`${path}: ${name} comes from ${source}`)
    if (banned.includes(name)) faults.push(`${path}: ${name} speaks to a network`)
  }

  const built = await crates({ everywhere })
  const reviewed = denyList('allow-build-scripts')
  let buildScripts = 0
  for (const { name, version, license, targets } of built) {
    if (!isAllowed(license ?? '', allowed))
      faults.push(`crate ${name} ${version}: licence "${license ?? ''}"`)
    for (const { src_path: path } of targets.filter(({ kind }) => kind.includes('custom-build'))) {
      buildScripts++
      if (!reviewed.includes(name))
        faults.push(`crate ${name} ${version}: read its build script and add it to deny.toml`)
      const code = readFileSync(path, 'utf8').replace(/\/\/.*/g, '')
      const [found] = FETCHES.exec(code) ?? []
      if (found !== undefined) faults.push(`crate ${name} ${version}: ${path} names ${found}`)
    }
  }
  const names = new Set(locked.map(({ name }) => name))
  for (const name of reviewed)
    if (!names.has(name)) faults.push(`deny.toml: no crate ${name} is used`)

  const ignored = denyList('ignore')
  const dated = exceptions()
  for (const { id, of, since, until, reason = '' } of dated) {
    const days = (Date.parse(until) - Date.parse(since)) / DAY
    if (!(days >= 0 && days <= MAX_EXCEPTION_DAYS))
      faults.push(`${id}: ${since} to ${until} is not within ${MAX_EXCEPTION_DAYS} days`)
    if (reason.length < 20) faults.push(`${id}: no reason`)
    if (of === 'crates' && !ignored.includes(id)) faults.push(`${id} is not in deny.toml`)
  }
  for (const id of ignored)
    if (!dated.some((one) => one.id === id && one.of === 'crates'))
      faults.push(`deny.toml: ${id} has no date in scripts/supply-exceptions.json`)

  return {
    faults,
    counts: {
      runtimePackages: shipped.length,
      packages: packages.length,
      crates: built.length,
      lockedCrates: locked.length,
      buildScripts,
      exceptions: dated.length,
    },
    duplicates: duplicates(lockedCrates()),
  }
}

/** Crates of which there are several versions, with these. */
function duplicates(all) {
  const versions = new Map()
  for (const { name, version } of all) versions.set(name, [...(versions.get(name) ?? []), version])
  return [...versions]
    .filter(([, of]) => of.length > 1)
    .map(([name, of]) => `${name} ${of.join(' and ')}`)
}

/** Exceptions that ended before `now`. */
export const expired = (now = Date.now()) =>
  exceptions().filter(({ until }) => now >= Date.parse(until) + DAY)

/**
 * cargo-deny with deny.toml: advisories, licences, bans and sources of the workspace, and of the tool
 * that builds the WASM module all but the bans, whose build scripts nobody listed.
 */
async function cargoDeny(isOffline) {
  const { output: commands } = await run('cargo', ['--list'], { quiet: true })
  if (!/^ +deny\b/m.test(commands)) return { why: 'it is not installed (cargo install cargo-deny)' }
  const faults = []
  for (const [path, ...checks] of [
    ['Cargo.toml', 'all'],
    ['tools/wasm-bindgen/Cargo.toml', 'advisories', 'licenses', 'sources'],
  ]) {
    const config = ['--manifest-path', path, '--config', 'deny.toml', '--log-level', 'error']
    const network = isOffline ? ['--offline', '--locked'] : ['--locked']
    const { code } = await run('cargo', ['deny', ...config, ...network, 'check'].concat(checks))
    if (code !== 0) faults.push(`cargo-deny found something in ${path}`)
  }
  return { faults }
}

/** npm's advisories for the packages of package-lock.json. */
async function npmAudit() {
  const { output } = await run('npm', ['audit', '--json'], { quiet: true })
  let answer
  try {
    answer = JSON.parse(output)
  } catch {
    return { why: 'npm gave no answer' }
  }
  if (answer.vulnerabilities === undefined)
    return { why: `the registry did not answer: ${answer.message ?? answer.error?.summary ?? ''}` }
  const known = exceptions().filter(({ of }) => of === 'npm')
  const faults = Object.values(answer.vulnerabilities)
    .flatMap(({ via }) => via.filter((one) => typeof one === 'object'))
    .filter(({ url = '' }) => !known.some(({ id }) => url.endsWith(id)))
    .map(({ name, title, url }) => `npm: ${name}: ${title} (${url})`)
  return { faults: [...new Set(faults)] }
}

/** Signatures and provenance of the installed packages. */
async function npmSignatures() {
  const { code, output } = await run('npm', ['audit', 'signatures', '--json'], { quiet: true })
  let answer
  try {
    answer = JSON.parse(output)
  } catch {
    return { why: 'npm gave no answer' }
  }
  if (answer.error !== undefined)
    return { why: `the registry did not answer: ${answer.error.code}` }
  return { faults: code === 0 ? [] : ['npm audit signatures found something'] }
}

if (process.argv[1]?.endsWith('supply.mjs')) {
  const isOffline = process.argv.includes('--offline')
  const { faults, counts, duplicates: twice } = await offline({ everywhere: !isOffline })
  console.log(
    `supply: ${counts.runtimePackages} of at most ${MAX_RUNTIME_PACKAGES} run-time packages, ` +
      `${counts.packages} packages, ${counts.crates} crates, ${counts.buildScripts} build scripts, ` +
      `${counts.exceptions} exceptions`,
  )
  if (twice.length > 0) console.log(`supply: in two versions: ${twice.join(', ')}`)
  for (const { id, package: name, until } of expired())
    faults.push(`the exception ${id} (${name}) ended on ${until}`)
  const checks = { 'cargo-deny': () => cargoDeny(isOffline) }
  if (!isOffline) Object.assign(checks, { 'npm audit': npmAudit, 'npm signatures': npmSignatures })
  else console.log('supply: not checked offline: npm audit, npm signatures')
  for (const [name, check] of Object.entries(checks)) {
    const { faults: found, why } = await check()
    if (found === undefined) {
      console.log(`supply: ${name}: NOT CHECKED: ${why}`)
      // What was not looked at is not clean.
      if (!isOffline) faults.push(`${name} was not checked`)
    } else {
      console.log(`supply: ${name}: ${found.length} found`)
      faults.push(...found)
    }
  }
  for (const fault of faults) console.error(`supply: ${fault}`)
  const clean = isOffline ? 'supply: clean, as far as it was checked' : 'supply: clean'
  console.log(faults.length === 0 ? clean : 'supply: not clean')
  process.exitCode = faults.length === 0 ? 0 : 1
}
