import { existsSync, readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { browserPath, launch } from '../browser.js'
import { demo, root } from './demo.js'

const TYPES: Record<string, string> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
}

const { bytes, text, expected } = await demo()
const PAGE = `<!doctype html><script type="module">
  import * as halfstep from '/ts/dist/wasm.js'
  import { scenario } from '/test/wasm/scenario.mjs'
  window.run = async () => {
    const [bytes, text] = await Promise.all([
      fetch('/demo.gguf').then((r) => r.arrayBuffer()),
      fetch('/text.txt').then((r) => r.text()),
    ])
    return scenario(halfstep, new Uint8Array(bytes), text)
  }
  window.loadByUrl = async () => {
    const model = await halfstep.Model.load(new URL('/demo.gguf', location.href))
    return model.inspect().parameters
  }
  window.pathInBrowser = () => halfstep.Model.load(new URL('/demo.gguf', location.href))
    .then((model) => model.evaluate({ data: 'text.txt' })).catch((error) => error.code)
  window.ready = true
</script>`

let server: Server
let origin: string

beforeAll(async () => {
  server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://localhost').pathname
    const made: Record<string, string | Uint8Array> = {
      '/': PAGE,
      '/demo.gguf': bytes,
      '/text.txt': text,
    }
    const file = join(root, path)
    const body =
      made[path] ??
      (/^\/(ts\/(dist|wasm)|test\/wasm)\//.test(path) && existsSync(file)
        ? readFileSync(file)
        : undefined)
    response.writeHead(body === undefined ? 404 : 200, {
      'content-type': TYPES[path === '/' ? '.html' : extname(path)] ?? 'application/octet-stream',
    })
    response.end(body)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => server.close())

it.skipIf(browserPath === undefined)(
  'does in a browser what the native build does, to the byte',
  async () => {
    const browser = await launch()
    try {
      const page = await browser.newPage()
      const complaints: string[] = []
      page.on('pageerror', (error) => complaints.push(error.message))
      page.on(
        'console',
        (message) =>
          message.type() === 'error' &&
          complaints.push(`${message.text()} ${message.location().url}`),
      )
      await page.goto(origin)
      await page
        .waitForFunction('window.ready', undefined, { timeout: 30_000 })
        .catch((error) => complaints.push(String(error)))
      expect(complaints.filter((complaint) => !complaint.includes('favicon'))).toEqual([])
      expect(await page.evaluate('window.run()')).toEqual(expected)
      expect(await page.evaluate('window.loadByUrl()')).toBe(expected.inspection.parameters)
      expect(await page.evaluate('window.pathInBrowser()')).toBe('ERR_UNSUPPORTED')
    } finally {
      await browser.close()
    }
  },
)
