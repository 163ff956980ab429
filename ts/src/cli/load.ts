import { Model } from '../model-node.js'

/** Loads a model and says on stderr what was set right or left out in reading it. */
export async function loadModel(path: string, signal: AbortSignal): Promise<Model> {
  const model = await Model.load(path, { signal })
  for (const warning of model.inspect().warnings) console.error(`warning: ${warning}`)
  return model
}
