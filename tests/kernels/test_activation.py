"""act(x) against a float64 oracle, and in the place of what it reads."""

from __future__ import annotations

import pytest
import torch
from oracle import DEVICE, DTYPES, SHAPES, assert_as_exact, assert_close, random
from transformers.activations import ACT2FN

from tunebook_kernels import activation_backward, activation_forward, activation_reference

NAMES = {  # ours, and that of Hugging Face
    "silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu",
}  # fmt: skip
every_activation = pytest.mark.parametrize("activation", NAMES)


class _Activation(torch.autograd.Function):
    """The two functions, as a fused MLP calls them."""

    @staticmethod
    def forward(ctx, x, activation):
        ctx.activation = activation
        ctx.save_for_backward(x)
        return activation_forward(x, activation)

    @staticmethod
    def backward(ctx, dh):
        (x,) = ctx.saved_tensors
        dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        activation_backward(dh, x, ctx.activation, dx=dx)
        return dx, None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 2] + [(2, 2500)], ids=str)
@every_activation
def test_it_is_as_exact_as_hugging_faces(activation, shape, dtype):
    assert_as_exact(
        lambda x: _Activation.apply(x, activation),
        ACT2FN[NAMES[activation]],
        lambda x: activation_reference(x, activation),
        random(shape, dtype, 3),
        random(shape, dtype, 1),
    )


@every_activation
def test_extreme_inputs_stay_finite(activation):
    x = torch.tensor([[-1e4, -90.0, 0.0, 90.0, 1e4]], device=DEVICE)
    dx = torch.empty_like(x)
    torch.testing.assert_close(activation_forward(x, activation), x.clamp(min=0))
    activation_backward(torch.ones_like(x), x, activation, dx=dx)
    torch.testing.assert_close(dx, torch.tensor([[0.0, 0, 0.5, 1, 1]], device=DEVICE))


@pytest.mark.parametrize("padding", [0, 5, 8], ids=lambda n: f"padding {n}")
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@every_activation
def test_the_backward_may_overwrite_what_it_reads(activation, dtype, padding):
    wide, buffer = random((7, 72 + padding), dtype, 2), random((7, 72 + padding), dtype, 1)
    dh, x = wide[:, :72], buffer[:, :72]
    rest = wide[:, 72:].clone(), buffer[:, 72:].clone()
    leaf = x.double().clone().requires_grad_()
    h = activation_reference(leaf, activation)
    (expected,) = torch.autograd.grad(h, leaf, dh.double().clone())
    activation_backward(dh, x, activation, dx=x, h=dh)
    assert_close(x, expected)
    assert_close(dh, h.detach())
    assert torch.equal(wide[:, 72:], rest[0])
    assert torch.equal(buffer[:, 72:], rest[1])
