"""Quantised blocks are those of ggml: the same bytes but for ties, never a larger error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from gguf_blocks import PLAIN, compared, ggml_quantize
from torch import Tensor

from tunebook.errors import TensorUnsuitable
from tunebook.export.gguf import blocks
from tunebook.export.gguf.blocks import BLOCK_TYPES, dequantize, finite, quantize, row_bytes

QUANTISED = [name for name in BLOCK_TYPES if name not in ("F32", "F16", "BF16")]
SEARCHED = [name for name in QUANTISED if name not in PLAIN]

# without importance these search for nothing
EXACT = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return 0.02 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heavy_tailed(*shape: int, seed: int = 0) -> Tensor:
    normals = (normal(*shape, seed=seed + i) for i in range(1, 6))
    return normal(*shape, seed=seed) / torch.stack([*normals]).square().mean(0).sqrt() / 50


def importances(k: int, seed: int = 9) -> Tensor:
    """As activations have them: of very different size."""
    return torch.randn(k, generator=torch.Generator().manual_seed(seed)).exp()


@pytest.fixture(scope="module")
def judge() -> Callable[..., Tensor]:
    """ggml's own quantiser, called as `quantize` is."""
    pytest.importorskip("xllamacpp", reason="ggml itself judges these blocks")
    return ggml_quantize


@pytest.mark.parametrize("weights", [normal, heavy_tailed])
@pytest.mark.parametrize("type", QUANTISED)
def test_blocks_are_those_of_ggml(
    type: str, weights: Callable[..., Tensor], judge: Callable[..., Tensor]
) -> None:
    x = weights(96, 1024, seed=QUANTISED.index(type))
    same, error = compared(x, type, quantize(x, type), judge(x, type), None)
    assert same >= (1 if type in EXACT else 0.94)
    assert error <= 1.001


@pytest.mark.parametrize("weights", [normal, heavy_tailed])
@pytest.mark.parametrize("type", SEARCHED)
def test_blocks_of_known_importance_are_those_of_ggml(
    type: str, weights: Callable[..., Tensor], judge: Callable[..., Tensor]
) -> None:
    x, importance = weights(96, 1024, seed=QUANTISED.index(type)), importances(1024)
    ours, theirs = quantize(x, type, importance), judge(x, type, importance)
    same, error = compared(x, type, ours, theirs, importance)
    assert same >= 0.94
    assert error <= 1.002  # few columns decide it
    plain = compared(x, type, ours, quantize(x, type), importance)[1]
    assert plain < 1  # that is what importance is for


UNUSUAL = {
    "constant": torch.full((2, 512), 0.3),
    "negative constant": torch.full((2, 512), -0.3),
    "positive": normal(24, 512).abs() + 0.01,
    "negative": -normal(24, 512).abs() - 0.01,
    "mostly zero": normal(24, 512) * (normal(24, 512, seed=5) > 0.01),
    "whole numbers": (normal(24, 512) * 150).round(),
    "tiny": normal(24, 512) * 1e-4,
    "vanishing": normal(24, 512) * 1e-8,
    "huge": normal(24, 512) * 5e5,
    "one outlier": torch.cat([torch.full((24, 1), 0.5), normal(24, 511)], dim=1),
    "as bfloat16": normal(24, 512).bfloat16().float(),
}


@pytest.mark.parametrize("rows", UNUSUAL)
@pytest.mark.parametrize("type", QUANTISED)
def test_unusual_rows_are_as_near_as_with_ggml(
    type: str, rows: str, judge: Callable[..., Tensor]
) -> None:
    x, rounding = UNUSUAL[rows], 2.0**-22  # a scale in float16 is wrong by a share of 2^-11
    for importance in (None,) if type in PLAIN else (None, importances(512)):
        nothing, ours, theirs = (
            float(
                (written - x).double().square().mul(1 if importance is None else importance).sum()
            )
            for written in (
                torch.zeros(512),
                dequantize(quantize(x, type, importance), type),
                dequantize(judge(x, type, importance), type),
            )
        )
        assert ours <= 1.03 * theirs + rounding * nothing


@pytest.mark.parametrize("type", QUANTISED)
def test_zero_rows_stay_zero(type: str) -> None:
    x = torch.zeros(3, 512)
    for importance in (None, torch.ones(512), torch.zeros(512)):
        packed = quantize(x, type, importance)
        assert torch.equal(dequantize(packed, type), x)
    assert torch.equal(dequantize(quantize(x, type), type), x)


@pytest.mark.parametrize("type", SEARCHED)
def test_columns_without_importance_do_no_harm(type: str, judge: Callable[..., Tensor]) -> None:
    x = normal(24, 512, seed=3)
    importance = torch.ones(512)
    importance[100:420] = 0  # a whole block, and parts of two
    ours, theirs = (
        float((dequantize(packed, type) - x).square().mul(importance).sum())
        for packed in (quantize(x, type, importance), judge(x, type, importance))
    )
    assert ours <= 1.01 * theirs


@pytest.mark.parametrize("type", BLOCK_TYPES)
def test_weights_are_read_as_the_gguf_package_reads_them(type: str) -> None:
    from gguf.quants import dequantize as reference

    packed = quantize(heavy_tailed(16, 512, seed=2), type)
    expected = torch.from_numpy(reference(packed.numpy(), BLOCK_TYPES[type].ggml))
    assert torch.equal(dequantize(packed, type), expected.float())


@pytest.mark.parametrize("type", BLOCK_TYPES)
def test_any_shape_dtype_and_layout_gives_the_same_rows(type: str) -> None:
    x = normal(2, 3, 256, seed=4)
    packed = quantize(x, type)
    assert packed.shape == (2, 3, row_bytes(type, 256))
    assert packed.dtype == torch.uint8
    assert dequantize(packed, type).shape == x.shape
    assert torch.equal(packed[1, 2], quantize(x[1, 2], type))
    assert torch.equal(packed[:0], quantize(x[:0], type))
    turned = x.transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    assert torch.equal(packed, quantize(turned, type))
    for half in (torch.float16, torch.bfloat16):
        assert torch.equal(quantize(x.to(half), type), quantize(x.to(half).float(), type))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_pieces_in_threads_are_the_pieces_of_one() -> None:
    x, importance = normal(600, 1024, seed=6), importances(1024)
    results = [quantize(x, "Q4_0", importance)]
    assert torch.get_num_threads() == 3
    with torch.inference_mode():  # which is this thread's, not theirs
        results.append(quantize(x, "Q4_0", importance))
        assert torch.equal(dequantize(results[1], "Q4_0"), dequantize(results[0], "Q4_0"))
    torch.set_num_threads(1)
    results.append(quantize(x, "Q4_0", importance))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[0][333], quantize(x[333], "Q4_0", importance))


@pytest.mark.usefixtures("three_threads")
def test_torch_starts_no_threads_inside_of_ours() -> None:
    seen: list[int] = []
    blocks._each(lambda _: seen.append(torch.get_num_threads()), 9, 2**20, torch.device("cpu"))
    assert seen == [1] * 9


def test_sizes_are_those_of_the_formats() -> None:
    expected = {"Q2_K": 2.625, "Q3_K": 3.4375, "IQ4_XS": 4.25, "Q4_K": 4.5, "Q6_K": 6.5625}
    assert {name: BLOCK_TYPES[name].bits_per_weight for name in expected} == expected
    assert row_bytes("Q4_K", 1024) == 4 * 144
    assert row_bytes("F16", 7) == 14


def test_what_does_not_divide_is_refused_with_what_does() -> None:
    with pytest.raises(TensorUnsuitable, match="Q4_K") as caught:
        quantize(torch.zeros(2, 288), "Q4_K")
    assert "288" in caught.value.why
    assert "Q8_0" in caught.value.do
    with pytest.raises(TensorUnsuitable, match="IQ2_XS"):
        row_bytes("IQ2_XS", 256)
    with pytest.raises(TensorUnsuitable, match="importance"):
        quantize(torch.zeros(2, 512), "Q4_K", torch.ones(256))
    with pytest.raises(TensorUnsuitable, match="145 bytes"):
        dequantize(torch.zeros(2, 145, dtype=torch.uint8), "Q4_K")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers_are_found(dtype: torch.dtype) -> None:
    x = normal(300, 64).to(dtype)
    assert finite(x)
    for value in (torch.nan, torch.inf, -torch.inf):
        spoilt = x.clone()
        spoilt[200, 17] = value
        assert not finite(spoilt)


@pytest.mark.gpu
@pytest.mark.parametrize("type", QUANTISED)
def test_a_gpu_makes_the_same_blocks(type: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = normal(512, 1024, seed=7)
    packed = quantize(x.cuda(), type)
    assert packed.is_cuda
    same, error = compared(x, type, packed.cpu(), quantize(x, type), None)
    assert same >= 0.96
    assert error <= 1.001
    assert torch.allclose(dequantize(packed, type).cpu(), dequantize(packed.cpu(), type))
