"""act(gate) · up against a float64 oracle: as an operation, and as the functions beneath it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from oracle import DEVICE, DTYPES, SHAPES, assert_as_exact, random
from transformers.activations import ACT2FN

from tunebook_kernels import (
    can_launch,
    gated_backward,
    gated_forward,
    geglu,
    geglu_reference,
    swiglu,
    swiglu_reference,
)

TANH = {"approximate": "tanh"}
# the operation, its reference, and the name that Hugging Face gives the activation
OPERATIONS = {
    "silu": (swiglu, swiglu_reference, "silu"),
    "gelu": (geglu, geglu_reference, "gelu"),
    "gelu_tanh": (partial(geglu, **TANH), partial(geglu_reference, **TANH), "gelu_pytorch_tanh"),
}
every_activation = pytest.mark.parametrize("activation", OPERATIONS)


def halves(rows: int, n: int, padding: int, dtype: torch.dtype, seed: int):
    """gate, up and padding as columns of one buffer, and the first two as views."""
    buffer = random((rows, 2 * n + padding), dtype, seed)
    return buffer, buffer[:, :n], buffer[:, n : 2 * n]


@pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 2500)], ids=str)
@every_activation
def test_it_is_as_exact_as_the_hugging_face_expression(activation, shape, dtype, strided):
    ours, reference, name = OPERATIONS[activation]
    act_fn = ACT2FN[name]
    assert_as_exact(
        ours,
        lambda gate, up: act_fn(gate) * up,
        reference,
        random(shape, dtype, 3, strided=strided),
        random(shape, dtype, 1, strided=strided),
        random(shape, dtype, 2, strided=strided),
    )


@every_activation
def test_the_two_halves_of_one_projection_are_taken(activation):
    ours, reference, _ = OPERATIONS[activation]
    both = random((6, 2 * 40), torch.float32, 11)
    gate, up = both.chunk(2, dim=-1)
    torch.testing.assert_close(ours(gate, up), reference(gate, up))


@every_activation
def test_extreme_gates_stay_finite(activation):
    gate = torch.tensor([[-1e4, -90.0, 0.0, 90.0, 1e4]], device=DEVICE, requires_grad=True)
    up = torch.ones_like(gate)
    output = OPERATIONS[activation][0](gate, up)
    output.sum().backward()
    torch.testing.assert_close(output, torch.tensor([[0.0, 0, 0, 90, 1e4]], device=DEVICE))
    torch.testing.assert_close(gate.grad, torch.tensor([[0.0, 0, 0.5, 1, 1]], device=DEVICE))


@every_activation
def test_empty_inputs_keep_their_shape(activation):
    x = torch.empty((0, 16), device=DEVICE)
    assert OPERATIONS[activation][0](x, x).shape == (0, 16)


@pytest.mark.parametrize("padding", [0, 5, 8], ids=lambda n: f"padding {n}")
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@every_activation
def test_the_forward_fills_the_first_columns_of_a_wider_buffer(activation, dtype, padding):
    _, gate, up = halves(7, 72, padding, dtype, 1)
    wide = torch.full((7, 72 + padding), 7.0, dtype=dtype, device=DEVICE)
    out = wide[:, :72]
    assert gated_forward(gate, up, activation, out=out) is out
    assert torch.equal(out, OPERATIONS[activation][0](gate, up))
    assert torch.equal(out, gated_forward(gate, up, activation))
    assert (wide[:, 72:] == 7.0).all()


@pytest.mark.parametrize("padding", [0, 5, 8], ids=lambda n: f"padding {n}")
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@every_activation
def test_the_backward_may_overwrite_what_it_reads(activation, dtype, padding):
    buffer, gate, up = halves(7, 72, padding, dtype, 1)
    wide = random((7, 72 + padding), dtype, 2)
    dh = wide[:, :72]
    before, rest = wide[:, 72:].clone(), buffer[:, 144:].clone()

    leaves = [part.clone().requires_grad_() for part in (gate, up)]
    h = OPERATIONS[activation][0](*leaves)
    expected = torch.autograd.grad(h, leaves, dh.clone())
    gated_backward(dh, gate, up, activation, dgate=gate, dup=up, h=dh)

    # where no kernel runs, autograd rounds to the dtype on its way
    exact = {"rtol": 0, "atol": 0} if can_launch(gate) else {}
    for result, wanted in zip((gate, up, dh), (*expected, h.detach()), strict=True):
        torch.testing.assert_close(result, wanted, **exact)
    assert torch.equal(wide[:, 72:], before)
    assert torch.equal(buffer[:, 144:], rest)


@every_activation
def test_the_backward_writes_no_output_that_was_not_asked_for(activation):
    _, gate, up = halves(3, 40, 0, torch.float32, 1)
    dh, copies = random((3, 40), torch.float32, 2), (gate.clone(), up.clone())
    dgate, dup, h = (torch.empty((3, 40), device=DEVICE) for _ in range(3))
    gated_backward(dh, gate, up, activation, dgate=dgate, dup=dup)
    assert torch.equal(dh, random((3, 40), torch.float32, 2))
    assert torch.equal(gate, copies[0])
    assert torch.equal(up, copies[1])
    again, dup_again = torch.empty_like(dgate), torch.empty_like(dup)
    gated_backward(dh, gate, up, activation, dgate=again, dup=dup_again, h=h)
    assert torch.equal(again, dgate)
    assert torch.equal(dup_again, dup)
    assert torch.equal(h, gated_forward(gate, up, activation))
