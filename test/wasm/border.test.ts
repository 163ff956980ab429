import { expect, it } from 'vitest'
import * as halfstep from '../../ts/src/wasm.js'
import { answers, EXACT, exact } from '../ts/border.js'
import { temporaryFolder, tinyModel } from '../ts/tiny-model.js'

const path = tinyModel(temporaryFolder())

it('refuses every wrong argument and option by its name, as the addon does', async () => {
  const { failures, count, missing } = await answers(halfstep, path)
  console.log(`border, WebAssembly: ${count} wrong arguments`)
  expect(failures).toEqual([])
  expect(missing).toEqual([])
  expect(count).toBeGreaterThan(2500)
})

it('keeps what is right exactly', async () => {
  expect(await exact(halfstep, path)).toEqual(EXACT)
})
