"""The quantizers of a SiLQ step (arXiv 2507.16933): LSQ weights (arXiv 1902.08153), dynamic 8-bit activations, cache."""
import math

import torch


class Lsq(torch.autograd.Function):
    """Rows of w share a step; gradients in closed form."""

    @staticmethod
    def forward(ctx, w, step, bits, gradient_scale):
        low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
        u = w / step
        code = u.clamp(low, high).round_()
        ctx.save_for_backward(u, code)
        ctx.limits = low, high, gradient_scale
        return code * step

    @staticmethod
    def backward(ctx, dy):
        u, code = ctx.saved_tensors
        low, high, gradient_scale = ctx.limits
        inside = (u >= low) & (u <= high)
        slope = torch.where(inside, code - u, code)
        return dy * inside, (dy * slope).sum(-1, keepdim=True) * gradient_scale, None, None


class Dynamic(torch.autograd.Function):
    """Symmetric, one scale per row of the last dimension; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x, bits):
        high = 2.0 ** (bits - 1) - 1
        scale = x.abs().amax(-1, keepdim=True).clamp_(min=1e-10) / high
        return (x / scale).round_().mul_(scale)

    @staticmethod
    def backward(ctx, dy):
        return dy, None


def by_groups(x, group):
    return x.unflatten(-1, (-1, group)) if group else x


class GgufQ4_0:
    """Linears 4 bit in groups of 32, embedding and head 8 bit by absmax, activations 8 bit in blocks of 32, cache f16."""

    bits, group = 4, 32

    def __init__(self, steps):
        self.steps = steps

    def weight(self, name, w):
        if name not in self.steps:
            return Dynamic.apply(by_groups(w, 32), 8).flatten(-2)
        grouped = by_groups(w, self.group)
        y = Lsq.apply(grouped, self.steps[name], self.bits, 1 / math.sqrt(w.numel() * (2 ** (self.bits - 1) - 1)))
        return y.flatten(-2) if self.group else y

    def activation(self, x):
        return Dynamic.apply(by_groups(x, 32), 8).flatten(-2)

    head_activation = activation

    def cache(self, x):
        return x + (x.half().to(x.dtype) - x).detach()


class PerChannelW4A8C8(GgufQ4_0):
    """Linears 4 bit per output channel, activations 8 bit per token, cache 8 bit per token and head; embedding and head float."""

    group = 0

    def weight(self, name, w):
        return super().weight(name, w) if name in self.steps else w

    def activation(self, x):
        return Dynamic.apply(x, 8)

    def head_activation(self, x):
        return x

    def cache(self, x):
        return Dynamic.apply(x, 8)


def first_step(w, bits, group):
    """The largest magnitude onto the grid's lower end."""
    return by_groups(w, group).abs().amax(-1, keepdim=True) / 2 ** (bits - 1)
