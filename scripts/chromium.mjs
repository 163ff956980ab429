// A browser for the WebAssembly test: Debian's chromium where it is missing and can be installed
// without asking. Elsewhere the test is a counted skip.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const BROWSERS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

export function chromium() {
  const isRoot = process.getuid?.() === 0
  if (
    process.platform !== 'linux' ||
    !isRoot ||
    !existsSync('/usr/bin/apt-get') ||
    BROWSERS.some((path) => existsSync(path))
  )
    return
  console.log('installing chromium for the browser test')
  const apt = (...args) =>
    spawnSync('apt-get', ['-qq', ...args], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
  apt('update')
  if (apt('install', '-y', '--no-install-recommends', 'chromium').status !== 0)
    console.log('chromium could not be installed: the browser test will be skipped')
}
