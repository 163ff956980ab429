"""A Llama in plain PyTorch, read from a GGUF file and dequantized to f32: what the other scripts of this folder measure.

Quantizers enter as three functions: weight(name, w), activation(x), cache(x). The identity leaves the model in full precision.
"""
import ctypes
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGUFReader
from gguf.quants import dequantize


def keep_freed_memory():
    """glibc otherwise returns every large tensor to the system, and a step spends a quarter of its time on page faults."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


@dataclass
class Shape:
    layers: int
    heads: int
    kv_heads: int
    eps: float
    rope_base: float


class Exact:
    """No quantizer anywhere."""

    def weight(self, name, w):
        return w

    def activation(self, x):
        return x

    def cache(self, x):
        return x


def load(path):
    """Shape and weights (GGUF names, [out, in], f32). The rows of q and k go back to RoPE by halves, as in the original checkpoint."""
    reader = GGUFReader(path)
    field = lambda key: reader.fields[f"llama.{key}"].contents()
    heads = field("attention.head_count")
    shape = Shape(field("block_count"), heads, field("attention.head_count_kv"), field("attention.layer_norm_rms_epsilon"), field("rope.freq_base"))
    weights = {}
    for tensor in reader.tensors:
        w = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        count = heads if tensor.name.endswith("attn_q.weight") else shape.kv_heads if tensor.name.endswith("attn_k.weight") else 0
        if count:
            w = w.unflatten(0, (count, -1, 2)).transpose(1, 2).flatten(0, 2)
        weights[tensor.name] = w.contiguous()
    return shape, weights


def is_linear(name):
    return name.startswith("blk.") and "norm" not in name


def rope_table(tokens, width, base):
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * base ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)
    return angle.cos().float(), angle.sin().float()


def rope(x, table):
    cos, sin = (t.to(x.dtype) for t in table)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def forward(shape, p, tokens, quant=Exact()):
    """Logits [B, T, V] of tokens [B, T]."""
    heads = lambda x, count: x.unflatten(-1, (count, -1)).transpose(1, 2)
    norm = lambda x, name: F.rms_norm(x, x.shape[-1:], p[name], shape.eps)
    embedding = quant.weight("token_embd.weight", p["token_embd.weight"])
    x = F.embedding(tokens, embedding)
    table = rope_table(tokens.shape[1], x.shape[-1] // shape.heads, shape.rope_base)
    for i in range(shape.layers):
        linear = lambda x, name: F.linear(x, quant.weight(f"blk.{i}.{name}.weight", p[f"blk.{i}.{name}.weight"]))
        n = quant.activation(norm(x, f"blk.{i}.attn_norm.weight"))
        q = rope(heads(linear(n, "attn_q"), shape.heads), table)
        k = quant.cache(rope(heads(linear(n, "attn_k"), shape.kv_heads), table))
        v = quant.cache(heads(linear(n, "attn_v"), shape.kv_heads))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + linear(quant.activation(a.transpose(1, 2).flatten(-2)), "attn_output")
        n = quant.activation(norm(x, f"blk.{i}.ffn_norm.weight"))
        x = x + linear(quant.activation(F.silu(linear(n, "ffn_gate")) * linear(n, "ffn_up")), "ffn_down")
    x = norm(x, "output_norm.weight")
    head = quant.weight("output.weight", p["output.weight"]) if "output.weight" in p else embedding
    return F.linear(quant.head_activation(x) if hasattr(quant, "head_activation") else x, head)
