/**
 * Flags of the command line that have another name than in v0.1.0: theirs -> ours. A key is a flag,
 * for all its values, or a flag and a value: '--start lsq': '--init lsq'. Every revision has its
 * own table, so that the cases of same-bytes.mjs, written with the names of v0.1.0, run on any.
 */
export const RENAMED = {
  '--window': '--sequence-length',
  '--start': '--observer',
  '--learn-steps': '--learn-scales',
  '--no-learn-steps': '--no-learn-scales',
  '--weight-step-multiplier': '--weight-scale-multiplier',
  '--activation-step-multiplier': '--activation-scale-multiplier',
  '--gradient-scale step': '--gradient-scale group',
  '--gradient-scale layer': '--gradient-scale matrix',
  '--saliency-place': '--saliency-difference',
}
