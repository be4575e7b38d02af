"""LayerNorm and its raw entry points against float64 and torch's own."""

from __future__ import annotations

import pytest
import torch
from oracle import DEVICE, DTYPES, EPS, SHAPES, assert_as_exact, assert_close, random
from torch.nn.functional import layer_norm as torch_layer_norm

from tunebook_kernels import (
    can_launch,
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
    layer_norm_reference,
)

PARAMETERS = pytest.mark.parametrize("parameters", [0, 1, 2], ids=["none", "weight", "bias"])
ROWS = [(2, 8), (5, 33), (9, 1000)]
WITH_FLOAT64 = pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)


def with_missing(operation):
    """A function of x and 0 to 2 parameters."""
    return lambda x, weight=None, bias=None: operation(x, weight, bias, EPS)


def theirs(x, weight=None, bias=None):
    return torch_layer_norm(x, x.shape[-1:], weight, bias, EPS)


@pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
@PARAMETERS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_norm_is_as_exact_as_torch(shape, dtype, parameters, strided):
    assert_as_exact(
        with_missing(layer_norm),
        theirs,
        with_missing(layer_norm_reference),
        random(shape, dtype, 1, strided=strided),
        random(shape, dtype, 2, strided=strided),
        *[random(shape[-1:], dtype, seed) for seed in (3, 4)[:parameters]],
    )


def test_rows_far_from_zero_keep_their_variance():
    x = random((6, 100), torch.float32, 5) + 1000.0
    exact = layer_norm_reference(x.double(), None, None, EPS)
    assert float((layer_norm(x, None, None, EPS).double() - exact).abs().max()) < 1e-3


@PARAMETERS
@WITH_FLOAT64
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_raw_forward_adds_and_writes_into_wider_rows(shape, dtype, parameters):
    rows, n = shape
    x, residual = random((n, rows), dtype, 6).t(), random((rows, n + 4), dtype, 7)[:, :n]
    weight, bias = (
        random((n,), dtype, 8 + number) if number < parameters else None for number in range(2)
    )
    wide = torch.full((rows, n + 5), 7.0, dtype=dtype, device=DEVICE)
    y, total, mean, rstd = layer_norm_forward(
        x, weight, bias, EPS, residual=residual, out=wide[:, :n]
    )
    assert y.data_ptr() == wide.data_ptr()
    assert (wide[:, n:] == 7).all()
    torch.testing.assert_close(total, x + residual, rtol=0, atol=0)
    exact = total.double()
    doubles = [None if p is None else p.double() for p in (weight, bias)]
    assert_close(y, layer_norm_reference(exact, *doubles, EPS))
    torch.testing.assert_close(mean.double(), exact.mean(-1), atol=1e-6, rtol=1e-6)
    assert_close(rstd, (exact.var(-1, correction=0) + EPS).rsqrt())


@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize("needs", [(False, False), (True, False), (True, True)], ids=str)
@WITH_FLOAT64
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_raw_backward_adds_the_other_gradient(shape, dtype, needs, inplace):
    rows, n = shape
    x, weight, bias = random(shape, dtype, 10), random((n,), dtype, 11), random((n,), dtype, 12)
    dy, wide = random((rows, n + 3), dtype, 13)[:, :n], random((rows, n + 5), dtype, 14)
    dresidual, beyond = wide[:, :n], wide[:, n:].clone()
    leaves = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    exact = torch.autograd.grad(layer_norm_reference(*leaves, EPS), leaves, dy.double())
    exact_dx = exact[0] + dresidual.double()

    *_, mean, rstd = layer_norm_forward(x, weight, bias, EPS)
    dx, *sums = layer_norm_backward(
        dy,
        x,
        weight,
        mean,
        rstd,
        dresidual=dresidual,
        inplace=inplace,
        needs_dweight=needs[0],
        needs_dbias=needs[1],
    )
    assert dx.dtype == dtype
    assert_close(dx, exact_dx)
    assert (dx.data_ptr() == wide.data_ptr()) == inplace
    assert torch.equal(wide[:, n:], beyond)
    for needed, ours, truth in zip(needs, sums, exact[1:], strict=True):
        assert (ours is not None) == needed
        if needed:
            assert_close(ours, truth)


def test_parameter_gradients_over_more_rows_than_programs():
    shape = (300, 8) if DEVICE == "cpu" else (20_000, 8)
    assert_as_exact(
        with_missing(layer_norm),
        theirs,
        with_missing(layer_norm_reference),
        random(shape, torch.float32, 15),
        random(shape, torch.float32, 16),
        *[random((8,), torch.float32, seed) for seed in (17, 18)],
    )


def test_it_is_fused_where_triton_runs():
    x = torch.ones((2, 4), device=DEVICE, requires_grad=True)
    assert ("_LayerNorm" in str(layer_norm(x, None, None, EPS).grad_fn)) == can_launch(x)
    assert layer_norm(x[:0], None, None, EPS).shape == (0, 4)
