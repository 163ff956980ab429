import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { ERROR_CODES, HalfstepError } from '../../ts/src/index.js'

/** Codes that only JavaScript can give. */
const OURS = ['ERR_DISPOSED', 'ERR_NO_BUILD']

it('knows every code that Rust has, and no other', () => {
  const sources = ['formats', 'runtime', 'core'].map((crate) =>
    readFileSync(new URL(`../../crates/${crate}/src/error.rs`, import.meta.url), 'utf8'),
  )
  const codes = new Set(sources.join('').match(/\bERR_[A-Z_]+\b/g))
  expect([...codes, ...OURS].sort()).toEqual([...ERROR_CODES].sort())
})

it('carries code, fields and cause', () => {
  const error = new HalfstepError('ERR_CONFIG', 'weights: no', { field: 'weights' }, { cause: 1 })
  expect(error).toBeInstanceOf(Error)
  expect(error).toMatchObject({
    name: 'HalfstepError',
    code: 'ERR_CONFIG',
    message: 'weights: no',
    details: { field: 'weights' },
    cause: 1,
  })
})
