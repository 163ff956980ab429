// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.

/** Every code that an error of halfstep can carry. */
export const ERROR_CODES = [
  /**
   * Stopped by an `AbortSignal`, `cancel()` or Ctrl-C; `details.resume` names the folder to resume
   * from, if state was saved.
   */
  'ERR_CANCELLED',
  /** A checkpoint is absent, damaged or of another run. */
  'ERR_CHECKPOINT',
  /** An option is unknown, out of range or in conflict with another. */
  'ERR_CONFIG',
  /**
   * The text cannot be used: it is empty, shorter than a sequence, or in another form than its name
   * says.
   */
  'ERR_DATA',
  /** An operation of the device that trains failed (memory, a lost device). */
  'ERR_DEVICE',
  /** The model was used after `dispose()`. */
  'ERR_DISPOSED',
  /** The bytes of a file do not conform to its format. */
  'ERR_FORMAT',
  /** A bug in halfstep. */
  'ERR_INTERNAL',
  /** A file could not be read or written. */
  'ERR_IO',
  /** A size that a file asks for exceeds its limit, or there is not enough memory. */
  'ERR_MEMORY',
  /** A tensor that the architecture needs is not in the file. */
  'ERR_MISSING_TENSOR',
  /** A loss, gradient or activation is NaN or infinite; nothing was updated. */
  'ERR_NON_FINITE',
  /** Neither the native addon nor WebAssembly could be loaded. */
  'ERR_NO_BUILD',
  /** The written file differs from the trained model; it was removed. */
  'ERR_PARITY',
  /** The shape of a tensor is not the one that the config gives. */
  'ERR_SHAPE',
  /** The target cannot hold the grid that the recipe needs. */
  'ERR_TARGET',
  /** A chat template is wrong, or fails on these messages. */
  'ERR_TEMPLATE',
  /** A chat template used more steps, output or depth than it may. */
  'ERR_TEMPLATE_FUEL',
  /** A vocabulary that no tokenizer can be built from, or a text that it cannot encode. */
  'ERR_TOKENIZER',
  /** A value that the block format cannot hold (a scale that overflows f16). */
  'ERR_UNENCODABLE',
  /**
   * The file needs something that this library does not support (architecture, tensor type, rope
   * type, ...), or is no model at all.
   */
  'ERR_UNSUPPORTED',
] as const

/** What a code means and what to do, for the command line. */
export const ERROR_TEXTS: Readonly<
  Record<(typeof ERROR_CODES)[number], { meaning: string; remedy: string }>
> = {
  ERR_CANCELLED: {
    meaning: "Stopped by an `AbortSignal`, `cancel()` or Ctrl-C; `details.resume` names the folder to resume from, if state was saved.",
    remedy: "nothing, or the same call with `resume`.",
  },
  ERR_CHECKPOINT: {
    meaning: "A checkpoint is absent, damaged or of another run.",
    remedy: "resume with the model, data, recipe and options that the run began with, or begin anew in another run folder.",
  },
  ERR_CONFIG: {
    meaning: "An option is unknown, out of range or in conflict with another.",
    remedy: "the message names the option as you wrote it and what it may be; `halfstep explain <option>` says the rest.",
  },
  ERR_DATA: {
    meaning: "The text cannot be used: it is empty, shorter than a sequence, or in another form than its name says.",
    remedy: "give more text or a shorter `sequenceLength`; documents in JSON have a field `text` or `messages`.",
  },
  ERR_DEVICE: {
    meaning: "An operation of the device that trains failed (memory, a lost device).",
    remedy: "take a smaller batch if it was memory; the run goes on from its last checkpoint.",
  },
  ERR_DISPOSED: {
    meaning: "The model was used after `dispose()`.",
    remedy: "call `dispose()` after the last use, or load the model again.",
  },
  ERR_FORMAT: {
    meaning: "The bytes of a file do not conform to its format.",
    remedy: "download or write the file again, and compare its size and hash with those of its source. The offset is where to look in a file of your own.",
  },
  ERR_INTERNAL: {
    meaning: "A bug in halfstep.",
    remedy: "please report it, with the message and what was called.",
  },
  ERR_IO: {
    meaning: "A file could not be read or written.",
    remedy: "the message has the path and what the system says; look at its spelling, its permissions and the space on the disk.",
  },
  ERR_MEMORY: {
    meaning: "A size that a file asks for exceeds its limit, or there is not enough memory.",
    remedy: "`halfstep plan` tells what a run needs; a smaller batch, a shorter sequence or a recipe that goes layer by layer needs less. A file that asks for more than it could hold is damaged.",
  },
  ERR_MISSING_TENSOR: {
    meaning: "A tensor that the architecture needs is not in the file.",
    remedy: "look for a missing part of the model (`model.safetensors.index.json` lists them) or a config.json of another model.",
  },
  ERR_NON_FINITE: {
    meaning: "A loss, gradient or activation is NaN or infinite; nothing was updated.",
    remedy: "lower the learning rate, and go on from the last checkpoint (`resume`). If it happens at step 0 or without training, a weight of the model is at fault.",
  },
  ERR_NO_BUILD: {
    meaning: "Neither the native addon nor WebAssembly could be loaded.",
    remedy: "`halfstep doctor` says which build is missing; `npm run build` makes it from source.",
  },
  ERR_PARITY: {
    meaning: "The written file differs from the trained model; it was removed.",
    remedy: "write again, to another disk; if it differs again, please report it.",
  },
  ERR_SHAPE: {
    meaning: "The shape of a tensor is not the one that the config gives.",
    remedy: "take config.json and weights from the same revision of the same model.",
  },
  ERR_TARGET: {
    meaning: "The target cannot hold the grid that the recipe needs.",
    remedy: "take one of the targets that the message lists, or leave out the option that asks for the grid.",
  },
  ERR_TEMPLATE: {
    meaning: "A chat template is wrong, or fails on these messages.",
    remedy: "correct the line that the message names in `chat_template.jinja` or `tokenizer_config.json`, or read the text without a template.",
  },
  ERR_TEMPLATE_FUEL: {
    meaning: "A chat template used more steps, output or depth than it may.",
    remedy: "take the template from the source of the model; one that needs so much never ends, or was made to do harm.",
  },
  ERR_TOKENIZER: {
    meaning: "A vocabulary that no tokenizer can be built from, or a text that it cannot encode.",
    remedy: "take `tokenizer.json` (or `tokenizer.model`) from the source of the model.",
  },
  ERR_UNENCODABLE: {
    meaning: "A value that the block format cannot hold (a scale that overflows f16).",
    remedy: "take a target whose scales are wider (`halfstep`), or leave that weight in floating point by a rule.",
  },
  ERR_UNSUPPORTED: {
    meaning: "The file needs something that this library does not support (architecture, tensor type, rope type, ...), or is no model at all.",
    remedy: "the message says what is supported instead; `halfstep inspect` shows what a model has before anything is run.",
  },
}
