/**
 * A real browser for the tests that need one. Where there is none they are skipped, which the
 * closing lines of `npm test` count.
 */
import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'

/** Where a browser may be; HALFSTEP_CHROMIUM names another. */
const BROWSERS = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]
/** The tests run as root in containers, and the browser is to ask nobody for anything. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

export const browserPath = [process.env.HALFSTEP_CHROMIUM, ...BROWSERS].find(
  (path) => path && existsSync(path),
)

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: browserPath, args: FLAGS })
}
