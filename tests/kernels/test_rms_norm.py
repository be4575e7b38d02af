"""RMSNorm after a residual addition, and the raw entry points, against float64."""

from __future__ import annotations

import pytest
import torch
from oracle import DEVICE, DTYPES, EPS, SHAPES, assert_as_exact, assert_close, random
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tunebook_kernels import (
    add_rms_norm,
    add_rms_norm_reference,
    can_launch,
    rms_norm_backward,
    rms_norm_forward,
    rms_norm_reference,
)

OFFSETS = pytest.mark.parametrize("offset", [0.0, 1.0], ids=["llama", "gemma"])
ROWS = [(1, 3), (5, 33), (9, 1000)]
WITH_FLOAT64 = pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)


def both(operation, **options):
    """The normed sum and the sum as one tensor, for oracles that compare one."""
    return lambda x, residual, w: torch.cat(operation(x, residual, w, EPS, **options), -1)


def hugging_face(offset: float, n: int):
    module = (LlamaRMSNorm if offset == 0.0 else Gemma2RMSNorm)(n, EPS)

    def add_then_norm(x, residual, weight):
        total = residual + x
        normed = torch.func.functional_call(module, {"weight": weight}, (total,))
        return torch.cat((normed, total), -1)

    return add_then_norm


@pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
@OFFSETS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_rms_norm_is_as_exact_as_the_hugging_face_modules(shape, dtype, offset, strided):
    assert_as_exact(
        both(add_rms_norm, offset=offset),
        hugging_face(offset, shape[-1]),
        both(add_rms_norm_reference, offset=offset),
        random((*shape[:-1], 2 * shape[-1]), dtype, 4),
        random(shape, dtype, 1, strided=strided),
        random(shape, dtype, 2, strided=strided),
        random(shape[-1:], dtype, 3),
    )


@pytest.mark.parametrize("used", ["normed", "total"])
def test_either_output_of_add_rms_norm_can_be_left_unused(used):
    x, residual, upstream = (random((4, 24), torch.float32, seed) for seed in (5, 6, 7))
    weight = random((24,), torch.float32, 8)
    results = []
    for operation in (add_rms_norm, add_rms_norm_reference):
        leaves = [value.detach().requires_grad_() for value in (x, residual)]
        output = operation(*leaves, weight, EPS)[used == "total"]
        results.append(torch.autograd.grad(output, leaves, upstream))
    torch.testing.assert_close(*results)


def test_tensors_of_two_dtypes_are_added_as_torch_adds_them():
    x, residual = random((4, 24), torch.float16, 9), random((4, 24), torch.float32, 10)
    normed, total = add_rms_norm(x, residual, torch.ones(24, device=DEVICE), EPS)
    assert normed.dtype == total.dtype == torch.float32
    torch.testing.assert_close(total, x + residual)


@OFFSETS
@WITH_FLOAT64
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_raw_forward_adds_and_writes_into_wider_rows(shape, dtype, offset):
    rows, n = shape
    x, residual = random((n, rows), dtype, 11).t(), random((rows, n + 4), dtype, 12)[:, :n]
    weight = random((n,), dtype, 13)
    wide = torch.full((rows, n + 5), 7.0, dtype=dtype, device=DEVICE)
    y, total, rstd = rms_norm_forward(
        x, weight, EPS, offset=offset, residual=residual, out=wide[:, :n]
    )
    assert y.data_ptr() == wide.data_ptr()
    assert (wide[:, n:] == 7).all()
    torch.testing.assert_close(total, x + residual, rtol=0, atol=0)
    exact = total.double()
    assert_close(y, rms_norm_reference(exact, weight.double(), EPS, offset=offset))
    assert_close(rstd, (exact.pow(2).mean(-1) + EPS).rsqrt())


@WITH_FLOAT64
def test_raw_forward_without_a_residual_gives_its_input_back(dtype):
    x, weight = random((2, 3, 40), dtype, 14), random((40,), dtype, 15)
    y, total, rstd = rms_norm_forward(x, weight, EPS)
    assert total is x
    assert y.shape == x.shape
    assert rstd.shape == (6,)
    assert_close(y, rms_norm_reference(x.double(), weight.double(), EPS))


@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize("needs_dweight", [False, True], ids=["frozen", "learnt"])
@OFFSETS
@WITH_FLOAT64
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_raw_backward_adds_the_other_gradient(shape, dtype, offset, needs_dweight, inplace):
    rows, n = shape
    x, weight = random(shape, dtype, 16), random((n,), dtype, 17)
    dy, wide = random((rows, n + 3), dtype, 18)[:, :n], random((rows, n + 5), dtype, 19)
    dresidual, beyond = wide[:, :n], wide[:, n:].clone()
    leaves = [value.detach().double().requires_grad_() for value in (x, weight)]
    y = rms_norm_reference(*leaves, EPS, offset=offset)
    exact_dx, exact_dweight = torch.autograd.grad(y, leaves, dy.double())
    exact_dx = exact_dx + dresidual.double()

    rstd = rms_norm_forward(x, weight, EPS, offset=offset)[2]
    before = dresidual.clone()
    dx, dweight = rms_norm_backward(
        dy,
        x,
        weight,
        rstd,
        offset=offset,
        dresidual=dresidual,
        inplace=inplace,
        needs_dweight=needs_dweight,
    )
    assert dx.dtype == dtype
    assert_close(dx, exact_dx)
    assert (dx.data_ptr() == wide.data_ptr()) == inplace
    assert inplace or torch.equal(dresidual, before)
    assert torch.equal(wide[:, n:], beyond)
    if needs_dweight:
        assert_close(dweight, exact_dweight)
    else:
        assert dweight is None


def test_the_sum_is_fused_where_triton_runs():
    x = torch.ones((2, 4), device=DEVICE, requires_grad=True)
    normed, _ = add_rms_norm(x, x, x[0].detach(), EPS)
    assert ("AddRMSNorm" in str(normed.grad_fn)) == can_launch(x)
