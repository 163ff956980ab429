/**
 * Flags of the command line that have another name than in v0.1.0: theirs -> ours. A key is a flag,
 * for all its values, or a flag and a value: '--start lsq': '--init lsq'. Every revision has its
 * own table, so that the cases of same-bytes.mjs, written with the names of v0.1.0, run on any.
 */
export const RENAMED = {}
