// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.

type Defaults = { readonly [name: string]: string | number | boolean }

export const DEFAULTS = {
  evaluate: {
    arithmetic: "auto",
    threads: 0,
    tokens: 0,
    window: 512,
  } as Defaults,
  generate: {
    maxTokens: 128,
    seed: 0,
    temperature: 0.0,
    threads: 0,
    topK: 0,
    topP: 1.0,
  } as Defaults,
  run: {
    resume: false,
    skipCharacters: 0,
    threads: 0,
  } as Defaults,
  sites: {
    gradientScale: "layer",
    start: "best",
    staticActivations: false,
    target: "gguf:q4_0",
  } as Defaults,
  train: {
    activationStepMultiplier: 10.0,
    batch: 4,
    beta1: 0.9,
    beta2: 0.95,
    ceWeight: 0.0,
    eps: 1e-8,
    klWeight: 1.0,
    learningRate: 0.0002,
    lossBytes: 67108864,
    maxNorm: 1.0,
    minRatio: 0.05,
    normMultiplier: 1.0,
    recompute: "auto",
    seed: 0,
    temperature: 1.0,
    tokens: 50000,
    warmup: 0.1,
    weightDecay: 0.0,
    weightStepMultiplier: 1.0,
    window: 512,
  } as Defaults,
}
