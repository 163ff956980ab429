import { describe, expect, it } from 'vitest'
import { Model, plan, quantize, type Recipe, recipes, resolve } from '../../ts/src/index.js'
import { temporaryFolder, tinyModel, tinyText } from './tiny-model.js'

const folder = temporaryFolder()
const [path, data] = [tinyModel(folder), tinyText(folder)]
const train = { samples: 4, sequenceLength: 32, epochs: 1 }

describe('resolve', () => {
  it('gives a whole recipe that trains the same bytes as the built-in one', async () => {
    const model = await Model.load(path)
    const builtIn = recipes.apiq({ rank: 2, train })
    const bytes = async (recipe: typeof builtIn | Recipe) => {
      const { model: small } = await quantize(model, recipe, { data }).result
      return Buffer.from(await small.toBytes()).toString('base64')
    }
    const whole = await resolve(builtIn)
    expect(whole).toMatchObject({ id: 'apiq', target: 'halfstep' })
    expect(whole.stages).toMatchObject([{ scope: 'block', config: { samples: 4 } }])
    const once = await bytes(builtIn)
    expect(await bytes(whole)).toBe(once)
    const changed = await resolve(whole, { 'stages[0].config.phases[0].epochs': 2 })
    expect(await bytes(changed)).not.toBe(once)
    expect(await plan(model, changed, { data })).toMatchObject({ recipe: 'apiq', steps: 16 })
  })

  it('leaves its argument alone, and changes what a change says', async () => {
    const whole = await resolve(recipes.rtn())
    const before = JSON.stringify(whole)
    const changes = { 'rules[0].quantizer.observer': 'absmax', id: 'mine' }
    const changed = await resolve(whole, changes)
    expect(JSON.stringify(whole)).toBe(before)
    expect(changed).toMatchObject({
      id: 'mine',
      rules: [{ quantizer: { observer: 'absmax' } }, {}, {}, {}, {}, {}],
    })
  })

  it.each([
    [{ 'rules[0].quantizer.rang': 'clip' }, 'rules[0].quantizer.rang', 'did you mean range?'],
    [{ 'rules[9].quantizer.range': 'clip' }, 'rules[9]', 'elements 0 to 5'],
    [{ 'rules[0].site': 'weights' }, 'rules[0].site', 'did you mean weight?'],
  ])('refuses %j by its path', async (changes, field, words) => {
    const refusal = {
      code: 'ERR_CONFIG',
      details: { field },
      message: expect.stringContaining(words),
    }
    await expect(resolve(recipes.rtn(), changes)).rejects.toMatchObject(refusal)
  })

  it('is not needed: quantize refuses a wrong recipe by the path too', async () => {
    const model = await Model.load(path)
    const whole = await resolve(recipes.silq())
    const wrong = { ...whole, stages: [{ ...whole.stages[0], trains: { weigths: true } }] }
    await expect(quantize(model, wrong as Recipe, { data }).result).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      details: { field: 'stages[0].trains.weigths' },
    })
  })
})
