const Q4_0 = { target: 'gguf:q4_0', cache: 8 }

/**
 * The same path through any build of halfstep: a model from bytes, rounded to nearest, written,
 * read again, run and measured; and two refusals.
 * Plain JavaScript, because a browser loads it as it stands. What is returned depends on no clock
 * and no machine.
 */
export async function scenario({ Model, quantize, recipes }, bytes, text, grid = Q4_0) {
  const model = await Model.load(bytes, { name: 'demo.gguf' })
  const run = quantize(model, recipes.rtn(grid))
  const { model: made, report } = await run.result
  const file = await made.toBytes()
  const small = await Model.load(file, { name: 'small.gguf' })

  const stream = small.generate({ prompt: text.slice(0, 60), maxTokens: 24 })
  const pieces = []
  for await (const piece of stream) pieces.push(piece)
  const { tokensPerSecond: _, ...generation } = await stream.result
  const sampled = await small.generate({
    prompt: text.slice(0, 60),
    maxTokens: 24,
    temperature: 0.9,
    topP: 0.95,
    seed: 7,
  }).result
  const measured = await small.evaluate(
    { text, tokens: 256, sequenceLength: 64 },
    { against: model },
  )
  const { tokensPerSecond: __, ...evaluation } = measured

  return {
    inspection: small.inspect(),
    bitsPerWeight: report.bitsPerWeight,
    file: { bytes: file.length, sha256: await sha256(file) },
    pieces,
    generation,
    sampled: sampled.tokens,
    evaluation,
    isTimed: measured.tokensPerSecond > 0 && measured.tokensPerSecond < 1e9,
    damaged: await refusal(Model.load(bytes.slice(0, bytes.length / 2), { name: 'half.gguf' })),
    impossible: await refusal(quantize(model, recipes.rtn({ weights: 4.5 })).result),
  }
}

async function sha256(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

async function refusal(promise) {
  const error = await promise.then(
    () => ({}),
    (error) => error,
  )
  return { code: error.code, message: error.message, details: error.details }
}
