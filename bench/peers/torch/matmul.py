"""torch.matmul, y = x w^T, of the shapes in kernels' benches:  python matmul.py [--threads 2]   One JSON line per shape and dtype."""
import argparse
import json
import statistics
import time

import torch

import llama

SHAPES = [(512, 576, 1536), (512, 1536, 576), (2048, 2048, 2048), (2048, 576, 49152)]         # m, k, n
MIN_SAMPLES, SECONDS = 15, 2.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    llama.keep_freed_memory()
    torch.set_num_threads(a.threads)
    for m, k, n in SHAPES:
        for name, dtype in {"f32": torch.float32, "bf16": torch.bfloat16}.items():
            x, w = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
            samples, until, warm = [], None, time.perf_counter() + 0.5
            while until is None or len(samples) < MIN_SAMPLES or time.perf_counter() < until:
                start = time.perf_counter()
                torch.nn.functional.linear(x, w)
                end = time.perf_counter()
                if until is not None:
                    samples.append(end - start)
                elif end > warm:
                    until = end + SECONDS
            median = statistics.median(samples)
            print(json.dumps({"bench": "c.matmul", "case": f"{name}/forward/{m}x{k}x{n}", "contender": f"torch {torch.__version__}", "dtype": name, "state": "hot", "threads": a.threads,
                              "medianSeconds": median, "leastSeconds": min(samples), "samples": len(samples), "gigaoperationsPerSecond": 2e-9 * m * k * n / median}), flush=True)


if __name__ == "__main__":
    main()
