// An earlier revision of this repository, built next to the working tree for comparisons.
import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fail, must, root } from './shell.mjs'

/** What comparisons are made with unless told otherwise. A clone without tags knows the commit. */
export const BASELINE = 'v0.1.0'
const BASELINE_COMMIT = 'b0634ae671b6544f45a6264808193acffac9a1ea'

function git(args, cwd = root) {
  try {
    return execFileSync('git', args, {
      cwd,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    return undefined
  }
}

/** The commit that `revision` names; ends the program when this clone does not hold it. */
function commitOf(revision) {
  const named = (name) => git(['rev-parse', '--verify', '--quiet', `${name}^{commit}`])
  const commit = named(revision) ?? (revision === BASELINE ? named(BASELINE_COMMIT) : undefined)
  if (commit !== undefined) return commit
  if (git(['rev-parse', '--git-dir']) === undefined)
    fail('an earlier revision can only be built in a git clone, which this folder is not')
  return fail(`${revision} is not in this clone; git fetch --tags --unshallow brings the history`)
}

/**
 * Builds `revision` and the working tree, each by its own `npm run build`, then by `cargo build
 * --release` with each list of arguments in `programs`. What is up to date is not built again.
 * @returns {Promise<{ old: Build, now: Build }>} a build is { name, root, target, cli }.
 */
export async function twoBuilds(revision, programs = []) {
  const commit = commitOf(revision)
  const folder = join(root, '.cache/same-bytes', commit.slice(0, 12))
  const old = build(revision, folder, join(folder, 'target'))
  const now = build('working tree', root, process.env.CARGO_TARGET_DIR ?? join(root, 'target'))
  // The working tree first: its packages serve the revision too.
  await compile(now, programs)
  checkOut(commit, folder)
  await compile(old, programs)
  return { old, now }
}

async function compile({ root: cwd, target }, programs) {
  // A target folder that both shared would hold the programs of whichever was built last.
  const options = { cwd, env: { CARGO_TARGET_DIR: target } }
  await must('npm', ['run', '--silent', 'build'], options)
  for (const args of programs)
    await must('cargo', ['build', '--release', '--quiet', ...args], options)
}

function build(name, folder, target) {
  return {
    name,
    root: folder,
    target,
    cli: join(folder, 'ts/dist/cli.js'),
  }
}

/** A git worktree of `commit` at `folder`, with the packages of the working tree if they fit. */
function checkOut(commit, folder) {
  const done = (args, cwd) =>
    git(args, cwd) ?? fail(`git ${args.join(' ')} failed in ${cwd}; remove ${folder} and try again`)
  mkdirSync(dirname(folder), { recursive: true })
  // Forced: git may remember a worktree here whose folder was deleted.
  if (!existsSync(join(folder, '.git')))
    done(['worktree', 'add', '--force', '--detach', folder, commit], root)
  done(['checkout', '--force', '--detach', commit], folder)
  const [modules, own] = [join(folder, 'node_modules'), join(root, 'node_modules')]
  if (lstatSync(modules, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(modules)
  const lock = (path) => readFileSync(join(path, 'package-lock.json'), 'utf8')
  // With another lock file the revision installs its own packages.
  if (lock(folder) === lock(root) && existsSync(own) && !existsSync(modules))
    symlinkSync(own, modules, 'junction')
}
