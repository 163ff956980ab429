/**
 * What is right for each input, by the beginning of its name. HALFSTEP_CASES names another folder of
 * the same form: inputs there whose names begin in these ways, and texts in `data`.
 */
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { makeInputs, makeTexts } from './make.js'

export interface Right {
  /** It loads, with a warning that says this. */
  warning?: RegExp
  /** It is refused in these words. */
  refused?: RegExp
}

const RIGHT: [RegExp, Right][] = [
  [/^01_/, {}],
  [/^02_/, { warning: /(_token_id|pad|bos|eos).* -1\b.*left out/ }],
  [/^03_refused_half/, { refused: /vocab\.json and merges\.txt belong together/ }],
  [/^03_refused/, { refused: /tokenizer_class/ }],
  [/^11_.*-00001-of-/, {}],
  [/^11_/, { refused: /this is part \d+ of a model in \d+ files.* load it by/ }],
  [/^13_untied_no_head/, { refused: /tensor lm_head\.weight is missing/ }],
  [/^13_untied_no_table/, { refused: /tensor token_embd\.weight is missing/ }],
  [/^13_tied_head_only/, { warning: /is not stored; the head, which is tied to it, is read/ }],
  [/^15_lfs/, { refused: /a Git LFS pointer .*git lfs pull/ }],
  [/^15_page/, { refused: /an HTML page .*download the file itself/ }],
  [/^15_bin/, { refused: /pytorch_model.*save the weights as safetensors/ }],
  [/^15_lora/, { refused: /an adapter.* merge it/ }],
  [/^16_/, { refused: /: I8 is not supported: element type of tensor/ }],
  [/^22_refused_utf16/, { refused: /UTF-16 text .*save it as UTF-8/ }],
  [/^22_refused_latin1/, { refused: /Windows-1252 or Latin-1.*save it as UTF-8/ }],
  [/^25_trailing/, { warning: /bytes after the last tensor are left out/ }],
  [/^26_/, { warning: /is marked special/ }],
  [/^(plain|03_|04_|13_tied|22_|24_|25_)/, {}],
]

/** Runs, which other tests are about. */
const OTHERS = /^(08_|data$|README)/

/** Kinds of texts: refused in these words, or read with a warning that says this. */
const TEXTS: [RegExp, Right][] = [
  [/^refused_utf16/, { refused: /UTF-16 text .*save it as UTF-8/ }],
  [/^refused_latin1/, { refused: /Windows-1252 or Latin-1/ }],
  [/^refused_gzip/, { refused: /a gzip archive/ }],
  [/^refused_parquet/, { refused: /a Parquet table/ }],
  [/^refused_pdf/, { refused: /a PDF document/ }],
  [/^refused_page/, { refused: /an HTML page/ }],
  [/^refused_lfs/, { refused: /a Git LFS pointer/ }],
  [/^refused_prompts\.jsonl/, { refused: /line 1: no string in a field text/ }],
  [/^refused_plain\.jsonl/, { refused: /line 1: not JSON/ }],
  [/^refused_/, { refused: /documents in JSON; .*ends in \.jsonl/ }],
  [/^chat\.txt/, { warning: /spells out special tokens \(\d+, first .*option special decides/ }],
  [/^/, {}],
]

export interface Case extends Right {
  name: string
  path: string
}

function all(folder: string, rules: readonly [RegExp, Right][]): Case[] {
  const names = readdirSync(folder).filter((name) => !OTHERS.test(name))
  return names.map((name) => {
    const right = rules.find(([pattern]) => pattern.test(name))?.[1]
    if (right === undefined) throw new Error(`nothing says what is right for ${name}`)
    return { name, path: join(folder, name), ...right }
  })
}

/** The inputs and texts to walk: written into `folder`, or those of HALFSTEP_CASES. */
export function cases(folder: string): { inputs: Case[]; texts: Case[]; own: boolean } {
  const given = process.env.HALFSTEP_CASES
  if (given) {
    const texts = all(join(given, 'data'), TEXTS)
    return { inputs: all(given, RIGHT), texts, own: false }
  }
  const [inputs, texts] = [join(folder, 'inputs'), join(folder, 'data')]
  for (const made of [inputs, texts]) mkdirSync(made)
  makeInputs(inputs)
  makeTexts(texts)
  return { inputs: all(inputs, RIGHT), texts: all(texts, TEXTS), own: true }
}
