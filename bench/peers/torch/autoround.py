"""AutoRound (SignRound, arXiv 2309.05516) on the CPU: affine grids, the blocks' linears only, its own defaults but for what stands here.

    python autoround.py <model.gguf> <output folder> --text text.txt [--skip-characters 300000] [--bits 3] [--group 64] [--iterations 50]
                        [--windows 32] [--window 512] [--batch 8] [--dtype f32|bf16] [--compile] [--threads 2]

Calibrates on the first windows of the text. Writes the dequantized model as a Hugging Face folder in f32, which `halfstep eval` reads, and prints one JSON line.
AutoRound's own default is bf16 where the CPU knows it, which casts the model; embedding, head and norms are written unrounded all the same. f32 is exact, and faster
where there is no AMX.
"""
import argparse
import importlib.metadata
import json
import time
from pathlib import Path

import torch
from auto_round import AutoRound
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import llama

SCALE_BITS = 16
LINEARS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
           "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OTHERS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path), parser.add_argument("output", type=Path), parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32"), parser.add_argument("--compile", action="store_true")
    for name, value in {"skip-characters": 0, "bits": 3, "group": 64, "iterations": 50, "windows": 32, "window": 512, "batch": 8, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def hugging_face_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    *block, part, kind = name.split(".")
    prefix = f"model.layers.{block[1]}." if block else ""
    return f"{prefix}{(LINEARS | OTHERS)[part]}.{kind}"


def load(path):
    """Configuration, and weights in f32 under Hugging Face's names."""
    shape, weights = llama.load(path)
    vocabulary, width = weights["token_embd.weight"].shape
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=weights["blk.0.ffn_gate.weight"].shape[0], num_hidden_layers=shape.layers,
                         num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, rms_norm_eps=shape.eps, tie_word_embeddings="output.weight" not in weights,
                         rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
                         max_position_embeddings=GGUFReader(path).fields["llama.context_length"].contents())
    return config, {hugging_face_name(name): w for name, w in weights.items()}


def build(config, weights):
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model.eval()


def load_tokenizer(path):
    """transformers takes over a GGUF file's vocabulary and merges but not its splitting of the text: that of smollm sets digits apart first."""
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    splitting = GGUFReader(path).fields["tokenizer.ggml.pre"].contents()
    if splitting == "smollm":
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer])
    elif splitting not in ("gpt-2", "default"):
        raise SystemExit(f"{path}: text is split as by {splitting}, which this script does not know: its token ids would not be the file's own")
    return tokenizer


def calibration_windows(a, tokenizer):
    """The first windows of the text, [windows, window]."""
    text = a.text.read_bytes().decode()[a.skip_characters :]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: a.windows * a.window]
    return torch.tensor(ids).view(a.windows, a.window)


def dequantized(linear, bits, group):
    """(code - zero point) * scale in f32, once it is sure that the weights lie on that grid and the scales are f16."""
    scale, zero_point = (x.float()[..., None] for x in (linear.scale, linear.zp))                # [O, G, 1]
    grouped = linear.weight.float().unflatten(-1, (-1, group))                                    # [O, G, group]
    code = (grouped / scale).round() + zero_point
    assert scale.shape == (*grouped.shape[:2], 1) and torch.equal(scale.half().float(), scale)
    assert torch.equal(zero_point.round(), zero_point) and all(0 <= x.min() and x.max() < 2**bits for x in (code, zero_point))
    w = ((code - zero_point) * scale).flatten(-2)
    assert torch.equal(w.to(linear.weight.dtype), linear.weight)
    return w


def peak_bytes():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def main():
    a = arguments()
    llama.keep_freed_memory()
    torch.set_num_threads(a.threads)
    tokenizer = load_tokenizer(a.model)
    windows = calibration_windows(a, tokenizer)
    model = build(*load(a.model))
    start, cpu_start = time.perf_counter(), time.process_time()
    rounder = AutoRound(model, tokenizer, bits=a.bits, group_size=a.group, sym=False, scale_dtype="fp16", iters=a.iterations, dataset=list(windows.split(a.batch)),
                        nsamples=a.windows, seqlen=a.window, batch_size=a.batch, amp=a.dtype == "bf16", enable_torch_compile=a.compile, device_map="cpu")
    model, _ = rounder.quantize()
    seconds, cpu_seconds, peak = time.perf_counter() - start, time.process_time() - cpu_start, peak_bytes()
    linears = {name: module for name, module in model.named_modules() if name.endswith(tuple(LINEARS.values()))}
    config, weights = load(a.model)
    weights |= {f"{name}.weight": dequantized(linear, a.bits, a.group) for name, linear in linears.items()}
    build(config, weights).save_pretrained(a.output)
    tokenizer.save_pretrained(a.output)
    versions = {name: importlib.metadata.version(name) for name in ("auto-round", "torch", "transformers")}
    dtype = a.dtype + (" compiled" if a.compile else "")
    print(json.dumps({"bench": "autoround", "case": f"w{a.bits}g{a.group}/{a.windows}x{a.window}", "contender": f"auto-round {versions['auto-round']}", "dtype": dtype,
                      "threads": a.threads, "bits": a.bits, "group": a.group, "iterations": a.iterations, "windows": a.windows, "window": a.window, "batch": a.batch,
                      "seconds": seconds, "cpuSeconds": cpu_seconds, "peakBytes": peak, "bitsPerWeight": a.bits + (SCALE_BITS + a.bits) / a.group,
                      "linears": len(linears), "quantizedWeights": sum(x.weight.numel() for x in linears.values()), "versions": versions}))


if __name__ == "__main__":
    main()
