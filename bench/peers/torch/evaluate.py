"""Tokens per second of the two forwards (reference and candidate) that a KL and top-1 evaluation takes, in windows of 512.

    python evaluate.py <model.gguf> [--dtype f32|bf16] [--batch 4] [--windows 4] [--threads 2] [--ids ids.json]

Both models run through the unquantized forward, the least PyTorch has to do. Prints one JSON line; with --ids (an array of token ids) also the mean
negative log-likelihood, to compare with ours.
"""
import argparse
import json
import time

import torch

import llama

WINDOW = 512


def compare(reference, candidate, tokens):
    """Summed KL, top-1 agreements, negative log-likelihood of the next tokens."""
    p, q = (x[:, :-1].float().log_softmax(-1) for x in (reference, candidate))
    kl = (p.exp() * (p - q)).sum()
    top = (p.argmax(-1) == q.argmax(-1)).sum()
    return kl, top, -p.gather(-1, tokens[:, 1:, None]).sum()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model"), parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32"), parser.add_argument("--ids")
    for name, value in {"batch": 4, "windows": 4, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    llama.keep_freed_memory()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    shape, weights = llama.load(a.model)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
    weights = {k: v.to(dtype) for k, v in weights.items()}
    count = a.windows * WINDOW
    ids = torch.tensor(json.load(open(a.ids))[:count]) if a.ids else torch.randint(weights["token_embd.weight"].shape[0], (count,))
    windows = ids.view(-1, WINDOW)
    with torch.inference_mode():
        run = lambda tokens: compare(llama.forward(shape, weights, tokens), llama.forward(shape, weights, tokens), tokens)
        run(windows[: a.batch])
        start = time.perf_counter()
        totals = [run(tokens) for tokens in windows.split(a.batch)]
        seconds = time.perf_counter() - start
    nll = sum(t[2].item() for t in totals) / (windows.shape[0] * (WINDOW - 1))
    print(json.dumps({"bench": "e.eval", "case": "kl, top-1", "contender": f"torch {torch.__version__}", "dtype": a.dtype, "state": "warm", "threads": a.threads, "samples": 1,
                      "tokensPerSecond": count / seconds, "meanNll": nll}))


if __name__ == "__main__":
    main()
