"""Time and peak memory of a training step in PyTorch.

    python silq_step.py <model.gguf> <gguf:q4_0 | halfstep | off | plain> [--dtype f32|bf16] [--compile] [--steps 5] [--batch 4] [--window 512] [--threads 2]

gguf:q4_0, halfstep: teacher forward, student forward through quantizers, KL, backward, clip, AdamW. off: the same without quantizers.
plain: next-token cross-entropy, no teacher. bf16 is autocast over f32 weights, --pure bf16 weights and moments. Prints one JSON line.
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F

import llama
from quantizers import GgufQ4_0, PerChannelW4A8C8, first_step

WARM_UP = 2                                                   # steps that find their memory, and compile
QUANTIZERS = {"gguf:q4_0": GgufQ4_0, "halfstep": PerChannelW4A8C8}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model"), parser.add_argument("setting", choices=[*QUANTIZERS, "off", "plain"])
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32"), parser.add_argument("--pure", action="store_true")
    parser.add_argument("--compile", action="store_true")
    for name, value in {"steps": 5, "batch": 4, "window": 512, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def main():
    a = arguments()
    llama.keep_freed_memory()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    shape, teacher = llama.load(a.model)
    dtype = torch.bfloat16 if a.pure else torch.float32
    teacher = {k: v.to(dtype) for k, v in teacher.items()}
    student = {k: v.clone().requires_grad_() for k, v in teacher.items()}
    quantizer = QUANTIZERS.get(a.setting)
    steps = {}
    if quantizer:
        steps = {k: first_step(v.detach(), quantizer.bits, quantizer.group).requires_grad_() for k, v in student.items() if llama.is_linear(k)}
    quant = quantizer(steps) if quantizer else llama.Exact()
    parameters = [*student.values(), *steps.values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16" and not a.pure)

    def loss_of(tokens):
        if a.setting == "plain":
            logits = llama.forward(shape, student, tokens)
            return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
        with torch.no_grad():
            target = llama.forward(shape, teacher, tokens).flatten(0, 1).float().log_softmax(-1)
        logits = llama.forward(shape, student, tokens, quant).flatten(0, 1).float()
        return F.kl_div(logits.log_softmax(-1), target, reduction="batchmean", log_target=True)

    if a.compile:
        loss_of = torch.compile(loss_of)
    vocabulary = student["token_embd.weight"].shape[0]
    seconds = []
    for _ in range(WARM_UP + a.steps):
        tokens = torch.randint(vocabulary, (a.batch, a.window))
        start = time.perf_counter()
        with autocast:
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    seconds = sorted(seconds[WARM_UP:])
    median = statistics.median(seconds)
    dtype = a.dtype + (" pure" if a.pure else "") + (" compiled" if a.compile else "")
    print(json.dumps({"bench": "d.qat", "case": f"{a.setting}/{a.batch}x{a.window}", "contender": f"torch {torch.__version__}", "dtype": dtype, "state": "warm", "threads": a.threads,
                      "medianSeconds": median, "leastSeconds": seconds[0], "mostSeconds": seconds[-1], "samples": a.steps, "tokensPerSecond": a.batch * a.window / median,
                      "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "loss": loss.item()}))


if __name__ == "__main__":
    main()
