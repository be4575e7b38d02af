"""What every test of a kernel shares: seeded inputs, shapes, dtypes and the float64 oracle.

Knows no operation: what is compared is given by the test.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tunebook_kernels._launch import INTERPRETED

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16] + ([] if INTERPRETED else [torch.bfloat16])
SHAPES = [(1, 3), (3, 7), (2, 5, 64), (17, 129), (4, 3, 2, 96), (9, 1000)]
EPS = 1e-6
# Where the oracle is met to the last bit or nearly, a ratio means nothing.
TINY = {torch.float32: 5e-7, torch.float16: 1e-4, torch.bfloat16: 1e-3}

Operation = Callable[..., torch.Tensor]


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int, *, strided: bool = False):
    generator = torch.Generator().manual_seed(seed)
    if strided:  # every second column of a wider tensor whose first two dimensions were swapped
        if len(shape) == 2:
            wide = torch.randn((shape[1] * 2, shape[0]), generator=generator).t()
            return wide[:, ::2].to(DEVICE, dtype)
        wide = torch.randn((shape[1], shape[0], *shape[2:-1], 2 * shape[-1]), generator=generator)
        return wide.to(DEVICE, dtype).transpose(0, 1)[..., ::2]
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def gradients(operation: Operation, upstream: torch.Tensor, *inputs: torch.Tensor):
    """The output and the gradient of every input, in the dtype of the inputs."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    output = operation(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream.to(output.dtype))]


def error(result: torch.Tensor, oracle: torch.Tensor) -> float:
    assert torch.isfinite(result).all()
    return float((result.double() - oracle).norm() / oracle.norm().clamp_min(1e-12))


def assert_as_exact(ours: Operation, theirs: Operation, oracle: Operation, upstream, *inputs):
    """Our error against float64 is at most 1.1 times theirs, for the output and every gradient."""
    exact = gradients(oracle, upstream.double(), *[value.double() for value in inputs])
    mine, other = gradients(ours, upstream, *inputs), gradients(theirs, upstream, *inputs)
    for name, a, b, truth in zip("y123", mine, other, exact, strict=False):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        roundings = 4 if truth.numel() < 16 else 1  # of so few elements chance decides the ratio
        limit = 1.1 * error(b, truth) + roundings * TINY[inputs[0].dtype]
        assert error(a, truth) <= limit, f"{name}: {error(a, truth)} against {limit}"


# The largest error relative to float64 of one operation with one rounding, or a few in a row.
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def assert_close(result: torch.Tensor, oracle: torch.Tensor):
    """For what no module of Hugging Face computes: the same numbers but for the rounding."""
    assert result.shape == oracle.shape
    assert error(result, oracle) <= CLOSE[result.dtype]
