// Perplexity, KL to the full-precision model and top-1 agreement of several files on several texts. Prints a markdown table for docs/results.md.
//
//     npm run build && node bench/quality.mjs <tokens> <full-precision model> <text,text> <model> ...
//
// Windows of 512. The first row is the full-precision model itself.
import { basename } from 'node:path'
import { Model } from '../ts/dist/index.js'

const [tokens, full, texts, ...files] = process.argv.slice(2)
if (files.length === 0) throw new Error('usage: node bench/quality.mjs <tokens> <full-precision model> <text,text> <model> ...')

const reference = await Model.load(full)
console.log('| model | file bytes | text | KL | perplexity | top-1 | predictions |\n|---|---|---|---|---|---|---|')
for (const file of [full, ...files]) {
  const model = await Model.load(file)
  for (const data of texts.split(',')) {
    const against = file === full ? undefined : { against: reference }
    const { kl, perplexity, top1Agreement, predictions } = await model.evaluate({ data, tokens: Number(tokens) }, against)
    const cells = [
      basename(file),
      model.inspect().fileBytes,
      basename(data),
      kl?.toFixed(4) ?? '-',
      perplexity.toFixed(3),
      top1Agreement?.toFixed(4) ?? '-',
      predictions,
    ]
    console.log(`| ${cells.join(' | ')} |`)
  }
  model.dispose()
}
