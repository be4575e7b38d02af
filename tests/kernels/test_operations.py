"""Each operation against a float64 oracle: on a plain CPU, in the interpreter, or on a GPU."""

from __future__ import annotations

import pytest
import torch
from oracle import DEVICE, DTYPES, EPS, SHAPES, Operation, assert_as_exact, random
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tunebook_kernels import can_launch, rms_norm, rms_norm_reference
from tunebook_kernels._launch import INTERPRETED


def llama(n: int) -> Operation:
    module = LlamaRMSNorm(n, EPS)
    return lambda x, w: torch.func.functional_call(module, {"weight": w}, (x,))


def gemma(n: int) -> Operation:
    module = Gemma2RMSNorm(n, EPS)
    return lambda x, w: torch.func.functional_call(module, {"weight": w}, (x,))


@pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
@pytest.mark.parametrize("offset", [0.0, 1.0], ids=["llama", "gemma"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm_is_as_exact_as_the_hugging_face_module(shape, dtype, offset, strided):
    x = random(shape, dtype, 1, strided=strided)
    weight = random(shape[-1:], dtype, 2)
    upstream = random(shape, dtype, 3, strided=strided)
    assert x.shape == shape
    module = llama(shape[-1]) if offset == 0.0 else gemma(shape[-1])
    assert_as_exact(
        lambda x, w: rms_norm(x, w, EPS, offset=offset),
        module,
        lambda x, w: rms_norm_reference(x, w, EPS, offset=offset),
        upstream,
        x,
        weight,
    )


@pytest.mark.parametrize("offset", [0.0, 1.0], ids=["llama", "gemma"])
def test_rms_norm_with_wide_weights_and_narrow_inputs(offset):
    x, weight = random((5, 33), torch.float16, 4), random((33,), torch.float32, 5)
    module = llama(33) if offset == 0.0 else gemma(33)
    ours, theirs = rms_norm(x, weight, EPS, offset=offset), module(x, weight)
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs)


def test_rms_norm_of_a_single_column_is_its_sign():
    x = torch.tensor([[3.0], [-0.5]], device=DEVICE, requires_grad=True)
    output = rms_norm(x, torch.full((1,), 2.0, device=DEVICE), EPS)
    output.sum().backward()
    torch.testing.assert_close(output, 2.0 * x.detach().sign())
    torch.testing.assert_close(x.grad, torch.zeros_like(x), atol=1e-4, rtol=0)


def test_rms_norm_leaves_a_frozen_weight_without_a_gradient():
    x, weight = random((5, 33), torch.float32, 6).requires_grad_(), random((33,), torch.float32, 7)
    rms_norm(x, weight, EPS).sum().backward()
    assert weight.grad is None
    expected = random((5, 33), torch.float32, 6).requires_grad_()
    rms_norm_reference(expected, weight, EPS).sum().backward()
    torch.testing.assert_close(x.grad, expected.grad)


def test_rms_norm_weight_gradient_over_more_rows_than_programs():
    shape = (300, 8) if DEVICE == "cpu" else (20_000, 8)
    x, weight = random(shape, torch.float32, 8), random((8,), torch.float32, 9)
    assert_as_exact(
        lambda x, w: rms_norm(x, w, EPS),
        llama(8),
        lambda x, w: rms_norm_reference(x, w, EPS),
        random(shape, torch.float32, 10),
        x,
        weight,
    )


def test_empty_inputs_keep_their_shape():
    x = torch.empty((0, 16), device=DEVICE)
    assert rms_norm(x, torch.ones(16, device=DEVICE), EPS).shape == (0, 16)


def test_kernels_are_taken_where_triton_runs_and_only_there():
    x = torch.ones((2, 4), device=DEVICE)
    assert can_launch(x) == (DEVICE == "cuda" or INTERPRETED)
    assert not can_launch(x.double())
    assert "RMSNorm" in str(rms_norm(x.requires_grad_(), x[0], EPS).grad_fn) or not can_launch(x)
