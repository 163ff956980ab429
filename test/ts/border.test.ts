import { describe, expect, it } from 'vitest'
import { fromJson, toJson } from '../../ts/src/arguments.js'
import * as halfstep from '../../ts/src/index.js'
import { answers, EXACT, exact } from './border.js'
import { temporaryFolder, tinyModel } from './tiny-model.js'

const path = tinyModel(temporaryFolder())

it('refuses every wrong argument and option by its name', async () => {
  const { failures, count, missing } = await answers(halfstep, path)
  console.log(`border, addon: ${count} wrong arguments`)
  expect(failures).toEqual([])
  expect(missing).toEqual([])
  expect(count).toBeGreaterThan(3000)
})

it('keeps what is right exactly', async () => {
  expect(await exact(halfstep, path)).toEqual(EXACT)
})

describe('JSON across the border', () => {
  it.each<[unknown]>([
    [{ a: 1, b: undefined, c: [true, null, 'x'] }],
    [{ text: 'smile \ud83d\ude00 \u2028 "' }],
    [[0.1, -0, 1e-7, 123456789012345.6, 5e-324]],
  ])('is written as JSON.stringify writes it: %j', (data) => {
    expect(toJson('data', data)).toBe(JSON.stringify(data))
  })

  it('has whole numbers of 64 bits both ways', () => {
    const data = { a: [2n ** 64n - 1n, -(2n ** 63n)], '#b': '#12345678901234567890', c: '##"#' }
    const json = toJson('data', data)
    expect(json).toContain('18446744073709551615')
    expect(fromJson(json)).toEqual(data)
    expect(fromJson('[9007199254740991, 9007199254740993, -9007199254740993]')).toEqual([
      9007199254740991,
      9007199254740993n,
      -9007199254740993n,
    ])
    // Fractions and powers of ten are no whole numbers.
    expect(fromJson('[0.1234567890123456, 1234567890123456.5, 1e22]')).toEqual([
      0.1234567890123456, 1234567890123456.5, 1e22,
    ])
  })

  it('has no circles, no depths and no holes', () => {
    const circle: Record<string, unknown> = {}
    circle.a = [circle]
    expect(() => toJson('data', circle)).toThrow('a[0]: contains itself')
    let deep: unknown = 1
    for (let i = 0; i < 200; i++) deep = [deep]
    expect(() => toJson('data', deep)).toThrow('nested deeper than 100 levels')
    const hole = new Array(2)
    expect(() => toJson('data', { a: hole })).toThrow('a[0]: must be data')
    expect(() => toJson('data', { a: { '\udc00': 1 } })).toThrow('half a character')
  })
})
